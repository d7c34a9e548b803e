"""What every reader hands on: voxels, where they lie, what was noticed."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float32, Float64, Int16
from numpy import ndarray


@dataclass(frozen=True)
class Volume:
    """One CT (HU) or label map (ids). `affine` maps index (i, j, k, 1) -> RAS mm, voxel centres at integers.

    `flags` are names of `pipeline.flags.FLAG_BITS`. `subject` identifies a person: hash it, never write or log it.
    `source_sha256` is the content hash of the file, or of the files of a series whatever their names.
    """

    data: Int16[ndarray, "i j k"] | Float32[ndarray, "i j k"]
    affine: Float64[ndarray, "4 4"]
    flags: tuple[str, ...]
    subject: str | None = field(repr=False)
    source_sha256: str
