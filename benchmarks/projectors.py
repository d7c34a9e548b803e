"""How fast and how right our projectors are beside the simulators that people can install: `make benchmark`.

Everyone gets the same volume and the same views. Rounds are interleaved (A B C A B C ...), so that a busy machine slows
all alike; a time is the CPU time per image, summed over threads, as the median of the rounds, and a ratio is the median
of the ratios within each round. Errors are mean relative errors where the exact ray is above 5 % of the largest:
T against the exact integral of the trilinear volume, S against the exact path through voxels (benchmarks/scene.py).
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16
from numpy import ndarray

from benchmarks import peers, scene
from benchmarks.peers import Clock, Draw, NotInstalled, Peer, threads_clock
from pipeline.geometry import View
from pipeline.native import has_kernels
from pipeline.project import simulate
from pipeline.projectors import get_projector
from pipeline.simulators import Simulator

_SHORTEST_TURN_S = 0.1
"""A turn repeats a fast projector until it has run for about so long: clocks and caches are coarse."""
_GANTRY = {"sdd_mm": 1020.0, "sod_mm": 530.0, "energy_kev": 60.0}


@dataclass(frozen=True)
class Row:
    """One line of the table and of the CSV; `times_ours` is how many times longer than ours of the same section."""

    section: str
    name: str
    version: str
    cpu_ms_per_image: float | None
    times_ours: float | None
    error_trilinear: float | None
    error_siddon: float | None
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A goal: `value` is reached when it is at least (or at most) `goal`."""

    section: str
    text: str
    goal: float
    value: float | None
    at_most: bool = False

    def reached(self) -> str:
        """yes, no, or why it is not known."""
        if self.value is None:
            return "not measured"
        return "yes" if (self.value <= self.goal if self.at_most else self.value >= self.goal) else "NO"


@dataclass(frozen=True)
class Contestant:
    """Someone who has drawn once: `image` is what came out, `clock` draws again and times it, `turn` times a round."""

    name: str
    version: str
    image: ndarray
    clock: Clock
    turn: int


def ready(name: str, version: str, draw: Draw, clock: Clock) -> Contestant:
    """Draw once, to check the picture and to warm up; what is fast then draws again, for its first time tells little."""
    seconds, image = _timed(draw)
    if seconds < _SHORTEST_TURN_S:
        seconds, image = _timed(draw)
    return Contestant(name, version, image, clock, int(np.clip(np.ceil(_SHORTEST_TURN_S / seconds), 1, 200)))


def _timed(draw: Draw) -> tuple[float, ndarray]:
    start = time.perf_counter()
    image = draw()
    return max(time.perf_counter() - start, 1e-4), image


class Report:
    """Collects rows and bars and prints them as they come."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.bars: list[Bar] = []

    def add(self, row: Row) -> None:
        """Print a row as a line of the table."""
        self.rows.append(row)
        cells = (
            f"{row.name} {row.version}".strip(),
            _number(row.cpu_ms_per_image, ".2f", 10),
            _number(row.times_ours, ".2f", 9),
            _number(row.error_trilinear, ".1e", 9),
            _number(row.error_siddon, ".1e", 9),
        )
        print(f"  {cells[0]:<46}{cells[1]}{cells[2]}{cells[3]}{cells[4]}  {row.note}".rstrip(), flush=True)

    def title(self, text: str) -> None:
        """Start a section."""
        print(f"\n{text}\n  {'':<46}{'CPU ms':>10}{'x ours':>9}{'error T':>9}{'error S':>9}", flush=True)

    def bar(self, bar: Bar) -> None:
        """Print a goal and whether it is reached."""
        self.bars.append(bar)
        value = "-" if bar.value is None else f"{bar.value:.3g}"
        sign = "<=" if bar.at_most else ">="
        print(f"  bar: {bar.text} {sign} {bar.goal:g}: {value}  {bar.reached()}", flush=True)

    def write(self, path: Path, machine: dict[str, str]) -> None:
        """Two CSV files, the rows and (NAME_goals.csv) the goals; each line with the machine and commit that made it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(field.name for field in fields(Row)), *machine])
            writer.writerows([*astuple(row), *machine.values()] for row in self.rows)
        with path.with_stem(f"{path.stem}_goals").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(field.name for field in fields(Bar)), "reached", *machine])
            writer.writerows([*astuple(bar), bar.reached(), *machine.values()] for bar in self.bars)


