"""A simulator as a value: every leaf that the config, the command line and Python know, checked once, here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import UserError, unknown
from pipeline.geometry import View, make_view, view_angles
from pipeline.physics.detector import GRIDS, require_exposure
from pipeline.physics.materials import DECOMPOSITIONS
from pipeline.physics.scatter import KINDS
from pipeline.physics.spectra import Spectrum, load_spectrum, spectrum_of
from pipeline.projectors import PROJECTORS, get_projector

BEAMS = tuple(PROJECTORS)
PHYSICS = ("monoenergetic", "realistic")
SCATTER = ("none", *KINDS)
DEFAULTS = {
    "backend": "joseph",
    "views": ("PA", "LAT"),
    "sdd_mm": 1000.0,
    "sod_mm": 700.0,
    "energy_kev": 60.0,
}
"""What a simulator is made with where neither a config nor an option says it."""
_VIEW_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,32}")


@dataclass(frozen=True)
class Simulator:
    """How X-rays are made of a CT; the leaves of `simulators` in pipeline/config.schema.yaml, which explains each.

    mm, degrees, keV; `detector_px` = (rows, columns), `offset_mm` = (u, v). A wrong value is a `UserError` that names
    the field. `kvp`, where given, picks the spectrum: with `filter_mm_al` that filter, without it the named one.
    """

    beam: str
    backend: str = "joseph"
    views: tuple[str | dict, ...] = ("PA", "LAT")
    detector_px: tuple[int, int] = (128, 128)
    pixel_mm: float = 3.0
    sdd_mm: float = 1000.0
    sod_mm: float = 700.0
    energy_kev: float = 60.0
    offset_mm: tuple[float, float] = (0.0, 0.0)
    roll_deg: float = 0.0
    physics: str = "monoenergetic"
    spectrum: str = "90KV_AL40"
    kvp: float | None = None
    filter_mm_al: float | None = None
    materials: str = "deepdrr-v1"
    photons: float = 100_000.0
    psf_px: float = 0.5
    scatter: str = "none"
    scatter_photons: int = 2_000_000
    grid: str = "none"

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name)))
        if self.backend == "deepdrr":
            self._check_deepdrr()
        else:
            get_projector(self.beam, self.backend)
        self._check_distances()
        self._check_tube()

    def _check_distances(self) -> None:
        if self.beam == "cone" and not 0 < self.sod_mm < self.sdd_mm:
            raise UserError(
                f"sod_mm {self.sod_mm:g} and sdd_mm {self.sdd_mm:g} put the patient behind the tube or the detector; "
                "expected 0 < sod_mm < sdd_mm. Correct the two distances of the simulator."
            )

    def _check_deepdrr(self) -> None:
        """DeepDRR brings its own materials, tube and detector: what it cannot do is refused, not ignored."""
        fixed = {"beam": "cone", "physics": "realistic", "materials": "deepdrr-v1", "scatter": "none", "grid": "none"}
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise UserError(
                    f"{name} is {getattr(self, name)!r} with backend 'deepdrr'; expected {value!r}, all that DeepDRR does. "
                    "Correct it, or choose backend 'joseph'."
                )

    def _check_tube(self) -> None:
        """A spectrum that exists: by its name, or by tube voltage (and filter)."""
        if self.filter_mm_al is not None and self.kvp is None:
            raise UserError(
                f"filter_mm_al {self.filter_mm_al:g} without kvp; expected both. Add kvp, or name a spectrum instead."
            )
        if self.physics == "realistic":
            tube_spectrum(self)
            require_exposure(photons=self.photons, grid=self.grid, psf_px=self.psf_px)
            return
        for item in fields(self)[_FIRST_REALISTIC:]:
            if getattr(self, item.name) != item.default:
                raise UserError(
                    f"{item.name} {getattr(self, item.name)!r} has no meaning for physics {self.physics!r}; expected physics "
                    f"'realistic' with it. Set physics to realistic, or leave {item.name} out."
                )


_FIRST_REALISTIC = [item.name for item in fields(Simulator)].index("spectrum")
"""From here on the fields belong to physics `realistic`."""

_LEAST = {
    **dict.fromkeys(("pixel_mm", "energy_kev", "kvp", "filter_mm_al", "photons", "psf_px"), 0.0),
    **dict.fromkeys(("sdd_mm", "sod_mm", "roll_deg"), -math.inf),
    "scatter_photons": 10_000.0,
}
"""Numeric field -> least value; those of _POSITIVE must lie above it."""

_POSITIVE = ("pixel_mm", "energy_kev", "kvp")
_OPTIONAL = ("kvp", "filter_mm_al")
_CHOICES = {
    "beam": BEAMS,
    "physics": PHYSICS,
    "materials": tuple(DECOMPOSITIONS),
    "scatter": SCATTER,
    "grid": tuple(GRIDS),
}


def stand_views(simulator: Simulator, isocentre_mm: Float[ndarray, "3"]) -> list[View]:
    """Tube and detector of each of the simulator's views about a point in RAS mm."""
    return [
        make_view(
            view,
            isocentre_mm,
            beam=simulator.beam,
            detector_px=simulator.detector_px,
            pixel_mm=simulator.pixel_mm,
            sdd_mm=simulator.sdd_mm,
            sod_mm=simulator.sod_mm,
            offset_mm=simulator.offset_mm,
            roll_deg=simulator.roll_deg,
        )
        for view in simulator.views
    ]


