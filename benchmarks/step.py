"""How fast SPIDER trains here, and how far each part is from what the machine can do: `python -m benchmarks.step`.

One step is forward, backward and optimiser on `cases` invented cases of `size`^3 voxels and two X-rays of `size`^2 pixels.
`plain` is the same network with the same parameters, voxels and objective in plain PyTorch (benchmarks/plain_spider.py, torch's
own Adam); rounds are interleaved and ratios taken within each round, so that a busy machine slows both alike. The table gives
each part of our step beside its limit: arithmetic at the speed of a large float32 matrix product, bytes at that of a stream
triad, table rows at that of random rows, all measured in the same rounds. Below 1 where what is read is still in a cache.
`--device cuda` measures plain and ours with every backend of the hash grid that is present on a GPU (triton, tinycudann,
reference), without the table of parts and without a goal (`make bench-gpu`); NOT YET RUN THERE.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from benchmarks.encoding import wait
from benchmarks.limits import Limits, measure_limits, median_limits
from benchmarks.plain_spider import PlainSpider
from xr2ct import sampling
from xr2ct.cases import Example, Task
from xr2ct.device import choose_device
from xr2ct.encoding import present_backends
from xr2ct.encoding.reference import interpolation
from xr2ct.models.registry import choose
from xr2ct.models.spider import Spider
from xr2ct.sampling import Lattice, comb
from xr2ct.shards import Case, Xray
from xr2ct.training_settings import make_optimizer

GOAL = 5.0
ON_GPU = ("triton", "tinycudann", "reference")  # backends of the hash grid
STRUCTURES = ("background", *(f"structure{number}" for number in range(1, 9)))
REST = "decoder and loss"
PARTS = ("UNet", "feature sampling", "encoding", REST, "optimiser")


def invent_examples(size: int, cases: int, beam: str) -> list[Example]:
    """Ellipsoids in noise, PA and LAT, every structure present."""
    random, made = np.random.default_rng(0), []
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 1 - size
    place = (size - 1) / 2
    tilt = 1 / 800 if beam == "cone" else 0.0  # magnification changes along the ray
    pa = [[0.5, tilt * place, 0, place], [0, tilt * place, -0.5, place], [0, tilt, 0, 1]]
    lat = [[tilt * place, 0.5, 0, place], [tilt * place, 0, -0.5, place], [tilt, 0, 0, 1]]
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size),) * 3, indexing="ij")
    for number in range(cases):
        label = np.zeros((size,) * 3, np.uint8)
        for structure, centre in enumerate(random.uniform(-0.6, 0.6, (len(STRUCTURES) - 1, 3)), start=1):
            radius = random.uniform(0.2, 0.4, 3)
            inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radius, strict=True)) < 1
            label[inside] = structure
        ct_hu = (100 * label + random.normal(0, 20, label.shape)).astype(np.int16)
        status = np.full(len(STRUCTURES), 3, np.uint8)
        case = Case(f"case{number}", "", "", "train", "", affine, ct_hu, label, status, 0)
        image = random.random((2, size, size), np.float32)
        nowhere = np.zeros((2, 4)), np.zeros((2, 3, 3))
        made.append(Example(case, Xray(["PA", "LAT"], image, np.array([pa, lat]), *nowhere, {})))
    return made


def make_model(examples: Sequence[Example], settings: dict[str, object]) -> Spider:
    task = Task("parallel", ("PA", "LAT"), STRUCTURES, examples[0].case.ct_hu.shape, (-500.0, 1300.0))
    torch.manual_seed(0)
    entry, chosen = choose("spider", settings | {"grid_shift": 0})  # both are to see the same voxels
    model = entry.build(task, chosen)
    model.prepare(examples)
    return model


class Clock:
    """Seconds per part and direction; what runs belongs to the part that was entered last."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, str], float] = defaultdict(float)
        self._now, self._since, self._direction = REST, time.perf_counter(), "forward"

    def enter(self, part: str, direction: str | None = None) -> None:
        now = time.perf_counter()
        self.spent[self._now, self._direction] += now - self._since
        self._now, self._since, self._direction = part, now, direction or self._direction


