"""Patients as keys: enough to keep one patient in one split, nothing that names anybody."""

import hashlib
import hmac
import os


def subject_key(dataset: str, subject: str) -> str:
    """Keyed hash of a patient; set XR2CT_SUBJECT_SECRET where the patient ids themselves are private."""
    secret = os.environ.get("XR2CT_SUBJECT_SECRET", "xr2ct").encode()
    return hmac.new(secret, f"{dataset}\0{subject}".encode(), hashlib.sha256).hexdigest()[:16]
