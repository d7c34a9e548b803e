"""Views in the index coordinates (x, y, z) of a grid: what every projector of this package starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int8
from numpy import ndarray

from pipeline.errors import UserError
from pipeline.geometry import View


@dataclass(frozen=True)
class GridView:
    """A view as one grid sees it, in voxels: pixel (v, u) lies at `origin + v step_v + u step_u`."""

    view: View
    source: Float[ndarray, "3"]
    parallel: bool
    origin: Float[ndarray, "3"]
    step_v: Float[ndarray, "3"]
    step_u: Float[ndarray, "3"]

    def pixels(self) -> Float[ndarray, "u v 3"]:
        """Centres of all pixels, columns first: neighbours along v lie side by side."""
        rows, columns = self.view.shape
        u, v = np.arange(columns)[:, None, None], np.arange(rows)[None, :, None]
        return self.origin + v * self.step_v + u * self.step_u

    def directions(self, pixels: Float[ndarray, "*n 3"]) -> Float[ndarray, "*n 3"]:
        """From tube to detector, any length; for a cone exactly from the focal spot to the pixel."""
        return np.broadcast_to(self.source, pixels.shape) if self.parallel else pixels - self.source

    @cached_property
    def first_row(self) -> tuple[Float[ndarray, "u 3"], Float[ndarray, "u 3"]]:
        """Pixels (0, u), and their directions; in memory the x of all pixels lie side by side."""
        u = np.arange(self.view.shape[1])
        pixels = (self.origin[:, None] + self.step_u[:, None] * u).T
        return pixels, self.directions(pixels)

    def path_mm_squared(self) -> tuple[Float[ndarray, "u"], Float[ndarray, "u"], float]:
        """Squared length in mm^2 of the vectors that `directions` gives, as a polynomial in v: its three coefficients."""
        view = self.view
        u = np.arange(view.shape[1])
        if self.parallel:
            return np.full(len(u), float(view.source_mm[:3] @ view.source_mm[:3])), np.zeros(len(u)), 0.0
        x, y, z = (view.origin_mm - view.source_mm[:3])[:, None] + view.step_u_mm[:, None] * u
        down_x, down_y, down_z = view.step_v_mm.tolist()
        linear = 2 * (x * down_x + y * down_y + z * down_z)
        return x * x + y * y + z * z, linear, down_x**2 + down_y**2 + down_z**2

    def path_mm(self) -> Float[ndarray, "u v"]:
        """Length in mm of the vectors that `directions` gives."""
        constant, linear, square = self.path_mm_squared()
        v = np.arange(self.view.shape[0])
        return np.sqrt(constant[:, None] + (linear[:, None] + square * v) * v)


def grid_views(views: Sequence[View], affine: Float[ndarray, "4 4"]) -> list[GridView]:
    """Express views in the voxels of a grid; UserError unless all have detectors of one shape."""
    if not views:
        raise UserError("no views were given; expected at least one. Add one, for example 'PA'.")
    for view in views:
        if view.shape != views[0].shape:
            raise UserError(
                f"view {view.name} has a detector of {' x '.join(map(str, view.shape))} pixels; expected "
                f"{' x '.join(map(str, views[0].shape))}, as view {views[0].name} has. Project them one by one."
            )
    to_index = np.linalg.inv(affine)
    turn, shift = to_index[:3, :3], to_index[:3, 3]
    seen = []
    for view in views:
        parallel = bool(view.source_mm[3] == 0)
        source = turn @ view.source_mm[:3]
        seen.append(
            GridView(
                view,
                _without_dust(source) if parallel else source + shift,
                parallel,
                turn @ view.origin_mm + shift,
                _without_dust(turn @ view.step_v_mm),
                _without_dust(turn @ view.step_u_mm),
            )
        )
    return seen


def _without_dust(vector: Float[ndarray, "3"]) -> Float[ndarray, "3"]:
    """Components that are zero but for rounding become zero: whether a step runs along an axis is asked often."""
    parts = vector.tolist()  # three numbers: NumPy would take ten times as long
    dust = 1e-12 * max(map(abs, parts))
    return np.array([0.0 if abs(part) < dust else part for part in parts])


@dataclass(frozen=True)
class Rays:
    """Every ray against its driving axis d: at plane k of d it stands at (o0 + o1 k, c0 + c1 k) on axes d+1 and d+2."""

    driving: Int8[ndarray, "u v"]
    o0: Float[ndarray, "u v"]
    o1: Float[ndarray, "u v"]
    c0: Float[ndarray, "u v"]
    c1: Float[ndarray, "u v"]
    step_mm: Float[ndarray, "u v"]


def driven_rays(seen: GridView) -> Rays:
    """All rays of a view, each by the axis along which it runs through most planes."""
    pixels = seen.pixels()
    direction = seen.directions(pixels)
    driving = np.abs(direction).argmax(axis=-1)

    def pick(array: ndarray, axis: ndarray) -> ndarray:
        return np.take_along_axis(array, axis[..., None], axis=-1)[..., 0]

    start, pace = pick(pixels, driving), pick(direction, driving)
    lines = []
    for offset in (1, 2):
        axis = (driving + offset) % 3
        slope = pick(direction, axis) / pace
        lines += [pick(pixels, axis) - slope * start, slope]
    return Rays(driving.astype(np.int8), *lines, step_mm=seen.path_mm() / np.abs(pace))
