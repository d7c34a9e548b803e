"""Patients as keys: enough to keep one patient in one split, nothing that names anybody."""

import hashlib
import hmac
import os
import re

CASE_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def subject_key(dataset: str, subject: str) -> str:
    """Keyed hash of a patient; set XR2CT_SUBJECT_SECRET where the patient ids themselves are private."""
    secret = os.environ.get("XR2CT_SUBJECT_SECRET", "xr2ct").encode()
    return hmac.new(secret, f"{dataset}\0{subject}".encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:16]


def case_id(name: str) -> str:
    """The id of a case: its name if that is one, else u- and a hash of it."""
    return name if is_case_id(name) else "u-" + hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]


def is_case_id(name: str) -> bool:
    """Whether a name can be a file name everywhere and means nothing to a shell."""
    return bool(re.fullmatch(CASE_ID, name)) and not _RESERVED.fullmatch(name) and not name.endswith(".")
