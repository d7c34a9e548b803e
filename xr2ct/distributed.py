"""Several processes that train one model: `torchrun --nproc-per-node N -m xr2ct train ...`, each with a part of the batch.

The loss is one function of sums over all points of the batch. Every process computes the sums of its part, adds them up
over the processes and so knows the whole loss; its gradient is that of its own part, and the gradients are added up too.
Alone, everything here is the identity. What is drawn at random is the same in all processes, except where it depends on
the cases themselves (boxes on the surface of a structure): there each process draws for its own.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch import distributed as dist

from xr2ct.errors import UserError


def launched() -> bool:
    """True in a process that torchrun started."""
    return dist.is_available() and dist.is_torchelastic_launched()


def rank() -> int:
    """Number of this process; 0 writes the files and speaks."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """Number of this process on its machine: the GPU it takes."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def world_size() -> int:
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def start(device: torch.device) -> None:
    """Join the other processes: NCCL between GPUs, gloo between CPUs; nothing to do for one that is alone."""
    if launched() and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def joined() -> bool:
    """True between `start` and `stop` of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Sum(torch.autograd.Function):
    """Forward all-reduce; backward hands the gradient on, because the gradients of the processes are added up later."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def sum_over_processes(part: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """The sum of `part` over all processes, differentiable with respect to this one's part.

    Every process must call it equally often and in the same order. Terms of a loss that did not go through it would be
    counted once per process.
    """
    return _Sum.apply(part) if joined() else part


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of the processes, in place; a parameter this process did not need counts as zero."""
    if not joined():
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in trained])
    dist.all_reduce(flat)
    pieces = flat.split([parameter.numel() for parameter in trained])
    for parameter, piece in zip(trained, pieces, strict=True):
        parameter.grad.copy_(piece.view(parameter.shape))


def largest_over_processes(value: int, device: torch.device) -> int:
    """The largest `value` of any process: how they agree to stop at the same step."""
    if not joined():
        return value
    number = torch.tensor(value, device=device)
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return int(number)


def share_norms(model: nn.Module, device: torch.device) -> None:
    """Let batch normalisation see the whole batch (GPUs only; on CPUs it is a UserError)."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not joined() or not norms:
        return
    if device.type != "cuda":
        raise UserError(
            f"batch normalisation over {world_size()} processes works on GPUs only. Use norm group, or one process."
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
