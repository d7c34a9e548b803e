"""Options that several commands share."""

import argparse
from pathlib import Path

DEFAULT_WINDOW_HU = (-1000.0, 1500.0)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of examples, and show defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, [], DEFAULT_WINDOW_HU) else action.help


class ShowVersion(argparse.Action):
    """Print the version of the installed package; looked up only then, for that takes as long as starting."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("xr2ct")
        except PackageNotFoundError:
            found = "unknown"
        print(f"xr2ct {found}")
        parser.exit()


def add_command(commands: argparse._SubParsersAction, name: str, about: str, epilog: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=about, description=about, epilog=epilog, formatter_class=Help)


def add_files(parser: argparse.ArgumentParser, option: str, about: str, required: bool = True) -> None:
    parser.add_argument(option, type=Path, nargs="+", required=required, default=[], metavar="FILE", help=about)


def add_window(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("--window", type=float, nargs=2, default=DEFAULT_WINDOW_HU, metavar=("LOW", "HIGH"), help=about)


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
