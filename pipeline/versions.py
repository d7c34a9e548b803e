"""Version of each stage's result: raise it when the same input gives another result, and the stage runs again."""

RESULT_VERSION = {
    "index": 1,
    "fetch": 2,
    "segment": 1,
    "ingest": 3,
    "label": 2,
    "cohort": 2,
    "derive": 1,
    "project": 4,
    "shard": 1,
}
