"""Write shards in the layout that X2CT-style code reads."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Float32, Int16, UInt8
from nibabel.orientations import apply_orientation, io_orientation
from numpy import ndarray
from tqdm import tqdm

from xr2ct.errors import UserError
from xr2ct.files import publish
from xr2ct.shards import Shard, open_shards

VIEWS = ("PA", "LAT")
FILE = "ct_xray_data.h5"
HU_OFFSET, CT_MAX = 1024, 2500


def export_x2ct(*, shards: Sequence[Path], simulator: str, out: Path) -> None:
    """Write `out`/<case>/ct_xray_data.h5 for every case; axes and losses are documented in resources/shard.md."""
    places = [(shard, i) for shard in open_shards(shards) for i in range(len(shard))]
    for shard, i in tqdm(places, desc="export", unit="case"):
        _export_case(shard, i, simulator, out)
    print(f"{out}: {len(places)} cases, each in {FILE}")


def _export_case(shard: Shard, i: int, simulator: str, out: Path) -> None:
    case, xray = shard.case(i), shard.xray(i, simulator)
    if Path(case.id).name != case.id:
        raise UserError(f"{shard.path}: case id {case.id!r} is not a file name. Do not use this shard.")
    if missing := [view for view in VIEWS if view not in xray.views]:
        raise UserError(
            f"{shard.path}: simulator {simulator!r} has views {', '.join(xray.views)}, the layout needs PA and LAT "
            f"({missing[0]} is missing). Choose another simulator."
        )
    with publish(out / case.id / FILE) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("ct", data=x2ct_volume(case.ct_hu, case.affine))
        for name, view in zip(("xray1", "xray2"), VIEWS, strict=True):
            file.create_dataset(name, data=x2ct_image(xray.image[xray.views.index(view)]))


def x2ct_volume(ct_hu: Int16[ndarray, "z y x"], affine: Float[ndarray, "4 4"]) -> Int16[ndarray, "a b c"]:
    """HU + 1024 in 0..2500 with axes (to posterior, to inferior, to left), so that it lies on the X-rays as they are.

    X2CT's loader transposes by (1, 0, 2) and then projects axis 1 onto xray1 (PA) and axis 2 onto xray2 (LAT).
    """
    xyz = apply_orientation(ct_hu.T, io_orientation(affine))
    left_posterior_inferior = xyz[::-1, ::-1, ::-1]
    return np.clip(left_posterior_inferior.transpose(1, 2, 0).astype(np.int16) + HU_OFFSET, 0, CT_MAX).astype(np.int16)


def x2ct_image(image: Float32[ndarray, "v u"]) -> UInt8[ndarray, "v u"]:
    """Stretched from its own minimum and maximum to 0..255; an image of one value becomes 0."""
    low, high = image.min(), image.max()
    return np.rint((image - low) / (high - low or 1) * 255).astype(np.uint8)
