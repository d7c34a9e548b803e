"""The hash grid by Triton kernels: float32 on an NVIDIA GPU, gradients by atomics and so in no fixed order of addition.

Tested through Triton's interpreter (TRITON_INTERPRET=1, on the CPU); NOT YET RUN ON A GPU."""

import importlib
import os
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from xr2ct.encoding import reference
from xr2ct.encoding.lattice import zero_table
from xr2ct.encoding.levels import Levels
from xr2ct.errors import UserError

BLOCK = 128  # points per program


def missing() -> str:
    """Why this backend cannot be had here, or nothing."""
    try:
        importlib.import_module("triton")
    except Exception as error:
        return f"the package triton cannot be imported ({type(error).__name__}: {error})"
    return "" if torch.cuda.is_available() or interpreted() else "there is no CUDA device"


def interpreted() -> bool:
    """Whether Triton computes on the CPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def encode_points(
    table: Float[Tensor, "rows features"], levels: Levels, points: Float[Tensor, "n 3"]
) -> Float[Tensor, "n channels"]:
    """Encode scattered points (x, y, z); points that need a gradient themselves go through the reference."""
    for name, value in {"table": table, "points": points}.items():
        if value.dtype != torch.float32 or not (value.is_cuda or interpreted()):
            raise UserError(
                f"backend 'triton': the {name} is {value.dtype} on {value.device}; expected torch.float32 on cuda. "
                "Choose the backend 'auto'."
            )
    if points.requires_grad and torch.is_grad_enabled():
        return reference.encode_points(table, levels, points)
    return EncodePoints.apply(table.contiguous(), levels, points.T.contiguous())


class EncodePoints(torch.autograd.Function):
    """Of points [3, n]. Linear in the table: the backward pass needs the points, nothing of the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, levels: Levels, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        ctx.levels, ctx.features = levels, table.shape[1]
        encoded = table.new_empty(points.shape[1], len(levels) * ctx.features)
        launch("encode", levels, points, table, encoded)
        return encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        gradient = zero_table(ctx.levels, ctx.features, points)
        launch("add_adjoint", ctx.levels, points, gradient, pull.contiguous())
        return gradient, None, None


def launch(
    kernel: str,
    levels: Levels,
    points: Float[Tensor, "3 n"],
    table: Float[Tensor, "rows features"],
    encoded: Float[Tensor, "n channels"],
) -> None:
    """One of the module triton_kernels, which is imported where it is needed first."""
    n, features = points.shape[1], table.shape[1]
    if n == 0:
        return
    grid = -(-n // BLOCK), len(levels)
    kernels = importlib.import_module("xr2ct.encoding.triton_kernels")
    vector = 1 << (features - 1).bit_length()
    getattr(kernels, kernel)[grid](
        points, n, *columns(levels, points.device), table, encoded, FEATURES=features, VECTOR=vector, BLOCK=BLOCK
    )


@cache
def columns(levels: Levels, device: torch.device) -> tuple[Tensor, ...]:
    """Scale, resolution, entries, offset and denseness of the levels, as the kernels read them."""
    kinds = {"scale": torch.float32, "resolution": torch.int32, "entries": torch.int32, "offset": torch.int64}
    made = [torch.tensor([getattr(level, name) for level in levels], dtype=kind) for name, kind in kinds.items()]
    made.append(torch.tensor([level.dense for level in levels], dtype=torch.int32))
    return tuple(column.to(device) for column in made)
