"""Train one model on shards: out/model.pt with its sha256, out/train.csv, and pictures of one watched case."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from xr2ct import distributed
from xr2ct.cases import Cases, Example, Task, describe, open_task, require_same
from xr2ct.checkpoint import load_checkpoint, save_checkpoint
from xr2ct.descent import descend, require_feasible
from xr2ct.device import choose_device
from xr2ct.encoding import backend_of_trained, choose_backend
from xr2ct.errors import UserError
from xr2ct.models.model import Model, known_structures
from xr2ct.models.registry import choose
from xr2ct.resume import remove_resume
from xr2ct.settings import LARGEST, settings_dict
from xr2ct.shards import open_shards
from xr2ct.start import trained_state
from xr2ct.training_log import LOG, TrainingLog, watch_scores
from xr2ct.training_settings import TrainingSettings
from xr2ct.versions import RESULT_VERSION
from xr2ct.views import describe_geometry

MODEL = "model.pt"
CPU = torch.device("cpu")
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
    start: Path | None = None,
    limit: int = 0,
    fresh: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Train `model` on the X-rays of `simulator`, HU `window` (low, high) mapped to [0, 1]; see `descend` for stopping.

    From random numbers or from the trained model at `start`; on the first `limit` cases, 0 = all. The same arguments and
    shards give the same model.pt on the same CPU and number of threads, stopped or not.
    """
    where = choose_device(device, threads)
    entry, chosen = choose(model, settings)
    if backend := getattr(chosen, "backend", ""):
        choose_backend(backend, where)
    descends = isinstance(chosen, TrainingSettings)
    low, high = window
    if not -math.inf < low < high < math.inf:
        raise UserError(f"window is {low:g} to {high:g} HU; expected the low end first, for example -1000 1500.")
    if not 0 <= seed < LARGEST:
        raise UserError(f"seed is {seed}; expected 0 or more, below 2^63. Give another --seed.")
    if start and not descends:
        raise UserError(f"model {model} learns in one pass and cannot begin from {start}. Leave --start out.")
    task, opened = open_task(shards, simulator, (float(low), float(high)))
    cases = Cases(opened, simulator, limit=limit)
    watched = open_watch(watch, task, str(shards[0]), getattr(chosen, "watch_cases", WATCH_CASES))
    if descends:
        require_feasible(chosen, watched)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = entry.build(task, chosen)
    begin = trained_state(start, model=model, task=task, settings=chosen) if start else None
    identity = {
        "model": model,
        "settings": settings_dict(chosen),
        "task": settings_dict(task),
        "seed": seed,
        "shards": [file_sha256(path) for path in shards],
        "limit": limit,
        "start": file_sha256(start) if start else "",
        "result_version": RESULT_VERSION["train"],
    }
    out.mkdir(parents=True, exist_ok=True)
    if not fresh and is_trained(out, identity):
        if distributed.rank() == 0:
            print(f"{out / MODEL} is already trained with these settings and shards.")
        return

    net.prepare(tqdm(cases, desc="prepare", unit="case", disable=distributed.rank() > 0))
    if begin is not None:
        with parameters_of_this_version(str(start)):
            net.begin_from(begin)
    net.to(where)
    if descends:
        distributed.start(where)
        try:
            distributed.share_norms(net, where)
            log = descend(
                net,
                chosen,
                task=task,
                cases=cases,
                watch=watched,
                out=out,
                identity=identity,
                seed=seed,
                device=where,
                fresh=fresh,
                tensorboard=tensorboard,
            )
        finally:
            distributed.stop()
    else:
        log = TrainingLog()
        predictions = [net.predict(example.xray, example.case.affine) for example in watched]
        scores = watch_scores(predictions, watched, task, known_structures(net, task))
        log.close_row(step=0, seconds=0.0, **scores)
    if distributed.rank() > 0:
        return
    log.write(out / LOG)
    content = {"identity": identity, "geometry": describe_geometry(cases[0])}
    save_checkpoint(out / MODEL, content | {"state": {name: value.cpu() for name, value in net.state_dict().items()}})
    remove_resume(out)
    steps = f"{log.rows[-1]['step']} steps on " if descends else ""
    print(", ".join(filter(None, [f"{out / MODEL}: {model}, {steps}{len(cases)} cases", log.summary()])))


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


def build_trained(
    content: Mapping[str, Any], backend: str | None = None, device: torch.device = CPU
) -> tuple[Model, Task]:
    """The model of a loaded checkpoint, on the CPU, and its task.

    `device` is where it is to compute, `backend` the hash grid's there; see `backend_of_trained` for None.
    """
    identity = content["identity"]
    given = dict(identity["settings"])
    if "backend" in given:
        given["backend"] = backend_of_trained(backend, given["backend"], given["level_features"], device)
    elif backend is not None:
        raise UserError(f"--backend {backend}: model {identity['model']} has no hash grid. Leave it out.")
    entry, settings = choose(identity["model"], given)
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in identity["task"].items()}
    task = Task(**fields)
    model = entry.build(task, settings)
    with parameters_of_this_version():
        model.load_state_dict(content["state"])
    model.eval()
    return model, task


@contextmanager
def parameters_of_this_version(path: str = "the checkpoint") -> Iterator[None]:
    """UserError where torch finds other parameters than the model has."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"{path} was trained by another version of xr2ct: its parameters are not those of this version's model. "
            "Train it again."
        ) from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
