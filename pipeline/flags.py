"""Quality flags: what was noticed about a case that may still be used. The bits are part of the shard format."""

FLAG_BITS = {
    "SHEARED": 1,
    "QS_MISMATCH": 2,
    "METAL": 4,
    "TRUNC_FOV": 8,
    "NONFINITE_FIXED": 16,
    "FOV_CIRCLE": 32,
    "SCALING_IGNORED": 64,
    "SLICES_LEFT_OUT": 128,
}

FLAG_MEANINGS = {
    "SHEARED": "slices lean, as those of a tilted gantry",
    "QS_MISMATCH": "qform and sform differ, the sform counts",
    "METAL": "0.05 % of the voxels at 3000 HU or more",
    "TRUNC_FOV": "the body is cut at the sides",
    "NONFINITE_FIXED": "NaN became -1024",
    "FOV_CIRCLE": "slices are round pictures",
    "SCALING_IGNORED": "an intercept beside a slope of 0",
    "SLICES_LEFT_OUT": "duplicates, images that do not fit, or a shorter series of the same folder",
}

CONTRADICTIONS = {"QS_MISMATCH": "E_HEADER", "NONFINITE_FIXED": "E_NONFINITE", "SCALING_IGNORED": "E_HEADER"}
"""Flags of files that contradict themselves, and the code under which strict reading refuses them."""
