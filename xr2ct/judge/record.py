"""judge.json: what a trained judge knows and on which cases it learned it; written last, so that it vouches for the rest."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from xr2ct.errors import UserError
from xr2ct.files import publish

SCHEMA, SCHEMA_VERSION = "xr2ct/judge", "1.0.0"
RECORD, WEIGHTS, PLANS, DATASET = "judge.json", "weights.pt", "plans.json", "dataset.json"


@dataclass(frozen=True)
class JudgeRecord:
    """`structures` are the label values of the network, background first; `left_out` says why, by case id."""

    kind: str
    size: str
    package: str
    structures: tuple[str, ...]
    cases: tuple[str, ...]
    left_out: dict[str, str]
    shards: tuple[str, ...]
    seed: int
    iterations: int
    result_version: int
    seconds: float

    def same_training(self, other: "JudgeRecord") -> bool:
        """True if both stand for the same training, however long it took."""
        return asdict(self) | {"seconds": 0} == asdict(other) | {"seconds": 0}


def write_record(folder: Path, record: JudgeRecord) -> None:
    content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION} | asdict(record)
    with publish(folder / RECORD) as private:
        private.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> JudgeRecord:
    """The record of a trained judge; a missing, foreign or broken one is a UserError."""
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, version = content.pop("schema"), content.pop("schema_version")
        if schema != SCHEMA or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise UserError(f"{path}: holds {schema} {version}, expected {SCHEMA} {SCHEMA_VERSION}. Train it again.")
        tuples = {name: tuple(content.pop(name)) for name in ("structures", "cases", "shards")}
        return JudgeRecord(**tuples, **content)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Expected the folder of a finished `xr2ct judge-train`, "
            "totalsegmentator or totalsegmentator-fast."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is not a whole {SCHEMA} ({error!r}). Train the judge again.") from error
