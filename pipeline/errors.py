"""The errors a user may see: `UserError` and `TransientError` stop the command, `CaseError` quarantines one case."""


class UserError(Exception):
    """Wrong input to a command: the message says what was given, what was expected and what to do (exit code 2)."""


class TransientError(Exception):
    """Nobody's mistake: the network or the disk failed, and the same command may succeed later (exit code 75)."""


class TooManyQuarantined(Exception):
    """More cases were set aside than the config allows (exit code 4)."""


class CaseError(Exception):
    """One case cannot be used: `code` is a stable reason code (E_...), `reason` a sentence without paths or patient data."""

    def __init__(self, code: str, reason: str):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
