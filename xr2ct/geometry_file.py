"""Read a geometry file (YAML): named distances and angles, or the 3x4 matrices of a shard; see resources/two_images.md."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float
from numpy import ndarray

from xr2ct.errors import UserError
from xr2ct.settings import is_number, unknown
from xr2ct.views import NAMED_VIEWS, Geometry, Size, grid_centre, is_parallel, named_projection, rays_of, resized

PLACED = ("beam", "sdd_mm", "sod_mm", "pixel_mm", "detector_px", "offset_mm", "roll_deg")
ANGLES = ("name", "alpha_deg", "beta_deg")
NAMED_KEYS = ("views", *PLACED, "grid")
MATRIX_KEYS = ("projection", "image_px", "grid")
GRID_KEYS = ("centre_mm", "affine")
SAME_SPACING = 0.01  # voxels whose edges differ by more are others than the trained ones
SAME_SHAPE = 0.02  # pictures whose height over width differs by more do not show the same detector


def read_geometry(path: Path, sizes: Mapping[str, Size], trained: Geometry) -> Geometry:
    """The geometry of images of `sizes` by view; what the file does not say of the grid is as in `trained`."""
    values = _load(path)
    try:
        if "projection" in values:
            _require_keys(values, MATRIX_KEYS)
            found = _matrices(values, sizes)
        else:
            _require_keys(values, NAMED_KEYS)
            found = _named(values, sizes)
        missing = [name for name in trained.views if name not in found]
        if missing:
            raise UserError(f"views are {', '.join(found)}; expected also {', '.join(missing)}. Add them.")
        projection = np.stack([found[name] for name in trained.views])
        affine = _grid(values.get("grid", {}), "projection" in values, projection, trained, sizes)
        used = tuple(sizes[name] for name in trained.views)
        geometry = Geometry(
            trained.views, _in_front(projection, affine, trained), used, affine, trained.shape, trained.attrs
        )
        require_seen(geometry)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return geometry


def shown_at(trained: Geometry, sizes: Mapping[str, Size]) -> Geometry:
    """The trained geometry for images that show the whole trained detector with other numbers of pixels."""
    projection, used = [], []
    for name, matrix, size in zip(trained.views, trained.projection, trained.sizes, strict=True):
        require_same_shape(name, sizes[name], size, "the model was trained with", "Crop it, or describe it: --geometry")
        projection.append(resized(matrix, size, sizes[name]))
        used.append(sizes[name])
    return Geometry(trained.views, np.stack(projection), tuple(used), trained.affine, trained.shape, trained.attrs)


def require_same_shape(name: str, found: Size, expected: Size, origin: str, todo: str) -> None:
    """UserError unless both could be the same picture in different resolutions."""
    if abs(math.log(found[0] * expected[1] / (found[1] * expected[0]))) > SAME_SHAPE:
        raise UserError(
            f"the image of view {name} has {found[0]} x {found[1]} pixels (rows x columns); expected the proportions of "
            f"the {expected[0]} x {expected[1]} {origin}. {todo}."
        )


def require_seen(geometry: Geometry) -> None:
    """UserError for a view whose tube stands in the grid or whose image shows nothing of it."""
    ends = ([-0.5, size - 0.5] for size in geometry.shape[::-1])
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    world = geometry.affine @ np.vstack([corners, np.ones(8)])
    for name, matrix, (rows, columns) in zip(geometry.views, geometry.projection, geometry.sizes, strict=True):
        u, v, w = matrix @ world
        if w.min() <= 0:
            raise UserError(f"view {name}: the tube stands inside the reconstructed volume. Correct sod_mm or grid.")
        u, v = u / w, v / w
        if u.max() < 0 or v.max() < 0 or u.min() > columns - 1 or v.min() > rows - 1:
            raise UserError(
                f"view {name}: the volume appears at columns {u.min():.0f} to {u.max():.0f}, rows {v.min():.0f} to "
                f"{v.max():.0f}; expected some of it in the image of {columns} columns and {rows} rows. Correct pixel_mm, "
                "offset_mm, the matrix or grid."
            )


def _load(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give a geometry file.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, a date of month 13, ...
        raise UserError(
            f"{path}: is not YAML ({type(error).__name__}). Expected lines such as 'sdd_mm: 1000'."
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: holds {type(values).__name__}; expected keys such as beam, views, pixel_mm. Add them."
        )
    return values


def _require_keys(values: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in values:
        if key not in known:
            raise unknown("key", str(key), known)


def _named(values: Mapping[str, Any], sizes: Mapping[str, Size]) -> dict[str, ndarray]:
    views = values.get("views")
    if not isinstance(views, list) or not views:
        raise UserError(f"views is {views!r}; expected a list such as [PA, LAT]. Add it.")
    found: dict[str, ndarray] = {}
    for view in views:
        own = {"name": view} if isinstance(view, str) else view
        if not isinstance(own, dict) or not isinstance(own.get("name"), str):
            raise UserError(f"view {view!r}; expected a name or a mapping with a name. Write e.g. {{name: PA}}.")
        _require_keys(own, (*ANGLES, *PLACED))
        name = own["name"]
        if name not in NAMED_VIEWS and "alpha_deg" not in own:
            raise UserError(f"view {name!r} has no alpha_deg; only {', '.join(NAMED_VIEWS)} go without. Add it.")
        if name in found:
            raise UserError(f"view {name} is given twice; expected every view once. Remove one.")
        if name in sizes:
            found[name] = _place({**{key: values[key] for key in PLACED if key in values}, **own}, sizes[name])
    return found


def _place(values: Mapping[str, Any], size: Size) -> Float[ndarray, "3 4"]:
    name, beam = values["name"], values.get("beam")
    if beam not in ("parallel", "cone"):
        raise UserError(f"beam is {beam!r}; expected parallel or cone. Correct it.")
    alpha_deg, beta_deg = NAMED_VIEWS.get(name, (0.0, 0.0))
    if "pixel_mm" not in values:
        raise UserError(f"view {name}: pixel_mm is missing; expected the detector's pixel pitch in mm. Add it.")
    detector = _pair("detector_px", values.get("detector_px", size), whole=True)
    require_same_shape(name, size, detector, "of detector_px", "Correct detector_px")
    sod_mm, sdd_mm = (_number(key, values.get(key, 0.0)) for key in ("sod_mm", "sdd_mm"))
    if beam == "cone" and not 0 < sod_mm < sdd_mm:
        raise UserError(
            f"view {name}: sod_mm {sod_mm:g}, sdd_mm {sdd_mm:g}; expected 0 < sod_mm < sdd_mm. Correct them."
        )
    matrix = named_projection(
        beam=beam,
        alpha_deg=_number("alpha_deg", values.get("alpha_deg", alpha_deg)),
        beta_deg=_number("beta_deg", values.get("beta_deg", beta_deg)),
        pixel_mm=_number("pixel_mm", values["pixel_mm"], positive=True),
        size=detector,
        sdd_mm=sdd_mm,
        sod_mm=sod_mm,
        offset_mm=_pair("offset_mm", values.get("offset_mm", (0.0, 0.0))),
        roll_deg=_number("roll_deg", values.get("roll_deg", 0.0)),
    )
    return resized(matrix, detector, size)


def _matrices(values: Mapping[str, Any], sizes: Mapping[str, Size]) -> dict[str, ndarray]:
    given = values["projection"]
    if not isinstance(given, dict) or not given:
        raise UserError(f"projection is {given!r}; expected a 3x4 matrix for every view name. Write them as lists.")
    found = {}
    for name in (name for name in given if name in sizes):
        matrix = _array(f"projection of {name}", given[name], (3, 4))
        across = matrix[:2, :3] if is_parallel(matrix) else matrix[:, :3]
        if np.linalg.matrix_rank(across) < len(across) or not matrix[2].any():
            raise UserError(f"projection of {name} maps no volume onto a plane; expected a 3x4 camera. Correct it.")
        counted = _pair("image_px", values.get("image_px", sizes[name]), whole=True)
        require_same_shape(name, sizes[name], counted, "of image_px", "Correct image_px")
        found[str(name)] = resized(matrix, counted, sizes[name])
    return found


def _grid(
    grid: Any, matrices: bool, projection: Float[ndarray, "view 3 4"], trained: Geometry, sizes: Mapping[str, Size]
) -> Float[ndarray, "4 4"]:
    if not isinstance(grid, dict) or len(grid) > 1:
        raise UserError(f"grid is {grid!r}; expected one of: {', '.join(GRID_KEYS)}. Correct it.")
    _require_keys(grid, GRID_KEYS)
    if "affine" in grid:
        affine = _array("grid affine", grid["affine"], (4, 4))
        if not np.array_equal(affine[3], [0, 0, 0, 1]) or abs(np.linalg.det(affine)) < 1e-9:
            raise UserError("grid affine: expected an invertible matrix with last row 0 0 0 1. Correct it.")
        _require_trained_voxels(affine, trained.affine)
        return affine
    centre = np.zeros(3)
    if "centre_mm" in grid:
        centre = _array("grid centre_mm", grid["centre_mm"], (3,))
    elif matrices:
        centre = crossing(projection, [sizes[name] for name in trained.views])
    affine = trained.affine.copy()
    affine[:3, 3] += centre  # the trained grid lies around 0
    return affine


def _require_trained_voxels(affine: Float[ndarray, "4 4"], trained: Float[ndarray, "4 4"]) -> None:
    """UserError for voxels of another size, or a mirrored grid: a network knows those of its training only."""
    found, known = (np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (affine, trained))
    if np.abs(found / known - 1).max() > SAME_SPACING:
        size, wanted = (" x ".join(f"{length:g}" for length in lengths) for lengths in (found, known))
        raise UserError(
            f"grid affine: voxels of {size} mm; expected {wanted} mm, which the model was trained with. Correct its columns."
        )
    if np.linalg.det(affine) * np.linalg.det(trained) < 0:
        raise UserError(
            "grid affine: the grid is mirrored; expected the handedness the model was trained with. Flip one of its columns."
        )


def crossing(projection: Float[ndarray, "view 3 4"], sizes: Sequence[Size]) -> Float[ndarray, "3"]:
    """The point nearest to the rays through the middle of every image; rays of one direction are a UserError."""
    normal, target = np.zeros((3, 3)), np.zeros(3)
    for matrix, (rows, columns) in zip(projection, sizes, strict=True):
        source, (first, step_v, step_u) = rays_of(matrix)
        middle = first + step_v * (rows - 1) / 2 + step_u * (columns - 1) / 2
        ray = middle - source[:3] if source[3] else source[:3]
        ray = ray / np.linalg.norm(ray)
        across = np.eye(3) - np.outer(ray, ray)
        normal += across
        target += across @ middle
    if np.linalg.cond(normal) > 1e6:
        raise UserError(
            "all matrices look the same way: where the volume lies is open. Add grid: {centre_mm: [x, y, z]}."
        )
    return np.linalg.solve(normal, target)


def _in_front(
    projection: Float[ndarray, "view 3 4"], affine: Float[ndarray, "4 4"], trained: Geometry
) -> Float[ndarray, "view 3 4"]:
    """A camera matrix is known up to a factor: of its two signs the one with the volume before the tube, and w = 1
    everywhere in a parallel beam."""
    centre = np.append(grid_centre(trained.shape, affine), 1.0)
    signs = np.where(projection[:, 2] @ centre < 0, -1.0, 1.0)
    scale = [matrix[2, 3] if is_parallel(matrix) else sign for matrix, sign in zip(projection, signs, strict=True)]
    return projection / np.array(scale)[:, None, None]


def _number(name: str, value: Any, positive: bool = False) -> float:
    if not is_number(value) or (positive and value <= 0):
        raise UserError(f"{name} is {value!r}; expected a {'positive' if positive else 'finite'} number. Correct it.")
    return float(value)


def _pair(name: str, value: Any, whole: bool = False) -> tuple:
    good = isinstance(value, list | tuple) and len(value) == 2
    if good and whole:
        good = all(type(item) is int and 0 < item < 2**16 for item in value)
    if not good:
        raise UserError(f"{name} is {value!r}; expected two {'whole ' if whole else ''}numbers. Correct it.")
    return (value[0], value[1]) if whole else (_number(name, value[0]), _number(name, value[1]))


def _array(name: str, value: Any, shape: tuple[int, ...]) -> Float[ndarray, "..."]:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.shape != shape or not np.isfinite(array).all():
        size = " x ".join(map(str, shape))
        raise UserError(f"{name} is {value!r}; expected {size} finite numbers. Write it as lists.")
    return array
