"""Reconstruct every case of some shards with a trained model: CT and structures as NIfTI, index.json last."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from xr2ct.cases import Cases, Task, describe, require_same
from xr2ct.checkpoint import load_checkpoint
from xr2ct.device import choose_device
from xr2ct.errors import UserError
from xr2ct.files import publish
from xr2ct.models.model import Model, known_structures
from xr2ct.nifti import save_nifti
from xr2ct.shards import open_shards
from xr2ct.train import build_trained
from xr2ct.versions import RESULT_VERSION

INDEX = "index.json"
SCHEMA, SCHEMA_VERSION = "xr2ct/reconstruction", "1.0.0"


def reconstruct(
    *,
    checkpoint: Path,
    shards: Sequence[Path],
    out: Path,
    simulator: str | None = None,
    backend: str | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Write <case>/ct.nii.gz (int16 HU), <case>/label.nii.gz (uint8) and index.json; X-rays by `simulator` or, if None,
    by the one the model was trained on; `backend` of the hash grid as `build_trained` takes it. Everything is checked before
    the first case."""
    where = choose_device(device, threads)
    content = load_checkpoint(checkpoint)
    model, task = build_trained(content, backend, where)
    model.to(where)
    simulator = simulator or task.simulator
    if simulator != task.simulator:
        print(f"Note: X-rays by {simulator}; the model was trained on those by {task.simulator}.")
    opened = open_shards(shards)
    for shard in opened:
        require_same(describe(shard, simulator, task.window_hu), task, shard.path, "training", structures=False)
    cases = Cases(opened, simulator, cache_bytes=0)

    out.mkdir(parents=True, exist_ok=True)
    (out / INDEX).unlink(missing_ok=True)  # no index over a mixture of old and new volumes
    rows: list[dict] = []
    for example in tqdm(cases, desc="reconstruct", unit="case"):
        case = example.case
        if any(row["case"] == case.id for row in rows):
            raise UserError(f"case {case.id} occurs twice; expected every case once. Give each shard once.")
        began = time.perf_counter()
        prediction = model.predict(example.xray, case.affine)
        seconds = time.perf_counter() - began
        files = {"ct": prediction.ct_hu, "label": prediction.label}
        for name, array in files.items():
            if array is not None:
                save_nifti(out / case.id / f"{name}.nii.gz", array, case.affine)
        rows.append(
            {key: getattr(case, key) for key in ("split", "dataset", "subject_key", "derived_from")}
            | {"case": case.id, "seconds": round(seconds, 3)}
            | {name: f"{case.id}/{name}.nii.gz" if array is not None else None for name, array in files.items()}
        )
    index = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "result_version": RESULT_VERSION["reconstruct"],
        "run": out.resolve().name,
        "model": content["identity"]["model"],
        "seed": content["identity"].get("seed"),
        "simulator": simulator,
        "window_hu": list(task.window_hu),
        "structures": known_names(model, task),
        "cases": rows,
    }
    with publish(out / INDEX) as private:
        private.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def known_names(model: Model, task: Task) -> list[str]:
    """The task's structures by label value, "" for one that the model does not predict: it is not to be scored for it."""
    known = known_structures(model, task)
    return [name if name in known else "" for name in task.structures]
