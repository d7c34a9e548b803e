"""Train the judge: nnU-Net on the true CTs of the training split, small enough to finish or as stock for a GPU."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from xr2ct.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from xr2ct.device import choose_device
from xr2ct.errors import UserError
from xr2ct.files import publish
from xr2ct.judge.dataset import NAME, choose_cases, write_dataset
from xr2ct.judge.environment import nnunet_environment, require_nnunet
from xr2ct.judge.record import DATASET, PLANS, RECORD, WEIGHTS, JudgeRecord, read_record, write_record
from xr2ct.judge.registry import READY_MADE, TRAINED
from xr2ct.judge.sizes import SIZES, Size
from xr2ct.settings import unknown
from xr2ct.shards import open_shards
from xr2ct.stop import stop_requests
from xr2ct.train import file_sha256
from xr2ct.versions import RESULT_VERSION

WORK = "nnunet"
PREPARED = "prepared.json"


def train_judge(
    *,
    kind: str,
    size: str,
    shards: Sequence[Path],
    out: Path,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    iterations: int | None = None,
) -> None:
    """Write weights.pt, plans.json, dataset.json, train.csv and, last, judge.json; nothing is written outside `out`.

    The same arguments and shards give the same weights on the same CPU and number of threads, but for size stock.
    """
    if kind in READY_MADE:
        raise UserError(f"{kind} comes trained: there is nothing to train. Run: xr2ct judge --judge {kind} ...")
    if kind not in TRAINED:
        raise unknown("kind of judge", kind, (*TRAINED, *READY_MADE))
    if size not in SIZES:
        raise unknown("size of judge", size, SIZES)
    for name, value, least in (("iterations", iterations, 1), ("seed", seed, 0), ("threads", threads, 1)):
        if value is not None and value < least:
            raise UserError(f"{name} is {value}, expected {least} or more. Give another --{name}.")
    package = f"nnunetv2 {require_nnunet()}"
    where = choose_device(device, threads)
    choice = choose_cases(open_shards(shards))
    chosen = SIZES[size]
    record = JudgeRecord(
        kind=kind,
        size=size,
        package=package,
        structures=choice.structures,
        cases=tuple(choice.cases),
        left_out=choice.left_out,
        shards=tuple(file_sha256(path) for path in shards),
        seed=seed,
        iterations=iterations or chosen.iterations,
        result_version=RESULT_VERSION["judge"],
        seconds=0.0,
    )
    if is_trained(out, record):
        print(f"{out / RECORD} is already trained with these settings and shards.")
        return
    for case, reason in choice.left_out.items():
        print(f"left out: {case} ({reason})")
    (out / RECORD).unlink(missing_ok=True)

    work = out / WORK
    processes = torch.get_num_threads()
    with nnunet_environment(work, processes=processes, augmenters=0 if chosen.augments_here else processes):
        began = time.monotonic()
        if not is_prepared(work, record):
            shutil.rmtree(work / "raw", ignore_errors=True)
            shutil.rmtree(work / "preprocessed", ignore_errors=True)
            write_dataset(choice, work / "raw")
            prepare(work, chosen, processes, record)
        preparing = time.monotonic() - began
        seconds = descend(out, chosen, record, where)
    with publish(out / DATASET) as private:
        private.write_bytes((work / "raw" / NAME / "dataset.json").read_bytes())
    write_record(out, JudgeRecord(**vars(record) | {"seconds": round(preparing + seconds, 1)}))
    remove_checkpoint(out / "resume.pt")
    shutil.rmtree(work)


def prepare(work: Path, size: Size, processes: int, record: JudgeRecord) -> None:
    """Plan and preprocess; prepared.json, last, says for which training."""
    from xr2ct.judge.nnunet_plan import prepare

    plans = prepare(NAME, size, processes)
    with publish(work / PREPARED) as private:
        private.write_text(json.dumps({"of": identity(record), "plans": plans}), encoding="utf-8")


def is_prepared(work: Path, record: JudgeRecord) -> bool:
    try:
        return json.loads((work / PREPARED).read_text(encoding="utf-8"))["of"] == identity(record)
    except (OSError, ValueError, KeyError):
        return False


def descend(out: Path, size: Size, record: JudgeRecord, device: torch.device) -> float:
    """Train from what `prepare` left, publish plans.json and weights.pt; seconds."""
    from xr2ct.judge.nnunet_plan import CONFIGURATION
    from xr2ct.judge.nnunet_trainer import JudgeTrainer

    plans = json.loads((out / WORK / PREPARED).read_text(encoding="utf-8"))["plans"]
    description = json.loads((out / WORK / "raw" / NAME / "dataset.json").read_text(encoding="utf-8"))
    with publish(out / PLANS) as private:
        private.write_text(json.dumps(plans, indent=1) + "\n", encoding="utf-8")
    with stop_requests() as stop:
        trainer = JudgeTrainer(plans | {"continue_training": False}, CONFIGURATION, "all", description, device)
        trainer.follow(size, record.iterations, seed=record.seed, out=out, identity=identity(record), stop=stop)
        trainer.run_training()
    weights = {name: value.cpu() for name, value in trainer.network.state_dict().items()}
    save_checkpoint(out / WEIGHTS, {"identity": identity(record), "state": weights})
    return trainer.seconds()


def identity(record: JudgeRecord) -> dict:
    """What makes two trainings the same, as JSON would give it back."""
    return json.loads(json.dumps(vars(record) | {"seconds": 0}))


def is_trained(out: Path, record: JudgeRecord) -> bool:
    """True if `out` holds the finished, undamaged judge of exactly this training."""
    try:
        whole = read_record(out).same_training(record) and (out / PLANS).exists() and (out / DATASET).exists()
        return whole and load_checkpoint(out / WEIGHTS)["identity"] == identity(record)
    except (UserError, KeyError):
        return False
