"""Monte Carlo transport of X-ray photons through a coarse patient: where the scattered ones reach the detector.

Analogue physics of 1 to 150 keV: photoelectric absorption, Rayleigh scattering by atomic form factors, Compton scattering
by Klein-Nishina and the incoherent scattering function. Fluorescence (calcium: 4 keV) and photons that a Compton
scattering leaves below CUTOFF_KEV are absorbed on the spot; Doppler broadening is neglected. Between collisions a photon
flies by Woodcock's delta tracking (Woodcock et al. 1965), so no voxel face is ever computed. Around the volume is vacuum.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray
from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.geometry import View
from pipeline.physics.attenuation import PROCESSES, mass_attenuation
from pipeline.physics.collisions import compton_cosine, compton_energy, rayleigh_cosine, turn
from pipeline.physics.materials import MATERIALS
from pipeline.physics.spectra import Spectrum

CUTOFF_KEV = 10.0
"""Mean free path 2 mm in soft tissue: such a photon does not leave its coarse voxel, let alone the patient."""
BATCH = 1 << 16
_STEP_KEV, _MAX_KEV = 0.1, 150.0


@dataclass(frozen=True)
class Tally:
    """Energies in keV per coarse detector pixel (centres at integers, edges at the detector's own) and in total.

    `open_field` is what the primary beam would deposit without the patient: the unit of every image. Totals obey
    emitted = deposited + escaped + scatter.sum() + primary.sum().
    """

    scatter: Float[ndarray, "v u"]
    primary: Float[ndarray, "v u"]
    open_field: Float[ndarray, "v u"]
    emitted: float
    deposited: float
    escaped: float

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Medium:
    """A coarse volume ready for tracking: voxel index (x, y, z) with centres at integers, lengths in mm."""

    density: Float32[ndarray, "voxel material"]
    size: Int[ndarray, "3"]
    to_voxel: Float[ndarray, "4 4"]
    mu_per_mm: Float[ndarray, "energy material process"]
    majorant_per_mm: Float[ndarray, "energy"]


@dataclass
class Photons:
    """A batch in flight. `position` in voxels, `direction` a unit vector in world mm; weight 1 or nearly so."""

    position: Float32[ndarray, "n 3"]
    direction: Float32[ndarray, "n 3"]
    energy: Float[ndarray, "n"]
    weight: Float[ndarray, "n"]

    def __getitem__(self, chosen: ndarray) -> Photons:
        return Photons(*(getattr(self, field.name)[chosen] for field in fields(self)))


def transport(
    density: Float[ndarray, "material z y x"],
    affine: Float[ndarray, "4 4"],
    view: View,
    spectrum: Spectrum,
    photons: int,
    rng: np.random.Generator,
    *,
    detector_bins: int = 32,
    form_factors: bool = True,
) -> Tally:
    """Send `photons` from the focal spot (or a parallel beam) over the detector's area and tally what arrives.

    `density` in g/cm3 of MATERIALS, `affine` maps its index (x, y, z, 1) to mm. The beam is collimated to the detector,
    whose longer side gets `detector_bins` bins. Without `form_factors` electrons are free and atoms points.
    """
    if photons < 1:
        raise UserError(f"scatter_photons {photons}; expected at least 1. A Monte Carlo image needs about 1000000.")
    if not np.isfinite(density).all() or (density < 0).any():
        raise UserError("density of the volume is negative or not finite; expected g/cm3 >= 0. Correct the CT.")
    if not (spectrum.energy_kev <= _MAX_KEV).all():
        raise UserError(
            f"spectrum {spectrum.name} reaches {spectrum.energy_kev.max():g} keV; expected at most {_MAX_KEV:g} keV. "
            "Lower the tube voltage."
        )
    medium = make_medium(density, affine)
    _require_before_detector(medium, view)
    bins = coarse_shape(view, detector_bins)
    sizes = [min(BATCH, photons - start) for start in range(0, photons, BATCH)]
    tally = None
    batches = list(zip(sizes, rng.spawn(len(sizes)), strict=True))
    for size, child in tqdm(batches, desc=f"photons of view {view.name}", unit="batch", disable=None, leave=False):
        one = _transport_batch(medium, view, bins, spectrum, size, child, form_factors)
        tally = one if tally is None else tally + one
    return tally


def coarse_shape(view: View, detector_bins: int) -> tuple[int, int]:
    """Rows and columns of nearly square bins over the detector, at most one per pixel."""
    sides = np.array(view.shape) * [np.linalg.norm(view.step_v_mm), np.linalg.norm(view.step_u_mm)]
    rows, columns = np.clip(np.round(detector_bins * sides / sides.max()), 1, view.shape).astype(int)
    return int(rows), int(columns)


def _require_before_detector(medium: Medium, view: View) -> None:
    """Scattering needs a detector behind the volume: a parallel beam without distances has it in the middle."""
    corners = np.array(np.meshgrid(*([-0.5, size - 0.5] for size in medium.size), indexing="ij")).reshape(3, -1).T
    world = (corners - medium.to_voxel[:3, 3]) @ np.linalg.inv(medium.to_voxel[:3, :3]).T
    if ((view.origin_mm - world) @ _beam_normal(view) < -1e-3).any():
        raise UserError(
            f"view {view.name}: the detector stands inside the volume, where scatter is not defined. "
            "Increase sdd_mm - sod_mm beyond half the volume's diagonal."
        )


def _beam_normal(view: View) -> Float[ndarray, "3"]:
    """Unit normal of the detector, along the beam."""
    normal = np.cross(view.step_u_mm, view.step_v_mm)
    beam = view.origin_mm - view.source_mm[:3] if view.source_mm[3] else view.source_mm[:3]
    return normal / np.linalg.norm(normal) * np.sign(normal @ beam)


def make_medium(density: Float[ndarray, "material z y x"], affine: Float[ndarray, "4 4"]) -> Medium:
    """Tables of mu in 1/mm at every 0.1 keV, and per energy a majorant that no voxel exceeds."""
    energy = np.maximum(np.arange(0.0, _MAX_KEV + _STEP_KEV / 2, _STEP_KEV), 1.0)
    mu_mass = np.stack(
        [np.stack([mass_attenuation(m, np.minimum(energy, 150.0), p) for p in PROCESSES], 1) for m in MATERIALS], 1
    )
    voxels = density.reshape(len(MATERIALS), -1).T
    # Densities rounded up to a fiftieth of their maximum leave few distinct voxels, each an upper bound.
    unit = np.maximum(voxels.max(axis=0), 1e-9) / 50
    levels = np.minimum(np.ceil(voxels / unit), 50).astype(np.int64)
    codes = np.unique(levels @ (51 ** np.arange(len(MATERIALS))))
    bounds = np.stack([codes // 51**m % 51 for m in range(len(MATERIALS))], axis=1) * unit
    majorant = (bounds @ mu_mass.sum(axis=2).T).max(axis=0)
    return Medium(
        density=np.ascontiguousarray(voxels, dtype=np.float32),
        size=np.array(density.shape[:0:-1]),
        to_voxel=np.linalg.inv(affine),
        mu_per_mm=mu_mass / 10,
        majorant_per_mm=np.maximum(majorant / 10, 1e-9),
    )


def _transport_batch(
    medium: Medium,
    view: View,
    bins: tuple[int, int],
    spectrum: Spectrum,
    count: int,
    rng: np.random.Generator,
    form_factors: bool,
) -> Tally:
    photons, aimed_at = emit(view, spectrum, count, rng, medium)
    open_field = _image(aimed_at, photons, view, bins)
    emitted = _energy(photons)
    images, deposited, escaped = [], 0.0, 0.0
    while len(photons.energy):
        collided = fly(photons, medium, rng)
        leaving = photons[~collided]
        images.append(_image(_detector_uv(leaving, view, medium), leaving, view, bins))
        escaped += _energy(leaving) - images[-1].sum()
        before = _energy(photons[collided])
        photons = interact(photons[collided], medium, rng, form_factors)
        deposited += before - _energy(photons)
    scatter = np.sum(images[1:], axis=0) if len(images) > 1 else np.zeros(bins)
    return Tally(scatter, images[0], open_field, emitted, deposited, escaped)


def emit(
    view: View, spectrum: Spectrum, count: int, rng: np.random.Generator, medium: Medium
) -> tuple[Photons, Float[ndarray, "n 2"]]:
    """Photons at the tube aimed uniformly over the detector, and the pixel (u, v) each would hit.

    A weight makes up for the solid angle that a patch of the detector fills: cos / r^2, relative to its perpendicular.
    """
    rows, columns = view.shape
    uv = rng.random((count, 2)) * [columns, rows] - 0.5
    target = view.origin_mm + uv[:, :1] * view.step_u_mm + uv[:, 1:] * view.step_v_mm
    source, is_point = view.source_mm[:3], view.source_mm[3] != 0
    path = target - source if is_point else np.broadcast_to(source, target.shape)
    distance = np.linalg.norm(path, axis=1, keepdims=True)
    height = abs((view.origin_mm - source) @ _beam_normal(view))
    weight = (height / distance[:, 0]) ** 3 if is_point else np.ones(count)
    # A parallel beam starts ten metres before the detector: outside any volume, near enough for float32.
    start = np.broadcast_to(source, target.shape) if is_point else target - 1e4 * path / distance
    cumulative = np.cumsum(spectrum.fluence)
    bin_of = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    position = _onto_box(start, path / distance, medium)
    return Photons(
        position.astype(np.float32),
        (path / distance).astype(np.float32),
        spectrum.energy_kev[bin_of].astype(float),
        weight,
    ), uv


def fly(photons: Photons, medium: Medium, rng: np.random.Generator) -> Bool[ndarray, "n"]:
    """Move every photon to its next collision, in place; False where it leaves the volume (and stays before that step)."""
    collided = np.zeros(len(photons.energy), dtype=bool)
    row = _energy_row(photons.energy)
    who = np.arange(len(row))
    position = photons.position.copy()
    mean_free_mm = (1 / medium.majorant_per_mm[row]).astype(np.float32)
    step = photons.direction @ medium.to_voxel[:3, :3].T.astype(np.float32) * mean_free_mm[:, None]
    chance = (medium.mu_per_mm.sum(axis=2)[row] * mean_free_mm[:, None]).astype(np.float32)
    last = medium.size.astype(np.float32) - np.float32(0.5)
    while len(who):
        moved = position + step * rng.standard_exponential((len(who), 1), dtype=np.float32)
        inside = ((moved > -0.5) & (moved < last)).all(axis=1)
        who, position, step, chance = who[inside], moved[inside], step[inside], chance[inside]
        density = medium.density[_voxel(position, medium)]
        real = rng.random(len(who), dtype=np.float32) < np.einsum("nm,nm->n", density, chance)
        photons.position[who[real]] = position[real]
        collided[who[real]] = True
        who, position, step, chance = who[~real], position[~real], step[~real], chance[~real]
    return collided


def interact(photons: Photons, medium: Medium, rng: np.random.Generator, form_factors: bool) -> Photons:
    """The photons that live on after their collision, scattered; what they have lost in energy is deposited."""
    row = _energy_row(photons.energy)
    share = medium.density[_voxel(photons.position, medium)][:, :, None] * medium.mu_per_mm[row]
    cumulative = np.cumsum(share.reshape(len(row), len(MATERIALS) * len(PROCESSES)), axis=1)
    drawn = rng.random((len(row), 1)) * cumulative[:, -1:]
    event = np.minimum((drawn >= cumulative).sum(axis=1), cumulative.shape[1] - 1)
    material, process = np.divmod(event, len(PROCESSES))
    alive = process != PROCESSES.index("photoelectric")
    photons, material, process = photons[alive], material[alive], process[alive]
    cosine = np.ones(len(process))
    for index, name in enumerate(MATERIALS):
        rayleigh = (material == index) & (process == PROCESSES.index("rayleigh"))
        compton = (material == index) & (process == PROCESSES.index("compton"))
        table = name if form_factors else None
        cosine[rayleigh] = rayleigh_cosine(photons.energy[rayleigh], table, rng)
        cosine[compton] = compton_cosine(photons.energy[compton], table, rng)
    photons.direction = turn(photons.direction, cosine, rng)
    lost = process == PROCESSES.index("compton")
    photons.energy = np.where(lost, compton_energy(photons.energy, cosine), photons.energy)
    return photons[~lost | (photons.energy >= CUTOFF_KEV)]


def _onto_box(
    start_mm: Float[ndarray, "n 3"], direction: Float[ndarray, "n 3"], medium: Medium
) -> Float[ndarray, "n 3"]:
    """Where rays enter the volume, in voxels; those that miss it stay at their start."""
    start = start_mm @ medium.to_voxel[:3, :3].T + medium.to_voxel[:3, 3]
    step = direction @ medium.to_voxel[:3, :3].T
    step = np.where(np.abs(step) < 1e-12, 1e-12, step)
    faces = np.stack([(-0.5 - start) / step, (medium.size - 0.5 - start) / step])
    near, far = faces.min(axis=0).max(axis=1), faces.max(axis=0).min(axis=1)
    return start + step * np.where(near < far, np.maximum(near, 0), 0)[:, None]


def _detector_uv(photons: Photons, view: View, medium: Medium) -> Float[ndarray, "n 2"]:
    """Pixel (u, v) where each photon's line meets the detector; NaN for photons that fly away from it."""
    start = (photons.position - medium.to_voxel[:3, 3]) @ np.linalg.inv(medium.to_voxel[:3, :3]).T
    normal = _beam_normal(view)
    approach = photons.direction.astype(float) @ normal
    towards = approach > 0
    length = (view.origin_mm - start) @ normal / np.where(towards, approach, np.nan)
    hit = start + photons.direction * length[:, None] - view.origin_mm
    return hit @ np.linalg.pinv(np.stack([view.step_u_mm, view.step_v_mm]))


def _image(uv: Float[ndarray, "n 2"], photons: Photons, view: View, bins: tuple[int, int]) -> Float[ndarray, "v u"]:
    """Energy in keV per coarse pixel; what misses the detector is not in it."""
    rows, columns = view.shape
    on = (uv > -0.5).all(axis=1) & (uv[:, 0] < columns - 0.5) & (uv[:, 1] < rows - 0.5)
    u, v = ((uv[on] + 0.5) / [columns, rows] * bins[::-1]).astype(int).T
    flat = np.minimum(v, bins[0] - 1) * bins[1] + np.minimum(u, bins[1] - 1)
    energy = photons.energy[on] * photons.weight[on]
    return np.bincount(flat, weights=energy, minlength=bins[0] * bins[1]).astype(float).reshape(bins)


def _voxel(position: Float32[ndarray, "n 3"], medium: Medium) -> Int[ndarray, "n"]:
    x, y, z = (position + np.float32(0.5)).astype(np.int32).T
    return (z * medium.size[1] + y) * medium.size[0] + x


def _energy_row(energy_kev: Float[ndarray, "n"]) -> Int[ndarray, "n"]:
    return np.rint(energy_kev / _STEP_KEV).astype(np.int64)


def _energy(photons: Photons) -> float:
    return float((photons.energy * photons.weight).sum())