class Mark(torch.autograd.Function):
    """Nothing forward; backward, the clock enters a part when the gradient passes."""

    @staticmethod
    def forward(ctx, value: Tensor, clock: Clock, part: str) -> Tensor:
        ctx.clock, ctx.part = clock, part
        return value.view_as(value)

    @staticmethod
    def backward(ctx, pull: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.enter(ctx.part)
        return pull, None, None


def timed(work: Callable[..., Tensor], part: str, clock: Clock) -> Callable[..., Tensor]:
    """`work` whose time, forward and backward, is that of `part`."""

    def run(*arguments: object) -> Tensor:
        marked = [
            Mark.apply(one, clock, REST) if isinstance(one, Tensor) and one.requires_grad else one for one in arguments
        ]
        clock.enter(part)
        value = work(*marked)
        clock.enter(REST)
        return Mark.apply(value, clock, part)

    return run


@contextmanager
def watched(model: Spider, clock: Clock) -> Iterator[None]:
    """The model's parts report to the clock."""
    users = [m for name, m in list(sys.modules.items()) if name.startswith("xr2ct.") and "read_bilinear" in vars(m)]
    with ExitStack() as stack:
        reading = timed(sampling.read_bilinear, "feature sampling", clock)
        for place, name, work in [
            (model.unet, "forward", timed(model.unet.forward, "UNet", clock)),
            (model.position, "lattice", timed(model.position.lattice, "encoding", clock)),
            *((user, "read_bilinear", reading) for user in users),
        ]:
            stack.enter_context(mock.patch.object(place, name, work))
        yield


@dataclass(frozen=True)
class Contender:
    """One way to train `model`: `loss` of a step number, and its optimiser."""

    name: str
    model: nn.Module
    loss: Callable[[int], Tensor]
    optimizer: torch.optim.Optimizer

    def step(self, number: int, clock: Clock | None = None) -> tuple[float, float]:
        """Wall and CPU seconds of one step."""
        clock, device = clock or Clock(), next(self.model.parameters()).device
        self.optimizer.zero_grad(set_to_none=True)
        wait(device)
        wall, cpu = time.perf_counter(), time.process_time()
        clock.enter(REST, "forward")
        loss = self.loss(number)
        clock.enter(REST, "backward")
        loss.backward()
        clock.enter("optimiser", "forward")
        self.optimizer.step()
        wait(device)
        clock.enter(REST)
        return time.perf_counter() - wall, time.process_time() - cpu


def lattice_of(model: Spider, number: int) -> Lattice:
    """The voxels of a step, as `model.loss` draws them."""
    return comb(model.task.shape, model.settings.points, model.settings.run, np.random.default_rng(number))


def ways(kind: str, bfloat16: bool) -> dict[str, dict[str, object]]:
    """Our contenders on a kind of device, by name, and what they set."""
    chosen: dict[str, dict[str, object]] = {"ours": {}}
    if kind == "cuda":
        chosen = {f"ours, {name}": {"backend": name} for name in ON_GPU if name in present_backends()}
    fast = {f"{name}, bfloat16": more | {"precision": "bfloat16"} for name, more in chosen.items()}
    return chosen | (fast if bfloat16 else {})


def contenders(
    examples: Sequence[Example],
    settings: dict[str, object],
    chosen: Mapping[str, dict[str, object]],
    device: torch.device,
) -> list[Contender]:
    """Ours, then plain; all start from the same parameters."""

    def ours(name: str, more: dict[str, object]) -> Contender:
        model = make_model(examples, settings | more).to(device)
        loss = lambda number: model.loss(examples, np.random.default_rng(number))["loss"]  # noqa: E731
        return Contender(name, model, loss, make_optimizer(model, model.settings))

    everyone = [ours(name, more) for name, more in chosen.items()]
    model = everyone[0].model
    plain = PlainSpider(model).to(device)
    optimizer = torch.optim.Adam(plain.parameters(), lr=model.settings.learning_rate)
    loss = lambda number: plain.loss(examples, lattice_of(model, number))  # noqa: E731
    return [*everyone, Contender("plain", plain, loss, optimizer)]


def limit_ms(model: Spider, examples: Sequence[Example], limits: Limits) -> dict[tuple[str, str], float]:
    """Milliseconds that each part would take at the machine's limits."""
    lattice, work = lattice_of(model, 0), {"UNet": 0.0, REST: 0.0}

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        part = "UNet" if isinstance(layer, nn.Conv2d) else REST
        work[part] += 2 * out.numel() * layer.weight[0].numel()

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model.loss(examples, np.random.default_rng(0))
    for hook in hooks:
        hook.remove()
    vertices = 0
    for level in model.position.levels:
        axes = (interpolation(axis, level, model.position.parameters_flat)[0] for axis in lattice.unit())
        vertices += int(np.prod([len(axis) for axis in axes]))
    image = examples[0].xray.image
    points = [len(lattice.z) * n for n in (len(lattice.x), len(lattice.y))]
    numbers = model.unet.channels * len(examples) * (image.size + sum(points))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    found = {
        ("feature sampling", "forward"): 4e-6 * numbers / limits.stream_gbs,
        ("feature sampling", "backward"): 4e-6 * numbers / limits.stream_gbs,
        ("encoding", "forward"): 1e-6 * vertices * limits.gather_ns,
        ("encoding", "backward"): 1e-6 * vertices * limits.scatter_ns
        + 4e-6 * model.position.parameters_flat.numel() / limits.stream_gbs,
        ("optimiser", "forward"): 28e-6 * parameters / limits.stream_gbs,  # reads p g m v, writes p m v
    }
    for part, flop in work.items():
        found[part, "forward"] = 1e-6 * flop / limits.gemm_float32
        found[part, "backward"] = 2e-6 * flop / limits.gemm_float32
    return found


def print_parts(clocks: Sequence[Clock], limits: dict[tuple[str, str], float]) -> None:
    """Median milliseconds per part, the limit, and how many times the limit it takes."""
    print(f"{'part of our step':>18} {'':8} {'ms':>7} {'limit':>7} {'times':>6} {'share':>6}")
    found = {}
    for part in PARTS:
        for direction in ("forward", "backward"):
            found[part, direction] = 1e3 * statistics.median(clock.spent[part, direction] for clock in clocks)
    total = sum(found.values())
    for (part, direction), ms in found.items():
        if (part, direction) in limits:
            limit = limits[part, direction]
            print(f"{part:>18} {direction:8} {ms:7.1f} {limit:7.1f} {ms / limit:6.1f} {ms / total:6.0%}")
    print(f"{'sum':>18} {'':8} {total:7.1f} {sum(limits.values()):7.1f}")


def print_machine(limits: Limits, rows: int) -> None:
    print(
        f"machine, {torch.get_num_threads()} threads: stream {limits.stream_gbs:.1f} GB/s, matrix product float32 "
        f"{limits.gemm_float32:.0f} and bfloat16 {limits.gemm_bfloat16:.0f} GFLOP/s, one of {rows} rows of 32 bytes: "
        f"gather {limits.gather_ns:.1f} ns, add {limits.scatter_ns:.1f} ns"
    )


def print_times(times: Mapping[str, Sequence[tuple[float, float]]], goal: float | None) -> None:
    """Of every contender the median and, within each round, how many times as fast as plain it was."""
    for name, spent in times.items():
        wall, cpu = (
            statistics.median(a[clock] / b[clock] for a, b in zip(times["plain"], spent, strict=True))
            for clock in (0, 1)
        )
        print(
            f"{name:>24} {milliseconds(spent):8.1f} ms per step, {wall:.1f}x plain in wall time, {cpu:.1f}x in CPU time"
        )
        if goal and name != "plain":
            print(f"{'':>24} goal {goal:g}x: {'reached' if wall >= goal else 'MISSED'}")


def milliseconds(spent: Sequence[tuple[float, float]]) -> float:
    """The median wall time of a step."""
    return 1e3 * statistics.median(wall for wall, _ in spent)


def print_reconstructions(everyone: Sequence[Contender], example: Example) -> None:
    """Of ours medians of a first case, of the second, which keeps the code of the voxels, and of a later one, which has it;
    then plain once, which is the same every time."""
    size = " x ".join(map(str, example.case.ct_hu.shape))
    *own, plain = everyone
    first_of: list[float] = []
    for one in own:
        one.model.eval()
        reconstruct(one, example, 0)
        spent = [[reconstruct(one, example, number) for number in range(3)] for _ in range(3)]
        first, second, later = map(statistics.median, zip(*spent, strict=True))
        first_of.append(first)
        own_times = (
            f"{first:8.2f} s the first reconstruction of {size}, {second:.2f} s the second, {later:.2f} s a later one"
        )
        print(f"{one.name:>24} {own_times}")
    plain.model.eval()
    slow = reconstruct(plain, example)
    print(f"{plain.name:>24} {slow:8.2f} s any, {slow / min(first_of):.1f} times the fastest first one")


def reconstruct(one: Contender, example: Example, number: int = 1) -> float:
    """Seconds of the reconstruction of one case, which begins from nothing if it is number 0."""
    if not number:
        one.model.cache.drop()
    began = time.perf_counter()
    one.model.predict(example.xray, example.case.affine)  # ends on the CPU: there is nothing to wait for
    return time.perf_counter() - began


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="voxels and pixels a side")
    parser.add_argument("--cases", type=int, default=4, help="per step")
    parser.add_argument("--beam", choices=("parallel", "cone"), default="parallel")
    parser.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE", help="of the model; repeatable")
    parser.add_argument("--bfloat16", action="store_true", help="also with the setting precision=bfloat16")
    given = parser.parse_args(arguments)
    device = choose_device(given.device, given.threads)
    settings = {key: yaml.safe_load(value) for key, value in (one.split("=") for one in given.setting)}
    examples = invent_examples(given.size, given.cases, given.beam)
    everyone = contenders(examples, settings, ways(given.device, given.bfloat16), device)
    model, in_parts = everyone[0].model, given.device == "cpu"
    times: dict[str, list[tuple[float, float]]] = {one.name: [] for one in everyone}
    clocks: list[Clock] = []
    found: list[Limits] = []
    rows = model.position.table().shape[0]
    for turn in range(given.rounds + 1):  # the first round fills caches and does not count
        for one in everyone:
            spent = one.step(turn)
            if turn:
                times[one.name].append(spent)
        if in_parts:
            clock = Clock()
            with watched(model, clock):
                everyone[0].step(turn, clock)
            if turn:
                clocks.append(clock)
                found.append(measure_limits(rows))

    if in_parts:
        limits = median_limits(found)
        print_machine(limits, rows)
        limit_per_part = limit_ms(model, examples, limits)
        print_parts(clocks, limit_per_part)
    print_times(times, GOAL if in_parts else None)
    if in_parts:
        least = sum(limit_per_part.values())
        print(f"{'float32 at limits':>24} {least:8.1f} ms per step, {milliseconds(times['plain']) / least:.1f}x plain")
    print_reconstructions(everyone, examples[0])


if __name__ == "__main__":
    main(sys.argv[1:])
