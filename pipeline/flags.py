"""Quality flags: what was noticed about a case that may still be used. The bits are part of the shard format."""

FLAG_BITS = {
    "SHEARED": 1,
    "QS_MISMATCH": 2,
    "METAL": 4,
    "TRUNC_FOV": 8,
    "NONFINITE_FIXED": 16,
}
