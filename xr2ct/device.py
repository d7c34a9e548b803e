"""Where tensors live."""

import os

import torch

from xr2ct.distributed import local_rank, rank
from xr2ct.errors import UserError
from xr2ct.settings import unknown

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str, threads: int | None) -> torch.device:
    """The device for one of DEVICES, and the number of CPU threads from now on (None: torch's choice).

    Never more threads than cores: two on one core are slower than one.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if threads is not None:
        if threads < 1:
            raise UserError(f"threads is {threads}; expected 1 or more. Leave --threads out to use all cores.")
        torch.set_num_threads(min(threads, os.cpu_count() or 1))
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device 'cuda' was asked for, but torch sees no CUDA device. Use --device cpu or auto.")
    if name == "auto" and not available and rank() == 0:
        print(f"No CUDA device: computing on the CPU with {torch.get_num_threads()} threads.")
    if not available or name == "cpu":
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            f"process {local_rank()} of this machine has no GPU: torch sees {count}. Start {count} processes."
        )
    torch.cuda.set_device(local_rank())
    return torch.device("cuda")
