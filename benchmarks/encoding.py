"""How fast and how right the hash grid's backends are beside plain PyTorch: `python -m benchmarks.encoding`.

One pass encodes 100,000 points on 11 levels of 8 features (2^19 rows, 16 to 512 vertices a side) and takes the gradient of
the table. Rounds are interleaved (A B C A B C ...), so that a busy machine slows all alike; times are medians, ratios the
median of the ratios within each round, of wall time and of CPU time summed over threads. Where others use the machine set
OMP_WAIT_POLICY=passive: torch's waiting threads otherwise count as busy. Scattered points are uniform; a lattice is one block
of 50 x 50 x 40 neighbouring voxels, of a 512^3 volume (whose finest level the grid has) or of a 128^3 one (whose voxels are
four vertices apart there). The gradient's error is |g - g64| / |g64| against the reference in float64 at the same points.
`--device cuda` measures the backends that are present on a GPU (reference, lattice, triton, tinycudann), as `make bench-gpu`
does after it has tried to install tiny-cuda-nn; NOT YET RUN THERE.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from xr2ct.device import choose_device
from xr2ct.encoding import HashGrid, make_levels, present_backends, row_of_vertex

FEATURES = 8
LEVELS = make_levels(11, coarsest=16, finest=512, log2_entries=19)
BLOCK = (40, 50, 50)
GATHER, BAG = "gather", "embedding_bag, sparse gradient"
GOALS = (("lattice blocks", GATHER, 8.0), ("native", GATHER, 20.0), ("native", BAG, 6.0))


@dataclass(frozen=True)
class Row:
    """One line of the table and of the CSV."""

    threads: int
    name: str
    wall_ms: float
    cpu_ms: float
    times_gather: float
    times_bag_sparse: float
    cpu_times_gather: float
    cpu_times_bag_sparse: float
    gradient_error: float


@dataclass(frozen=True)
class Contender:
    """`encode` at `points`, whose gradient arrives in `parameters` in the order of the flat table."""

    name: str
    encode: Callable[[], Tensor]
    points: Float[Tensor, "n 3"]
    parameters: Sequence[nn.Parameter]

    def run(self, pull: Float[Tensor, "n channels"]) -> tuple[float, float]:
        """Wall and CPU milliseconds of one forward and backward pass."""
        for parameter in self.parameters:
            parameter.grad = None
        wait(self.points.device)
        wall, cpu = time.perf_counter(), time.process_time()
        encoded = self.encode()
        encoded.backward(pull.view(encoded.shape))
        wait(self.points.device)
        return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)

    def gradient(self) -> Float[Tensor, "parameters"]:
        parts = [parameter.grad for parameter in self.parameters]
        return torch.cat([(part.to_dense() if part.is_sparse else part).flatten() for part in parts])


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bags(tables: Sequence[nn.Parameter], points: Float[Tensor, "n 3"], sparse: bool) -> Float[Tensor, "n channels"]:
    """A level's eight rows and weights per point, summed by torch's own embedding_bag."""
    steps = torch.tensor([[number & 1, number >> 1 & 1, number >> 2 & 1] for number in range(8)], device=points.device)
    encoded = []
    for level, table in zip(LEVELS, tables, strict=True):
        position = points * level.scale + 0.5
        corner = position.floor()
        fraction = (position - corner)[:, None]
        weight = torch.where(steps.bool(), fraction, 1 - fraction).prod(dim=2)
        row = row_of_vertex(level, *(corner.long()[:, None] + steps).unbind(dim=2))
        encoded.append(functional.embedding_bag(row, table, per_sample_weights=weight, mode="sum", sparse=sparse))
    return torch.cat(encoded, dim=1)


def axes(voxels: int) -> list[Tensor]:
    """z, y, x of a block of neighbouring voxels of a cube with so many a side, off its centre."""
    return [(torch.arange(size) + voxels // 4 + shift + 0.5) / voxels for shift, size in enumerate(BLOCK)]


def contenders(n_points: int, device: torch.device) -> list[Contender]:
    """Everyone with the same table, where the machine has the backend."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(n_points, 3, generator=generator).to(device)
    places = {
        voxels: torch.stack(torch.meshgrid(*axes(voxels), indexing="ij")[::-1], dim=-1).reshape(-1, 3).to(device)
        for voxels in (512, 128)
    }
    source = HashGrid(LEVELS, FEATURES).to(device)
    rows = source.table().detach().split([level.entries for level in LEVELS])
    tables = [nn.Parameter(part.clone()) for part in rows]

    def scattered(name: str, backend: str) -> Contender:
        grid = HashGrid(LEVELS, FEATURES, backend).to(device)
        grid.load_state_dict(source.state_dict())
        return Contender(name, lambda: grid(points), points, [grid.parameters_flat])

    def block(name: str, backend: str, voxels: int) -> Contender:
        grid = HashGrid(LEVELS, FEATURES, backend).to(device)
        grid.load_state_dict(source.state_dict())
        return Contender(name, lambda: grid.lattice(*axes(voxels)), places[voxels], [grid.parameters_flat])

    chosen = [
        scattered(GATHER, "reference"),
        Contender("embedding_bag, dense gradient", lambda: bags(tables, points, False), points, tables),
        Contender(BAG, lambda: bags(tables, points, True), points, tables),
        block("lattice blocks, torch's own adjoint", "reference", 512),
        block("lattice blocks", "lattice", 512),
        block("lattice blocks, 128^3 voxels", "lattice", 128),
    ]
    kernels = {"cpu": ["native"], "cuda": ["triton", "tinycudann"]}[device.type]
    for name in (name for name in kernels if name in present_backends()):
        chosen += [scattered(name, name), block(f"{name}, 128^3 voxels", name, 128)]
    return chosen


