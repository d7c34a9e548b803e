"""What this machine can do at most, by torch with its present number of threads: the measure of every part of a step."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch


@dataclass(frozen=True)
class Limits:
    """Measured, not nominal."""

    stream_gbs: float  # triad a = b + s c, 12 bytes per element
    gemm_float32: float  # GFLOP/s
    gemm_bfloat16: float
    gather_ns: float  # per 32-byte row of a table as large as the model's, in random order
    scatter_ns: float


def measure_limits(rows: int, repeats: int = 1) -> Limits:
    """`rows` is the size of the table of eight float32 per row."""
    elements, side, reads = 2**24, 2048, 2**20
    a, b, c = (torch.zeros(elements) for _ in range(3))
    x, y = torch.randn(side, side), torch.randn(side, side)
    table, row = torch.zeros(rows, 8), torch.randint(rows, (reads,))
    read = torch.empty(reads, 8)
    x16, y16 = x.bfloat16(), y.bfloat16()
    return Limits(
        stream_gbs=12e-9 * elements / seconds(lambda: torch.add(b, c, alpha=3.0, out=a), repeats),
        gemm_float32=2e-9 * side**3 / seconds(lambda: x @ y, repeats),
        gemm_bfloat16=2e-9 * side**3 / seconds(lambda: x16 @ y16, repeats),
        gather_ns=1e9 / reads * seconds(lambda: torch.index_select(table, 0, row, out=read), repeats),
        scatter_ns=1e9 / reads * seconds(lambda: table.index_add_(0, row, read), repeats),
    )


def median_limits(found: Sequence[Limits]) -> Limits:
    """Of each kind by itself."""
    return Limits(*(statistics.median(column) for column in zip(*map(astuple, found), strict=True)))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median after one run that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)