def tube_spectrum(simulator: Simulator) -> Spectrum:
    """The spectrum of a realistic simulator: that of its kvp and filter where given, else the named one."""
    return _tube_spectrum(simulator.spectrum, simulator.kvp, simulator.filter_mm_al)


@cache
def _tube_spectrum(name: str, kvp: float | None, filter_mm_al: float | None) -> Spectrum:
    return load_spectrum(name) if kvp is None else spectrum_of(kvp, filter_mm_al)


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    """UserError naming the nearest valid value unless `value` is one of `known`."""
    if value not in known:
        raise unknown(f"{name} is {value!r}", str(value), known, " Choose one of them.")


def _checked(name: str, value: object) -> object:
    """The value of one field in its own type; UserError if it cannot be one, whatever the other fields are."""
    if name in _LEAST:
        return None if value is None and name in _OPTIONAL else _number(name, value)
    if name == "detector_px":
        return _pair(name, value, whole=True, low=1.0, high=8192.0)
    if name == "offset_mm":
        return _pair(name, value)
    if name == "views":
        return _check_views(value)
    if name in _CHOICES:
        one_of(name, value, _CHOICES[name])
    if not isinstance(value, str):
        raise UserError(f"{name} is {value!r}; expected a name. Write it as text.")
    return value


def _number(name: str, value: object) -> float | int:
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"{name} is {value!r}; expected a finite number. Write it as a number, without quotes.")
    least = _LEAST[name]
    if value < least or (value == least and name in _POSITIVE):
        than = "more than" if name in _POSITIVE else "at least"
        raise UserError(f"{name} is {value:g}; expected {than} {least:g}. Correct it.")
    if name == "scatter_photons" and value != int(value):
        raise UserError(f"{name} is {value:g}; expected a whole number of photons. Round it.")
    return int(value) if name == "scatter_photons" else float(value)


def _pair(name: str, value: object, *, whole: bool = False, low: float = -math.inf, high: float = math.inf) -> tuple:
    kind = Integral if whole else Real
    items = tuple(value) if isinstance(value, Sequence | ndarray) and not isinstance(value, str) else ()
    good = len(items) == 2 and all(isinstance(item, kind) and not isinstance(item, bool) for item in items)
    if not good or not all(math.isfinite(item) and low <= item <= high for item in items):
        expected = (
            f"two whole numbers (rows, columns) from {low:g} to {high:g}" if whole else "two finite numbers (u, v)"
        )
        raise UserError(f"{name} is {value!r}; expected {expected}. Correct the detector of the simulator.")
    return tuple(int(item) if whole else float(item) for item in items)


