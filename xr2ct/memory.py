"""Memory that a training frees stays with the process.

Every step asks for the same large tensors again. The C library gives them back to the system in between, and new pages cost
more than filling them.
"""

import ctypes
import platform

# mallopt(3) of glibc
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1
AHEAD = 2**26  # bytes asked of the system beyond what is wanted


def keep_freed_memory() -> bool:
    """From now on, in this process; False where the C library has no such setting."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {MMAP_MAX: 0, TRIM_THRESHOLD: LARGEST, TOP_PAD: AHEAD}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
