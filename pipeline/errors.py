"""The errors a user may see: `UserError` and `TransientError` stop the command, `CaseError` quarantines one case."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """Wrong input to a command: the message says what was given, what was expected and what to do (exit code 2)."""


def unknown(said: str, value: str, known: Iterable[str], otherwise: str = "") -> UserError:
    """The error for a `value` that is none of `known`: what is `said` of it, all of those, and the nearest one.

    `otherwise` is what to do where none is near.
    """
    known = list(known)
    nearest = get_close_matches(value, known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else otherwise
    return UserError(f"{said}; expected one of: {', '.join(known)}.{hint}")


class TransientError(Exception):
    """Nobody's mistake: the network or the disk failed, and the same command may succeed later (exit code 75)."""


class TooManyQuarantined(Exception):
    """More cases were set aside than the config allows (exit code 4)."""


class CaseError(Exception):
    """One case cannot be used: `code` is a stable reason code (E_...), `reason` a sentence without paths or patient data.

    `ct` is where its CT lies, if that is told: what is set aside is known by the hash of it.
    """

    def __init__(self, code: str, reason: str, ct: Path | None = None):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.ct = ct
