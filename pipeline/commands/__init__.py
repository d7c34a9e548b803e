"""One module per command of `python -m pipeline`; nothing heavy is imported before a command runs."""
