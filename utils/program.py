"""How a script ends: on signals, on errors, in good order."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch


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
    except torch.cuda.OutOfMemoryError:
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
