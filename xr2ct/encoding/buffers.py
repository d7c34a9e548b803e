"""Large float32 tensors for the CPU that begin at a cache line, lie on large pages and use the memory of the last one again.

A row of eight features is half a cache line: at another alignment every second row needs two. Fresh pages cost more than
filling them, and torch gives large tensors back to the system at once (but in a training that keeps them, xr2ct/memory.py):
every step would pay for the table's gradient anew.
"""

import weakref
from math import prod

import numpy as np
import torch
from torch import Tensor

LINE = 64  # bytes
FREE: dict[int, np.ndarray] = {}  # by size: one of each of the last MOST_SIZES
MOST_SIZES = 8


def empty_buffer(*shape: int) -> Tensor:
    """An uninitialised tensor, whose memory is kept for the next one of its size when nobody holds it any more."""
    count = prod(shape)
    memory = FREE.pop(count, None)
    if memory is None:
        memory = np.empty(count + LINE // 4, np.float32)  # NumPy asks for large pages
    start = -memory.ctypes.data % LINE // 4
    lent = memory[start : start + count]
    weakref.finalize(lent, give_back, count, memory).atexit = False
    return torch.from_numpy(lent).view(shape)


def give_back(count: int, memory: np.ndarray) -> None:
    FREE.pop(count, None)
    FREE[count] = memory
    if len(FREE) > MOST_SIZES:
        FREE.pop(next(iter(FREE)))
