"""The fixed HU window in which volumes are compared."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Real
from numpy import ndarray


@dataclass(frozen=True)
class Window:
    """Both volumes are clipped to it; its text is part of the metric names, e.g. window-1000to1500."""

    low_hu: float
    high_hu: float

    def __str__(self) -> str:
        return f"window{self.low_hu:g}to{self.high_hu:g}"

    def clip(self, ct_hu: Real[ndarray, "z y x"]) -> Float32[ndarray, "z y x"]:
        """HU, none outside the window."""
        return np.clip(ct_hu.astype(np.float32), self.low_hu, self.high_hu)

    def to_unit(self, ct_hu: Real[ndarray, "z y x"]) -> Float32[ndarray, "z y x"]:
        """The window as 0..1."""
        return (self.clip(ct_hu) - np.float32(self.low_hu)) / np.float32(self.high_hu - self.low_hu)
