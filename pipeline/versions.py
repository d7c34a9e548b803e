"""Version of each stage's result: raise it when the same input gives another result, and the stage runs again."""

RESULT_VERSION = {
    "index": 1,
    "fetch": 1,
    "segment": 1,
    "ingest": 1,
    "label": 1,
    "cohort": 1,
    "derive": 1,
    "project": 1,
    "shard": 1,
}
