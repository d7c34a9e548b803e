"""Where tensors live."""

import os

import torch

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
        torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device 'cuda' was asked for, but torch sees no CUDA device. Use --device cpu or auto.")
    if name == "auto" and not available:
        print(f"No CUDA device: computing on the CPU with {torch.get_num_threads()} threads.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
