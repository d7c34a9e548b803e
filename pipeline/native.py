"""The optional C kernels of pipeline/kernels, through ctypes. Without a compiler NumPy does their work.

In the environment `XR2CT_NATIVE=0` hides them, and `XR2CT_NATIVE=avx512`, `avx2` or `plain` takes one instruction set
where the machine would choose by itself; all of them give the same bits.
Kernels release Python's lock, so several views can run in threads.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from numpy import ndarray

from pipeline.errors import UserError

_WANTED = ("0", "1", "plain", "avx2", "avx512")


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


def call(name: str, *arguments: ndarray | int | ctypes.Structure) -> None:
    """Run one kernel. Arrays must be laid out as its C source says; integers travel as int64 unless wrapped."""
    passed = []
    for argument in arguments:
        if isinstance(argument, ndarray):
            passed.append(ctypes.c_void_p(argument.ctypes.data))
        elif isinstance(argument, ctypes.Structure):
            passed.append(ctypes.byref(argument))
        else:
            passed.append(ctypes.c_int64(argument))
    wanted = os.environ.get("XR2CT_NATIVE", "1") or "1"
    if wanted not in _WANTED:
        raise UserError(f"XR2CT_NATIVE is {wanted!r}; expected one of: {', '.join(_WANTED)}. Correct or unset it.")
    if getattr(_library(), name if wanted == "1" else f"{name}_{wanted}")(*passed):
        raise MemoryError(f"kernel {name}")