def true_gradient(points: Float[Tensor, "n 3"], pull: Float[Tensor, "n channels"]) -> Float[Tensor, "parameters"]:
    """The reference's in float64."""
    grid = HashGrid(LEVELS, FEATURES).double().to(points.device)
    grid(points.double()).backward(pull.double())
    return grid.parameters_flat.grad


def measure(threads: int, rounds: int, n_points: int, errors: dict[str, float], device: torch.device) -> list[Row]:
    """The table at one number of threads; `errors` keeps what was found, once per contender."""
    torch.set_num_threads(threads)
    everyone = contenders(n_points, device)
    pulls = {id(one.points): torch.rand(len(one.points), len(LEVELS) * FEATURES, device=device) for one in everyone}
    true: dict[int, Tensor] = {}
    times: dict[str, list[tuple[float, float]]] = {one.name: [] for one in everyone}
    for turn in range(rounds + 1):  # the first round fills caches and does not count
        for one in everyone:
            spent = one.run(pulls[id(one.points)])
            if turn:
                times[one.name].append(spent)
            elif one.name not in errors:
                if id(one.points) not in true:
                    true[id(one.points)] = true_gradient(one.points, pulls[id(one.points)])
                expected = true[id(one.points)]
                errors[one.name] = ((one.gradient() - expected).norm() / expected.norm()).item()

    def ratio(name: str, other: str, clock: int) -> float:
        return statistics.median(a[clock] / b[clock] for a, b in zip(times[other], times[name], strict=True))

    return [
        Row(
            threads,
            name,
            statistics.median(wall for wall, _ in spent),
            statistics.median(cpu for _, cpu in spent),
            *(ratio(name, other, clock) for clock in (0, 1) for other in (GATHER, BAG)),
            errors[name],
        )
        for name, spent in times.items()
    ]


def goals(rows: Sequence[Row]) -> list[str]:
    """Each goal with what was found."""
    lines = []
    for row in rows:
        for name, other, goal in GOALS:
            if name == row.name:
                found = row.times_gather if other == GATHER else row.times_bag_sparse
                verdict = "reached" if found >= goal else "MISSED"
                lines.append(f"{row.threads} threads: {row.name} {found:.1f}x {other}, goal {goal:g}x: {verdict}")
    return lines


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", help="of the CPU; without it 1 and 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--points", type=int, default=100_000, help="scattered points")
    parser.add_argument("--out", type=Path, help="a CSV file")
    given = parser.parse_args(arguments)
    errors: dict[str, float] = {}
    device = choose_device(given.device, None)
    counts = given.threads or {"cpu": [1, 2], "cuda": [1]}[device.type]
    rows = [row for threads in counts for row in measure(threads, given.rounds, given.points, errors, device)]
    print(
        f"{'threads':>7}  {'':36} {'wall ms':>8} {'CPU ms':>8} {'x gather':>9} {'x bag':>7} {'CPU: x':>7} {'x bag':>7}"
        f" {'gradient':>9}"
    )
    for row in rows:
        print(
            f"{row.threads:>7}  {row.name:36} {row.wall_ms:8.1f} {row.cpu_ms:8.1f} {row.times_gather:9.1f}"
            f" {row.times_bag_sparse:7.1f} {row.cpu_times_gather:7.1f} {row.cpu_times_bag_sparse:7.1f}"
            f" {row.gradient_error:9.1e}"
        )
    print(*goals(rows), sep="\n")
    if given.out:
        with given.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(Row))
            writer.writerows(astuple(row) for row in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
