"""The cases of a training run as one sequence, checked to fit together and kept in memory while they fit."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xr2ct.errors import UserError
from xr2ct.settings import unknown
from xr2ct.shards import Case, Shard, Xray, open_shards

CACHE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Task:
    """What a model is built for; JSON-able and stored in its checkpoint. `shape` is the voxel grid (z, y, x)."""

    simulator: str
    views: tuple[str, ...]
    structures: tuple[str, ...]
    shape: tuple[int, ...]
    window_hu: tuple[float, float]


@dataclass(frozen=True)
class Example:
    """A case and its X-rays by the simulator of the task."""

    case: Case
    xray: Xray


class Cases(Sequence[Example]):
    """The cases of `shards` (the first `limit`, 0 = all) seen by one simulator; read at first use, kept in memory up to
    `cache_bytes`."""

    def __init__(self, shards: Sequence[Shard], simulator: str, cache_bytes: int = CACHE_BYTES, limit: int = 0):
        self.simulator = simulator
        place = [(shard, i) for shard in shards for i in range(len(shard))]
        if not 0 <= limit <= len(place):
            raise UserError(f"limit is {limit}; expected 1 to {len(place)}, the cases there are, or 0 for all of them.")
        self._place = place[: limit or None]
        self._cache: dict[int, Example] = {}
        self._free = cache_bytes
        self._there = {shard.path for shard, _ in self._place}

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, i: int) -> Example:
        if i in self._cache:
            return self._cache[i]
        shard, number = self._place[i]
        example = Example(shard.case(number), shard.xray(number, self.simulator))
        size = example.case.ct_hu.nbytes + example.case.label.nbytes + example.xray.image.nbytes
        if size <= self._free:
            self._free -= size
            self._cache[i] = example
        return example

    def newly_gone(self) -> list[str]:
        """Shard files that were removed since the last look. What is open of them can be read to the end."""
        gone = sorted(path for path in self._there if not os.path.exists(path))
        self._there -= set(gone)
        return gone


def open_task(paths: Sequence[Path], simulator: str, window_hu: tuple[float, float]) -> tuple[Task, list[Shard]]:
    """The task that the shards define; shards that disagree on grid, structures or views, or hold a case that another one
    holds too, are a UserError."""
    shards = open_shards(paths)
    if not sum(map(len, shards)):
        raise UserError("no case in the training shards; expected at least one. Give --shards files with cases.")
    first = describe(shards[0], simulator, window_hu)
    for shard in shards[1:]:
        require_same(describe(shard, simulator, window_hu), first, shard.path, shards[0].path)
    refuse_repeats(shards)
    return first, shards


def refuse_repeats(shards: Sequence[Shard]) -> None:
    """UserError for a case that occurs twice, as those of a file given twice do: it would count twice."""
    found: dict[str, str] = {}
    for shard in shards:
        for case_id in shard.case_ids():
            if case_id in found:
                raise UserError(
                    f"{shard.path}: case {case_id!r} occurs in {found[case_id]} already; expected every case once. "
                    "Give every shard once."
                )
            found[case_id] = shard.path


def describe(shard: Shard, simulator: str, window_hu: tuple[float, float]) -> Task:
    """The task one shard poses."""
    if simulator not in shard.simulators:
        raise unknown(f"{shard.path}: simulator", simulator, shard.simulators)
    views = tuple(shard.xray(0, simulator).views)
    return Task(simulator, views, shard.structures, shard.shape[1:], window_hu)


def require_same(task: Task, expected: Task, path: str, origin: str, structures: bool = True) -> None:
    """UserError where grid, views or (unless False) structures of `path` differ from what `origin` fixed."""
    todo = "Use shards made by one configuration."
    if task.shape != expected.shape:
        raise UserError(f"{path}: grid (z, y, x) {task.shape}; expected {expected.shape} as in {origin}. {todo}")
    if task.views != expected.views:
        found, wanted = (f"{len(views)} views ({', '.join(views)})" for views in (task.views, expected.views))
        raise UserError(f"{path}: {found} by simulator {task.simulator}; expected {wanted} as in {origin}. {todo}")
    if structures and task.structures != expected.structures:
        found, wanted = (" ".join(names) for names in (task.structures, expected.structures))
        raise UserError(f"{path}: structures {found}; expected {wanted} as in {origin}. {todo}")
