"""Are these numbers Hounsfield units of a person, and what is remarkable about them?"""

from __future__ import annotations

import numpy as np

from pipeline.errors import CaseError
from pipeline.read.values import Hu

_SAMPLE = 2_000_000
_METAL_HU, _METAL_SHARE = 3000, 5e-4


def check_hu(data: Hu) -> set[str]:
    """Flags (METAL or none) of plausible HU; E_CONSTANT and E_HU_RANGE otherwise.

    Voxels below -1100 are padding and left aside: at most 5 % of all may lie below -1500 at other values than the
    lowest (padding is one number, air times ten is not). Of the others, in a regular sample,
    - at least 0.5 % lie below -50 (air, lung, fat: a head, an abdomen and a bare spine crop all have fat and noise;
      0..255 pictures, normalised images and unsigned offsets of 1024 or 32768 have nothing there);
    - at least 5 % lie in -200..300, soft tissue (with the intercept applied twice it lies at -1000);
    - at most 5 % lie above 3100 (metal; data times ten, or 16-bit pictures);
    - what lies in 850..1250 is less than what lies in 300..800, or less than 15 % of it and soft tissue together: bone
      thins out towards dense values, soft tissue shifted by 1024 stands there as a peak;
    - where nothing lies below -300, no 1 % share one lowest value (a display window's floor).
    """
    if data.min() == data.max():
        raise CaseError("E_CONSTANT", f"every voxel holds the value {data.flat[0]:g}, expected a CT")
    step = max(1, round((data.size / _SAMPLE) ** (1 / 3)))
    sample = data[::step, ::step, ::step].ravel()
    far_below = float(((sample < -1500) & (sample > sample.min())).mean())
    sample = sample[sample >= -1100]

    def share(low: float, high: float) -> float:
        return float(((sample >= low) & (sample < high)).mean()) if sample.size else 0.0

    soft, moderate, dense = share(-200.0, 300.0), share(300.0, 800.0), share(850.0, 1250.0)
    floor = sample.min(initial=0)
    wrong = None
    if far_below > 0.05:
        wrong = "too many different values lie below -1500 HU"
    elif share(-1100.0, -50.0) < 0.005:
        wrong = "almost nothing lies below -50 HU (air, lung, fat)"
    elif soft < 0.05:
        wrong = "almost nothing lies between -200 and 300 HU (soft tissue)"
    elif share(3100.0, np.inf) > 0.05:
        wrong = "too much lies above 3100 HU"
    elif dense > max(moderate, 0.15 * (dense + soft)):
        wrong = "soft tissue seems to lie near 1050 HU, shifted by about 1024"
    elif floor > -300 and float((sample == floor).mean()) > 0.01:
        wrong = f"the values are cut off below {floor:g}, as in a display window"
    if wrong:
        raise CaseError(
            "E_HU_RANGE",
            f"the values are not Hounsfield units: {wrong}; median {np.median(data[::step, ::step, ::step]):g}, "
            f"range {data.min():g} to {data.max():g}; expected air near -1000 and soft tissue near 0 to 100",
        )
    return {"METAL"} if float((data >= _METAL_HU).mean()) > _METAL_SHARE else set()