def _check_views(views: object) -> tuple[str | dict, ...]:
    if isinstance(views, str) or not isinstance(views, Sequence) or not views:
        raise UserError(f"views is {views!r}; expected a list of at least one view, for example [PA, LAT]. Add one.")
    names = []
    for view in views:
        names.append(view_angles(_without_chance(view))[0])
        if not _VIEW_NAME.fullmatch(names[-1]):
            raise UserError(
                f"view name {names[-1]!r}; expected 1 to 32 letters, digits, '_', '.', '+', '-'. Rename it."
            )
    if len(set(names)) < len(names):
        raise UserError(f"views names a view twice ({', '.join(names)}); expected different names. Rename one.")
    return tuple(views)


def _without_chance(view: object) -> object:
    """The view with every random angle in the middle of its interval."""
    if not isinstance(view, dict):
        return view
    return {key: _middle(value) if isinstance(value, dict) else value for key, value in view.items()}


def _middle(span: dict) -> float:
    bounds = span.get("uniform")
    good = (
        set(span) == {"uniform"} and isinstance(bounds, Sequence) and not isinstance(bounds, str) and len(bounds) == 2
    )
    if not good or not all(isinstance(end, Real) and math.isfinite(end) for end in bounds) or bounds[0] > bounds[1]:
        raise UserError(f"an angle is {span!r}; expected {{uniform: [low, high]}} in degrees, low first. Correct it.")
    return float(bounds[0] + bounds[1]) / 2


def make_simulator(values: dict, label: str = "") -> Simulator:
    """A Simulator from the leaves of a config or a command line (lists, whole numbers); errors start with `label`."""
    known = [item.name for item in fields(Simulator)]
    for name in values:
        one_of("simulator key", name, known)
    if "beam" not in values:
        raise UserError(f"{label}simulator without beam; expected one of: {', '.join(BEAMS)}. Add it.")
    try:
        simulator = Simulator(**{name: _checked(name, value) for name, value in values.items()})
        if "spectrum" in values and tube_spectrum(simulator).name != simulator.spectrum:
            raise UserError(
                f"spectrum {simulator.spectrum!r} beside kvp {simulator.kvp:g}; expected one of the two. Remove the other one."
            )
    except UserError as error:
        raise UserError(f"{label}{error}") from None
    return simulator


def check_volume(ct_hu: object, affine: object) -> None:
    """Refuse what is no CT in memory: int16 HU (z, y, x) and an affine index (x, y, z, 1) -> RAS mm."""
    if not isinstance(ct_hu, ndarray):
        raise UserError(f"ct_hu is a {type(ct_hu).__name__}; expected a NumPy array (z, y, x) of int16 HU. Convert it.")
    if ct_hu.ndim != 3:
        raise UserError(
            f"ct_hu has the shape {ct_hu.shape}; expected three axes (z, y, x). Take one volume of it, for example ct_hu[0]."
        )
    if min(ct_hu.shape) < 2:
        raise UserError(
            f"ct_hu has the shape {ct_hu.shape}; expected at least 2 voxels along each axis. Give a volume."
        )
    if ct_hu.dtype != np.int16:
        raise UserError(_dtype_message(ct_hu))
    if not isinstance(affine, ndarray) or affine.shape != (4, 4) or affine.dtype.kind not in "iuf":
        found = f"of shape {affine.shape} and type {affine.dtype}" if isinstance(affine, ndarray) else repr(affine)
        raise UserError(
            f"affine is {found}; expected a 4 x 4 array of numbers, index (x, y, z, 1) -> RAS mm. Give one."
        )
    if not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
        raise UserError(f"affine is {affine.tolist()}; expected finite mm and the last row 0 0 0 1. Correct it.")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if abs(np.linalg.det(affine[:3, :3] / np.where(steps, steps, 1.0))) < 1e-3:
        raise UserError(
            f"affine {affine[:3, :3].tolist()} is singular: its axes lie in one plane; expected three independent "
            "directions. Correct it."
        )


def _dtype_message(ct_hu: ndarray) -> str:
    lost = int((~np.isfinite(ct_hu)).sum()) if ct_hu.dtype.kind in "fc" else 0
    holds = f" and holds {lost} NaN or infinite values" if lost else ""
    remedy = "Replace these values first, then use np.rint" if lost else "Use np.rint"
    return f"ct_hu is {ct_hu.dtype}{holds}; expected int16 HU. {remedy}(np.clip(ct_hu, -1024, 3071)).astype(np.int16)."
