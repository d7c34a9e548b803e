"""The optional C kernels of xr2ct/kernels, through ctypes. Without a compiler there are none, and PyTorch does the work.

`XR2CT_NATIVE=0` in the environment hides them. Kernels release Python's lock and use torch's number of threads.
"""

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor


@cache
def _library() -> ctypes.CDLL | None:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # built for another machine
                return None
    return None


def has_kernels() -> bool:
    """Whether the C kernels were built and are wanted."""
    return os.environ.get("XR2CT_NATIVE", "1") != "0" and _library() is not None


def call(name: str, *arguments: Tensor | int | ctypes.Array) -> None:
    """Run one kernel with torch's number of threads as last argument. Tensors must be contiguous, on the CPU and of the
    type that the C source says; integers travel as int64."""
    passed = []
    for argument in (*arguments, torch.get_num_threads()):
        if isinstance(argument, Tensor):
            passed.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            passed.append(ctypes.c_int64(argument) if isinstance(argument, int) else argument)
    if getattr(_library(), name)(*passed):
        raise ValueError(f"kernel {name} cannot do this")
