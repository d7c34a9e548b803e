"""Result versions: raise a number when the command's result changes for the same input, so that workflows rerun it."""

RESULT_VERSION = {"train": 1, "reconstruct": 1, "evaluate": 2, "report": 3}
