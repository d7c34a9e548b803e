"""The error a user may see."""


class UserError(Exception):
    """Wrong input to a command: the message says what was given, what was expected and what to do (exit code 2)."""