def _number(value: float | None, form: str, width: int) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def race(contestants: Sequence[Contestant], rounds: int) -> dict[str, Float[ndarray, "round"]]:
    """CPU seconds per image of every contestant, one value per round; everyone runs once in every round, in turn.

    Who draws many times in a turn draws once more before it, untimed: the others have pushed its volume out of the caches.
    """
    times = {contestant.name: np.empty(rounds) for contestant in contestants}
    for number in range(rounds):
        for contestant in contestants:
            if contestant.turn > 1:
                contestant.clock()
            total = sum(contestant.clock() for _ in range(contestant.turn))
            times[contestant.name][number] = total / contestant.turn / len(contestant.image)
    return times


def ours(backend: str, beam: str, mu_per_mm: ndarray, affine: ndarray, views: Sequence[View]) -> Contestant:
    """One of our projectors on a warm volume."""
    draw = partial(get_projector(beam, backend), mu_per_mm, affine, views)
    return ready(f"ours: {backend}", "", draw, threads_clock(draw))


def our_halves(mu_per_mm: ndarray, affine: ndarray, views: Sequence[View]) -> Contestant:
    """Joseph on the same volume kept in half precision: half of what has to travel from memory."""
    draw = partial(get_projector("cone", "joseph"), np.asarray(mu_per_mm, np.float16, order="F"), affine, views)
    return ready("ours: joseph, float16", "", draw, threads_clock(draw))


def invite(
    report: Report, section: str, invited: Sequence[Peer], mu: ndarray, affine: ndarray, views: Sequence[View]
) -> list[Contestant]:
    """The peers that can run here, ready; the others become a row that says why not."""
    present = []
    for peer in invited:
        try:
            contestant = ready(peer.name, peer.version(), *peer.prepare(mu, affine, views))
        except NotInstalled as reason:
            report.add(Row(section, peer.name, peer.version(), None, None, None, None, str(reason)))
        except Exception as reason:  # a peer's own failure must not hide the others
            note = f"failed: {type(reason).__name__}: {str(reason).splitlines()[0] if str(reason) else ''}"
            report.add(Row(section, peer.name, peer.version(), None, None, None, None, note[:120]))
        else:
            present.append(contestant)
    return present


def compare(
    report: Report,
    section: str,
    our: Sequence[Contestant],
    others: Sequence[Contestant],
    rivals: dict[str, str],
    rounds: int,
    exact: tuple[Callable[[ndarray], float], Callable[[ndarray], float]] | None,
) -> dict[str, float]:
    """Race, print one row each, return each peer's ratio to the one of ours that `rivals` names (default the first)."""
    everyone = [*our, *others]
    errors = {}
    if others and exact is None:
        far = np.abs(our[0].image - others[0].image).mean() / our[0].image.mean()
        print(f"  mean difference between ours and {others[0].name}: {far:.1e} of the mean", flush=True)
    for contestant in everyone:
        errors[contestant.name] = [error(contestant.image) for error in exact] if exact else [None, None]
    times = race(everyone, rounds)
    ratios = {}
    for contestant in everyone:
        mine = rivals.get(contestant.name, our[0].name)
        ratio = float(np.median(times[contestant.name] / times[mine]))
        ratios[contestant.name] = ratio
        note = "" if mine == our[0].name or contestant in our else f"x {mine.removeprefix('ours: ')}"
        milliseconds = float(np.median(times[contestant.name])) * 1e3
        shown = None if contestant in our else ratio
        report.add(
            Row(section, contestant.name, contestant.version, milliseconds, shown, *errors[contestant.name], note)
        )
    ratios |= {f"{contestant.name}, error T": errors[contestant.name][0] for contestant in our}
    return ratios | {f"{contestant.name}, error S": errors[contestant.name][1] for contestant in our}


def exact_answers(
    mu: ndarray, affine: ndarray, views: Sequence[View], stride: int
) -> tuple[Callable[[ndarray], float], Callable[[ndarray], float]]:
    """Error functions T and S of a stack of images, on every `stride`-th pixel; the larger of the views' errors."""
    chosen = [scene.some_pixels(view, stride) for view in views]

    def against(truths: Sequence[Float[ndarray, "ray"]]) -> Callable[[ndarray], float]:
        def error(images: ndarray) -> float:
            pairs = zip(images, chosen, truths, strict=True)
            return max(scene.mean_error(np.asarray(image)[pixels], truth) for image, pixels, truth in pairs)

        return error

    trilinear = [scene.exact_trilinear(mu, affine, view, pixels) for view, pixels in zip(views, chosen, strict=True)]
    siddon = [scene.exact_siddon(mu, affine, view, pixels) for view, pixels in zip(views, chosen, strict=True)]
    return against(trilinear), against(siddon)


