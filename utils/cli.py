"""The command line that the three scripts share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "icnet.yaml"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all errors here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help lists what there is\n")


def parse_arguments(
    description: str, add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
) -> argparse.Namespace:
    """Read `--config FILE`, what `add_arguments` adds, and any number of `section.key=value`, in any order."""
    parser = _Parser(description=description, epilog="The keys are those of the YAML files in configs.")
    parser.add_argument("--config", metavar="FILE", help="YAML file (default: configs/icnet.yaml)")
    add_arguments(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="what to change in it, as in train.epochs=10",
    )
    return parser.parse_intermixed_args()
