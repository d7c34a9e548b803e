"""Where the tube and the detector stand: one set of vectors in RAS millimetres for config, simulators and shards.

A view is seen from the detector, looking back to the tube, with the patient's head up. So a PA image has the patient's
left on its right (as a radiologist reads it) and a left lateral image has the patient's front on its left.
Nothing is ever flipped afterwards: the 3x4 matrix says where a point of the patient appears.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import UserError

NAMED_VIEWS = {"PA": (0.0, 0.0), "LAT": (90.0, 0.0), "AP": (180.0, 0.0), "RLAT": (-90.0, 0.0)}
"""Name -> (alpha, beta) in degrees. LAT is the left lateral: the beam enters on the patient's right."""

_BEAM, _STEP_U, _STEP_V = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, -1]])


@dataclass(frozen=True)
class View:
    """One X-ray exposure. `source_mm` is homogeneous: w = 1 a focal spot, w = 0 the direction of a parallel beam."""

    name: str
    source_mm: Float[ndarray, "4"]
    origin_mm: Float[ndarray, "3"]
    step_v_mm: Float[ndarray, "3"]
    step_u_mm: Float[ndarray, "3"]
    shape: tuple[int, int]

    def detector_mm(self) -> Float[ndarray, "3 3"]:
        """Centre of pixel (0, 0), step along v, step along u: the rows that the shard stores."""
        return np.stack([self.origin_mm, self.step_v_mm, self.step_u_mm])

    def projection(self) -> Float[ndarray, "3 4"]:
        """World mm (homogeneous) -> (u, v, 1) up to scale; affine (last row 0 0 0 1) for a parallel beam."""
        source, w = self.source_mm[:3], self.source_mm[3]
        if w == 0:
            to_detector = np.linalg.inv(np.stack([self.step_u_mm, self.step_v_mm, source], axis=1))
            rows = np.column_stack([to_detector, -to_detector @ self.origin_mm])
            return np.vstack([rows[:2], [0.0, 0.0, 0.0, 1.0]])
        to_detector = np.linalg.inv(np.stack([self.step_u_mm, self.step_v_mm, self.origin_mm - source], axis=1))
        return np.column_stack([to_detector, -to_detector @ source])

    def rays(self) -> tuple[Float[ndarray, "v u 3"], Float[ndarray, "v u 3"]]:
        """Per pixel a point of its ray (the pixel centre) and the unit direction from the tube to the detector."""
        v, u = np.indices(self.shape, dtype=float)
        pixel = self.origin_mm + v[..., None] * self.step_v_mm + u[..., None] * self.step_u_mm
        along = pixel - self.source_mm[:3] if self.source_mm[3] else np.broadcast_to(self.source_mm[:3], pixel.shape)
        return pixel, along / np.linalg.norm(along, axis=-1, keepdims=True)


def rotation(alpha_deg: float, beta_deg: float) -> Float[ndarray, "3 3"]:
    """Gantry rotation: beta tilts about the patient's lateral axis first, then alpha turns about the long axis."""
    alpha, beta = np.deg2rad([alpha_deg, beta_deg])
    about_x = np.array([[1, 0, 0], [0, np.cos(beta), -np.sin(beta)], [0, np.sin(beta), np.cos(beta)]])
    about_z = np.array([[np.cos(alpha), -np.sin(alpha), 0], [np.sin(alpha), np.cos(alpha), 0], [0, 0, 1]])
    return _exact(about_z @ about_x)


def _exact(matrix: ndarray) -> ndarray:
    """Cosines of right angles are 6e-17 in floating point: make them the zeros they stand for."""
    nearest = np.round(matrix)
    return np.where(np.abs(matrix - nearest) < 1e-12, nearest, matrix)


