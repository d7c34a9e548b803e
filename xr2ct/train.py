"""Train one model on shards: out/model.pt with its sha256, and out/train.csv."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from xr2ct.cases import Cases, Example, Task, describe, open_task, require_same
from xr2ct.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from xr2ct.descent import LOG, RESUME, descend
from xr2ct.device import choose_device
from xr2ct.errors import UserError
from xr2ct.models.model import Model
from xr2ct.models.registry import choose
from xr2ct.settings import settings_dict
from xr2ct.shards import open_shards
from xr2ct.training_log import TrainingLog, watch_scores
from xr2ct.training_settings import TrainingSettings
from xr2ct.versions import RESULT_VERSION

MODEL = "model.pt"
WATCH_CASES = 4  # per watch shard for models that have no such setting


def train(
    *,
    model: str,
    simulator: str,
    shards: Sequence[Path],
    watch: Sequence[Path] = (),
    out: Path,
    settings: Mapping[str, Any],
    window: tuple[float, float],
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Train `model` on the X-rays of `simulator`, HU `window` (low, high) mapped to [0, 1]; see `descend` for stopping.

    The same arguments and shards give the same model.pt on the same CPU and number of threads, stopped or not.
    """
    where = choose_device(device, threads)
    entry, chosen = choose(model, settings)
    low, high = window
    if not low < high:
        raise UserError(f"window is {low:g} to {high:g} HU; expected the low end first, for example -1000 1500.")
    task, opened = open_task(shards, simulator, (float(low), float(high)))
    watched = open_watch(watch, task, str(shards[0]), getattr(chosen, "watch_cases", WATCH_CASES))
    identity = {
        "model": model,
        "settings": settings_dict(chosen),
        "task": settings_dict(task),
        "seed": seed,
        "shards": [file_sha256(path) for path in shards],
        "result_version": RESULT_VERSION["train"],
    }
    out.mkdir(parents=True, exist_ok=True)
    if is_trained(out, identity):
        print(f"{out / MODEL} is already trained with these settings and shards.")
        return

    cases = Cases(opened, simulator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = entry.build(task, chosen)
    net.prepare(tqdm(cases, desc="prepare", unit="case"))
    net.to(where)
    if isinstance(chosen, TrainingSettings):
        log = descend(net, chosen, task=task, cases=cases, watch=watched, out=out, identity=identity, seed=seed)
    else:
        log = TrainingLog()
        log.close_row(step=0, seconds=0.0, **watch_scores(net, watched, task))
    log.write(out / LOG)
    save_checkpoint(out / MODEL, {"identity": identity, "state": {k: v.cpu() for k, v in net.state_dict().items()}})
    remove_checkpoint(out / RESUME)


def open_watch(paths: Sequence[Path], task: Task, origin: str, per_shard: int) -> list[Example]:
    """The first cases of every shard to look at during training."""
    examples: list[Example] = []
    for shard in open_shards(paths):
        require_same(describe(shard, task.simulator, task.window_hu), task, shard.path, origin)
        cases = Cases([shard], task.simulator)
        examples += [cases[i] for i in range(min(per_shard, len(cases)))]
    return examples


def is_trained(out: Path, identity: dict[str, Any]) -> bool:
    """True if `out` holds the finished, undamaged result of exactly this run."""
    try:
        return (out / LOG).exists() and load_checkpoint(out / MODEL)["identity"] == identity
    except (UserError, KeyError):
        return False


def build_trained(content: Mapping[str, Any]) -> tuple[Model, Task]:
    """The model of a loaded checkpoint, on the CPU, and its task."""
    identity = content["identity"]
    entry, settings = choose(identity["model"], identity["settings"])
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in identity["task"].items()}
    task = Task(**fields)
    model = entry.build(task, settings)
    model.load_state_dict(content["state"])
    return model, task


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
