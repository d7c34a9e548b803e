"""The two errors a user may see: `UserError` stops the command, `CaseError` quarantines one case."""


class UserError(Exception):
    """Wrong input to a command: the message says what was given, what was expected and what to do (exit code 2)."""


class CaseError(Exception):
    """One case cannot be used: `code` is a stable reason code (E_...), `reason` a sentence without paths or patient data."""

    def __init__(self, code: str, reason: str):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
