"""The command line that the three scripts share."""

import argparse
import logging
import logging.handlers
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tqdm import tqdm

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


class Interruption(Exception):
    """A signal asked the program to end, and it did so in good order; the message says how to go on."""


@contextmanager
def catching_signals() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM in place of ending at once; give a function that tells whether one came.

    A second signal ends the program at once.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: its own code, or 2 with one line on stderr for what the user can mend.

    `python -X dev train.py …` shows the traceback of such an error.
    """
    try:
        code = main()
    except (ValueError, OSError) as error:
        if sys.flags.dev_mode:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; importing torch here would make --help wait for it
            raise
        print(
            "error: the GPU's memory is full; in training lower train.train_batch_size or model.crop_size, "
            "in evaluation train.valid_batch_size, or set test.window",
            file=sys.stderr,
        )
        code = 2
    except Interruption as interruption:
        print(interruption, file=sys.stderr)
        code = 130
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def one_line(error: BaseException) -> str:
    """Say an error in one line; of one from a loader process, what was raised there."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = re.split(r"^[\w.]+(?:Error|Exception): ", text, flags=re.MULTILINE)[-1]
    return " ".join(text.split("\n")) or type(error).__name__


class _TerminalHandler(logging.Handler):
    """Print through tqdm, so that lines do not tear its bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))


def open_log(*, quiet: bool = False) -> logging.Logger:
    """Return the logger of the project, writing to the terminal unless `quiet`."""
    logger = logging.getLogger("icnet")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    logger.addHandler(logging.NullHandler() if quiet else _TerminalHandler())
    logger.addHandler(logging.handlers.MemoryHandler(1000, flushLevel=logging.CRITICAL, flushOnClose=False))
    return logger


def progress(
    items: Iterable, name: str, *, total: int | None = None, initial: int = 0, unit: str = "it", quiet: bool = False
) -> tqdm:
    """Show a bar while `items` are worked through, and leave none behind; none where the output is no terminal.

    Of several processes only the first shows one, and not if it is to be `quiet`.
    """
    hidden = True if quiet or os.environ.get("RANK", "0") != "0" else None
    return tqdm(items, name, total=total, initial=initial, unit=unit, leave=False, dynamic_ncols=True, disable=hidden)