def make_view(
    view: str | dict,
    isocentre_mm: Float[ndarray, "3"],
    *,
    beam: str,
    detector_px: tuple[int, int],
    pixel_mm: float,
    sdd_mm: float = 0.0,
    sod_mm: float = 0.0,
    offset_mm: tuple[float, float] = (0.0, 0.0),
    roll_deg: float = 0.0,
) -> View:
    """Place one view around the isocentre.

    `view` is a name of NAMED_VIEWS or {"name", "alpha_deg", "beta_deg"}; `detector_px` is (rows, columns); a cone needs
    the source-detector distance `sdd_mm` and the source-object distance `sod_mm`, both along the central ray.
    `roll_deg` turns the detector in its plane about the central ray, from its u axis towards its v axis (clockwise for
    the viewer, so the picture turns counter-clockwise). `offset_mm` (u, v) then moves its centre along its own axes, so
    the picture moves by -offset_mm / pixel_mm pixels and the central ray meets the same pixel at any roll.
    """
    name, alpha_deg, beta_deg = view_angles(view)
    if not 0 < pixel_mm < math.inf or min(detector_px) < 1:
        raise UserError(
            f"detector_px {tuple(detector_px)} of pixel_mm {pixel_mm:g}; expected at least 1 x 1 pixels above 0 mm. "
            "Correct the detector of the simulator."
        )
    if not np.isfinite([*offset_mm, roll_deg]).all():
        raise UserError(
            f"offset_mm {tuple(offset_mm)} and roll_deg {roll_deg:g}; expected finite mm and degrees. "
            "Correct the detector of the simulator."
        )
    turn = rotation(alpha_deg, beta_deg)
    beam_direction = turn @ _BEAM
    step_u, step_v = (turn @ step * pixel_mm for step in _rolled(roll_deg))
    if beam == "parallel":
        source, centre = np.append(beam_direction, 0.0), isocentre_mm + beam_direction * max(sdd_mm - sod_mm, 0.0)
    elif beam == "cone":
        if not 0 < sod_mm < sdd_mm < math.inf:
            raise UserError(
                f"view {name}: sod_mm {sod_mm:g} and sdd_mm {sdd_mm:g} put the patient behind the tube or the detector; "
                "expected 0 < sod_mm < sdd_mm. Correct the two distances of the simulator."
            )
        source = np.append(isocentre_mm - beam_direction * sod_mm, 1.0)
        centre = isocentre_mm + beam_direction * (sdd_mm - sod_mm)
    else:
        raise UserError(f"beam {beam!r} is not known; expected one of: parallel, cone.")
    rows, columns = detector_px
    offset_u, offset_v = offset_mm[0] / pixel_mm, offset_mm[1] / pixel_mm
    origin = centre + (offset_v - (rows - 1) / 2) * step_v + (offset_u - (columns - 1) / 2) * step_u
    return View(name, source, origin, step_v, step_u, (rows, columns))


def _rolled(roll_deg: float) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    """Unit steps along u and v of a detector turned by `roll_deg` from u towards v, before the gantry turns."""
    roll = np.deg2rad(roll_deg)
    sine_cosine = _exact(np.array([np.sin(roll), np.cos(roll)]))
    return sine_cosine[1] * _STEP_U + sine_cosine[0] * _STEP_V, sine_cosine[1] * _STEP_V - sine_cosine[0] * _STEP_U


def view_angles(view: str | dict) -> tuple[str, float, float]:
    """Name and gantry angles in degrees of a view as the config writes it."""
    if isinstance(view, dict):
        angles = view.get("alpha_deg"), view.get("beta_deg", 0.0)
        if not isinstance(view.get("name"), str) or set(view) - {"name", "alpha_deg", "beta_deg"}:
            raise UserError(
                f"view {view!r}; expected {{name, alpha_deg, beta_deg}}. Give it these keys, beta_deg if any."
            )
        for angle in angles:
            if not isinstance(angle, Real) or isinstance(angle, bool) or not math.isfinite(angle):
                raise UserError(
                    f"view {view['name']}: an angle is {angle!r}; expected a finite number of degrees. "
                    "Write it without quotes."
                )
        return view["name"], float(angles[0]), float(angles[1])
    if view not in NAMED_VIEWS:
        raise UserError(
            f"view {view!r} is not known; expected one of: {', '.join(NAMED_VIEWS)}. "
            "Use a name, or give {name, alpha_deg, beta_deg}."
        )
    return view, *NAMED_VIEWS[view]


def centre_mm(shape: tuple[int, ...], affine: Float[ndarray, "4 4"]) -> Float[ndarray, "3"]:
    """World centre of a (z, y, x) grid: the isocentre that views turn about."""
    return affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2) + affine[:3, 3]


def corners_mm(shape: tuple[int, ...], affine: Float[ndarray, "4 4"], beyond: float = 0.0) -> Float[ndarray, "8 3"]:
    """World corners of a (z, y, x) grid, `beyond` voxels outside its outermost voxel centres."""
    ends = ([-beyond, size - 1 + beyond] for size in shape[::-1])
    return np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]


def require_in_beam(view: View, corners_mm: Float[ndarray, "n 3"]) -> None:
    """Refuse a view whose tube stands inside the volume's reach or whose detector sees nothing of the volume."""
    homogeneous = np.column_stack([corners_mm, np.ones(len(corners_mm))]) @ view.projection().T
    if (homogeneous[:, 2] <= 0).any():
        raise UserError(
            f"view {view.name}: the tube stands inside or in front of the volume. Increase sod_mm beyond half the "
            "volume's diagonal."
        )
    if view.source_mm[3] and (homogeneous[:, 2] > 1).any():
        raise UserError(
            f"view {view.name}: the detector stands inside the volume. Increase sdd_mm - sod_mm beyond half the volume's "
            "diagonal."
        )
    uv = homogeneous[:, :2] / homogeneous[:, 2:]
    rows, columns = view.shape
    if (uv.max(axis=0) < 0).any() or (uv.min(axis=0) > [columns - 1, rows - 1]).any():
        raise UserError(
            f"view {view.name}: the volume's shadow misses the detector. Correct detector_px, pixel_mm or offset_mm."
        )