def warm_pair(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """PA and LAT of a warm 256^3 volume: Joseph against everyone who interpolates, Siddon against the exact paths."""
    section = "warm pair"
    size = len(ct_hu)
    report.title(f"PA + LAT, cone, warm: {size}^3 at 1 mm -> {size}^2 pixels of 1.5 mm")
    mu, affine = scene.attenuation(ct_hu), scene.centred_affine(ct_hu.shape)
    views = scene.cone_views(["PA", "LAT"], size, 1.5)
    exact = exact_answers(mu, affine, views, settings.stride)
    invited = [peers.RTK, peers.PLASTIMATCH, peers.PLASTIMATCH_PROGRAM, peers.NANODRR, peers.DIFFDRR]
    if not settings.quick:
        invited += [peers.NANODRR_COMPILED, peers.DIFFDRR_SIDDON]
    others = invite(report, section, invited, mu, affine, views)
    our = [
        our_halves(mu, affine, views),
        *(ours(backend, "cone", mu, affine, views) for backend in ("joseph", "siddon")),
    ]
    rivals = {peer.name: "ours: siddon" for peer in invited if peer.exact == "S"}
    ratio = compare(report, section, our, others, rivals, settings.rounds, exact)
    for peer, goal in ((peers.RTK, 15), (peers.NANODRR, 100), (peers.DIFFDRR, 400), (peers.PLASTIMATCH, 8)):
        mine = "siddon" if peer.exact == "S" else "joseph, float16,"
        report.bar(Bar(section, f"{mine} against {peer.name}, times", goal, ratio.get(peer.name)))
    program = peers.PLASTIMATCH_PROGRAM.name
    report.bar(Bar(section, f"siddon against {program}, times", 8, ratio.get(program)))
    report.bar(
        Bar(
            section,
            "joseph, float16, mean error to exact trilinear",
            1e-4,
            ratio["ours: joseph, float16, error T"],
            True,
        )
    )
    report.bar(Bar(section, "siddon, mean error to exact", 1e-6, ratio["ours: siddon, error S"], True))


def reference(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """Our `reference` against the benchmark's own exact trilinear integral, at a quarter of the size."""
    section = "reference"
    small = ct_hu[::4, ::4, ::4]
    report.title(f"the reference backend, PA + LAT, cone: {small.shape[0]}^3 at 4 mm")
    mu, affine = scene.attenuation(small), scene.centred_affine(small.shape, 4.0)
    views = scene.cone_views(["PA", "LAT"], small.shape[0], 6.0)
    exact = exact_answers(mu, affine, views, 2)
    start = time.process_time()
    images = get_projector("cone", "reference")(mu, affine, views)
    seconds = (time.process_time() - start) / len(views)
    report.add(Row(section, "ours: reference", "", seconds * 1e3, None, exact[0](images), exact[1](images)))
    report.bar(Bar(section, "reference, mean error to exact trilinear", 1e-6, exact[0](images), True))


def cold_pair(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """From an int16 HU array in memory to two images: HU -> attenuation, layout and set-up included."""
    section = "cold pair"
    size = len(ct_hu)
    report.title(f"PA + LAT, cone, cold: from int16 HU in memory to two images, {size}^3 -> {size}^2")
    affine = scene.centred_affine(ct_hu.shape)
    simulator = Simulator("cone", "joseph", ("PA", "LAT"), (size, size), 1.5, **_GANTRY)

    def our_pair() -> ndarray:
        return simulate(ct_hu, affine, simulator).image

    our = [ready("ours: simulate, joseph", "", our_pair, threads_clock(our_pair))]
    others = []
    try:
        peers.prepare_rtk(scene.attenuation(ct_hu[:2, :2, :2]), affine, scene.cone_views(["PA"], 2, 1.5))
    except NotInstalled as reason:
        report.add(Row(section, peers.RTK.name, "", None, None, None, None, str(reason)))
    else:

        def rtk_pair() -> ndarray:
            views = scene.cone_views(["PA", "LAT"], size, 1.5)
            # Its users' cheapest way: one float array, scaled in place, in the order that ITK reads without a copy.
            mu = ct_hu.astype(np.float32)
            mu *= scene.MU_WATER_PER_MM / 1000
            mu += scene.MU_WATER_PER_MM
            np.maximum(mu, 0, out=mu)
            return peers.rtk_pair(mu, affine, views)()

        others.append(ready(peers.RTK.name, peers.RTK.version(), rtk_pair, threads_clock(rtk_pair)))
    ratio = compare(report, section, our, others, {}, settings.rounds, None)
    report.bar(Bar(section, "cold pair against RTK, times", 5, ratio.get(peers.RTK.name)))


def any_pose(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """Three general poses: tilted gantry, detector turned in its plane and off centre."""
    section = "any pose"
    size = len(ct_hu)
    report.title(f"three tilted and rolled views, cone, warm: {size}^3 -> {size}^2")
    mu, affine = scene.attenuation(ct_hu), scene.centred_affine(ct_hu.shape)
    poses = ((25.0, 20.0, 10.0), (-70.0, -15.0, -30.0), (140.0, 8.0, 4.0))
    views = [_pose(*pose, size) for pose in poses]
    exact = exact_answers(mu, affine, views, settings.stride)
    others = invite(report, section, [peers.RTK, peers.NANODRR], mu, affine, views)
    our = [ours(backend, "cone", mu, affine, views) for backend in ("joseph", "siddon")]
    ratio = compare(report, section, our, others, {}, settings.rounds, exact)
    report.bar(Bar(section, "joseph in any pose against RTK, times", 1, ratio.get(peers.RTK.name)))


def _pose(alpha_deg: float, beta_deg: float, roll_deg: float, size: int) -> View:
    name = {"name": f"{alpha_deg:g}/{beta_deg:g}/{roll_deg:g}", "alpha_deg": alpha_deg, "beta_deg": beta_deg}
    return scene.cone_views([name], size, 1.5, roll_deg=roll_deg, offset_mm=(12.0, -7.0))[0]


def parallel_pair(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """Parallel beams along the axes of a volume of half the size: sums."""
    _parallel(report, "parallel pair", ct_hu[::2, ::2, ::2], (0.0, 90.0), 40, settings.rounds)


def parallel_sweep(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """Parallel beams at 180 angles."""
    rounds = max(1, settings.rounds // 4)
    _parallel(report, "parallel sweep", ct_hu, tuple(np.arange(180.0)), 15, rounds)


def _parallel(
    report: Report, section: str, ct_hu: ndarray, angles_deg: tuple[float, ...], goal: float, rounds: int
) -> None:
    size = len(ct_hu)
    report.title(f"parallel beam, {len(angles_deg)} angles: {size}^3 at 1 mm -> {size}^2")
    mu = np.ascontiguousarray(scene.attenuation(ct_hu))
    affine, views = scene.centred_affine(mu.shape), scene.parallel_views(angles_deg, size)
    exact = exact_answers(mu, affine, views, 4) if len(views) == 2 else None
    others = invite(report, section, [peers.ASTRA], mu, affine, views)
    our = [ours("parallel", "parallel", mu, affine, views)]
    ratio = compare(report, section, our, others, {}, rounds, exact)
    report.bar(Bar(section, f"parallel, {len(views)} angles, against ASTRA, times", goal, ratio.get(peers.ASTRA.name)))


def large_pair(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """The warm pair at twice the size, against RTK and plastimatch."""
    section = "large pair"
    large = ct_hu.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    size = len(large)
    report.title(f"PA + LAT, cone, warm: {size}^3 at 0.5 mm -> {size}^2 pixels of 0.75 mm")
    mu, affine = scene.attenuation(large), scene.centred_affine(large.shape, 0.5)
    views = scene.cone_views(["PA", "LAT"], size, 0.75)
    exact = exact_answers(mu, affine, views, 4 * settings.stride)
    others = invite(report, section, [peers.RTK, peers.PLASTIMATCH], mu, affine, views)
    our = [ours(backend, "cone", mu, affine, views) for backend in ("joseph", "siddon")]
    compare(report, section, our, others, {peers.PLASTIMATCH.name: "ours: siddon"}, max(1, settings.rounds // 3), exact)


def realistic(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """The whole chain (three materials, 151 energy bins, noise, point spread) beside the monoenergetic image."""
    section = "realistic chain"
    size = len(ct_hu)
    report.title(f"the realistic chain, PA + LAT, cone: from int16 HU to images, {size}^3 -> {size}^2")
    affine = scene.centred_affine(ct_hu.shape)
    plain = Simulator("cone", "joseph", ("PA", "LAT"), (size, size), 1.5, **_GANTRY)
    full = Simulator("cone", "joseph", ("PA", "LAT"), (size, size), 1.5, **_GANTRY, physics="realistic")

    def contestant(name: str, simulator: Simulator) -> Contestant:
        def draw() -> ndarray:
            return simulate(ct_hu, affine, simulator).image

        return ready(f"ours: {name}", "", draw, threads_clock(draw))

    our = [contestant("monoenergetic", plain), contestant("realistic", full)]
    times = race(our, settings.rounds)
    for each in our:
        report.add(Row(section, each.name, "", float(np.median(times[each.name])) * 1e3, None, None, None))
    ratio = float(np.median(times[our[1].name] / times[our[0].name]))
    report.bar(Bar(section, "realistic against monoenergetic, times", 3, ratio, True))


def memory(report: Report, ct_hu: Int16[ndarray, "z y x"], settings: argparse.Namespace) -> None:
    """Peak memory that a projection adds, as a share of the float32 volume, each in a process of its own."""
    section = "memory"
    report.title(f"peak extra memory, PA + LAT, {len(ct_hu)}^3 (in units of the float32 volume)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ct.npy"
        np.save(path, ct_hu)
        for case in ("warm", "cold"):
            command = [sys.executable, "-m", "benchmarks.memory", case, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
            share = float(done.stdout) if done.returncode == 0 else None
            note = "" if share is not None else (done.stderr.strip().splitlines() or ["failed"])[-1][:120]
            name = {"warm": "ours: joseph, warm float32", "cold": "ours: simulate, from int16 HU"}[case]
            report.add(Row(section, name, "", None, None, None, None, note or f"{share:.2f} volumes"))
            report.bar(Bar(section, f"{name}: extra copies of the volume", 1, share, True))


SECTIONS: dict[str, Callable[[Report, ndarray, argparse.Namespace], None]] = {
    "warm": warm_pair,
    "cold": cold_pair,
    "pose": any_pose,
    "parallel": parallel_pair,
    "sweep": parallel_sweep,
    "realistic": realistic,
    "memory": memory,
    "reference": reference,
    "large": large_pair,
}
_OPTIONAL = ("large",)


def machine() -> dict[str, str]:
    """What ran: processor, instruction sets, versions, commit."""
    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        values = {key.strip(): value.strip() for key, value in lines.items()}
        model = values.get("model name", model)
        has = values.get("flags", values.get("Features", "")).split()
        flags = " ".join(
            flag for flag in ("avx2", "fma", "f16c", "avx512f", "avx512_fp16", "asimd", "sve") if flag in has
        )
    git = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "isa": flags,
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "kernels": "C" if has_kernels() else "NumPy only",
        "commit": commit or "unknown",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen sections, print the table, write the CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projectors", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default 9)")
    parser.add_argument("--quick", action="store_true", help="two rounds, without the slowest peers and the sweep")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of: {', '.join(SECTIONS)}")
    parser.add_argument(
        "--ct", type=Path, help="a NIfTI CT instead of the phantom: its middle 256^3 voxels as if of 1 mm"
    )
    parser.add_argument("--stride", type=int, default=4, help="check every STRIDE-th pixel against the exact answers")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/projectors.csv"))
    settings = parser.parse_args(arguments)
    if settings.quick:
        settings.rounds, settings.stride = 2, 8
    chosen = settings.only or [name for name in SECTIONS if name not in _OPTIONAL]
    if settings.quick and not settings.only:
        chosen.remove("sweep")

    here = machine()
    print("  ".join(f"{name} {value}" for name, value in here.items()))
    ct_hu = scene.patient(256) if settings.ct is None else scene.load_ct(settings.ct, 256)
    report = Report()
    for name in chosen:
        SECTIONS[name](report, ct_hu, settings)
    report.write(settings.out, here)
    missed = [bar for bar in report.bars if bar.reached() == "NO"]
    print(f"\n{len(report.bars)} bars, {len(missed)} missed; written: {settings.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
