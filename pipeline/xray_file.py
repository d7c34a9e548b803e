"""The X-rays of one case by one simulator as a small HDF5 file, with the names that the shard uses."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pipeline.files import publish
from pipeline.shard_file import Xray

_ARRAYS = ("image", "projection", "source_mm", "detector_mm")


def save_xray(path: Path, xray: Xray) -> None:
    """Publish all views of one case. Made in memory: on a full disk HDF5 takes the process down, a plain write raises."""
    with publish(path) as private:
        with h5py.File(private, "w", libver=("v108", "v108"), driver="core", backing_store=False) as file:
            file.attrs.update(xray.attributes)
            file.create_dataset("view", data=np.array(xray.views, dtype=object), dtype=h5py.string_dtype("utf-8"))
            for name in _ARRAYS:
                kind = {"compression": "gzip", "shuffle": True, "fletcher32": True} if name == "image" else {}
                file.create_dataset(name, data=getattr(xray, name), **kind)
            file.flush()
            content = file.id.get_file_image()
        private.write_bytes(content)


def load_xray(path: Path) -> Xray:
    """What `save_xray` wrote."""
    with h5py.File(path, "r", locking=False) as file:
        arrays = {name: file[name][...] for name in _ARRAYS}
        return Xray(views=tuple(file["view"].asstr()[:]), attributes=dict(file.attrs.items()), **arrays)
