"""What a training frees it gets again without new pages."""

import platform
import subprocess
import sys

import pytest

ASK = """
import resource, torch
from xr2ct.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def step():
    held = torch.empty(2**24).fill_(1), torch.empty(2**25).fill_(1)
    torch.empty(2**22).fill_(1)
for _ in range(20):  # until the pieces fit
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    """New pages of five steps that use 192 MiB each."""
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(keep=keep)], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again():
    assert 20 * faults(keep=True) < faults(keep=False)
