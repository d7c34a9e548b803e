"""Axes of a volume by the sides of the patient that they run to, as LAS."""

from __future__ import annotations

from pipeline.errors import UserError

SIDES = ("LR", "PA", "IS")
"""Of the patient, at the negative and the positive end of x, y and z in RAS mm."""


def require_axes(axes: str) -> None:
    """UserError unless the letters name three different axes of the patient, or there are none."""
    if axes and sorted("".join(pair for pair in SIDES if side in pair) for side in axes) != sorted(SIDES):
        raise UserError(
            f"assume_orientation is {axes!r}; expected one side of the patient for each axis of the file, out of R/L, A/P "
            "and S/I, for example LAS."
        )
