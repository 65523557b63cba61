"""Command line of the scripts: arguments, log, progress bars, signals and exit codes.

Imported before torch, so that --help answers at once; must not import anything slow.
"""

import argparse
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tqdm import tqdm

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "icnet.yaml"


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line and keeps the line breaks of its description."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parse_arguments(
    description: str, add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
) -> argparse.Namespace:
    """Parse `--config FILE`, the options of `add_arguments`, and any number of `section.key=value` overrides."""
    parser = Parser(description=description, epilog="All keys: docs/configuration.md")
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file (default: configs/icnet.yaml)")
    add_arguments(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="override configuration values: train.epochs=10"
    )
    return parser.parse_intermixed_args()


def path(text: str) -> Path:
    """Parse a path, with a leading `~` for the home folder, which shells leave alone in `--out=~/x`."""
    if not text:  # Path("") is the working directory
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(os.path.expanduser(text))  # which keeps the ~ of an unknown user


class Interruption(Exception):
    """The program stopped cleanly on a signal; the message says how to resume."""


@contextmanager
def catching_signals(forward: Callable[[int], None] = lambda number: None) -> Iterator[Callable[[], bool]]:
    """Defer SIGINT, SIGTERM and SIGHUP; yield a function that returns whether one arrived.

    A further SIGINT stops at once. Others do not, because torchrun forwards SIGTERM to processes that may have received
    it already.

    Args:
        forward: called with the number of each signal that arrives, to pass it on.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        forward(number)
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)  # of a terminal that is closed
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit with its return value, 2 after a user error, or 130 if interrupted.

    A user error is printed as one line; `python -X dev train.py …` shows its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # names of files need not be valid text; a file or a pipe would get the lines only in blocks of 8 KB
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        sys.exit(main() or 0)
    except (ValueError, OSError) as error:
        if sys.flags.dev_mode:
            raise
        code, message = 2, f"error: {one_line(error)}"
    except (RuntimeError, MemoryError) as error:
        hint = _hint(error)
        if hint is None:
            raise
        code, message = 2, f"error: {hint}"
    except (Interruption, KeyboardInterrupt) as interruption:
        code, message = 130, str(interruption) or "interrupted"
    print(message, file=sys.stderr)
    sys.exit(code)


def _hint(error: Exception) -> str | None:
    """Return what to do about an error, if it is a lack of memory, or a GPU that PyTorch was not built for."""
    text = str(error)
    if "no kernel image is available" in text:
        return (
            "this PyTorch was not built for this GPU; install a build for an older CUDA version "
            '(https://pytorch.org/get-started/previous-versions), or set CUDA_VISIBLE_DEVICES="" to use the CPU'
        )
    if re.search(r"DataLoader worker .* killed by signal: (Killed|Bus error)|unable to allocate shared memory", text):
        return (
            "a loader worker has too little memory; lower train.num_workers, set dataset.cache=false, or give a Docker "
            "container more shared memory (--shm-size)"
        )
    # PyTorch's class cannot be imported here; the other messages, of CUDA, NCCL, cuBLAS and cuDNN, are of a GPU
    # that is full before anything is allocated
    full = r"CUDA error: out of memory|Cuda failure 2\b|_ALLOC(ATION)?_FAILED|unable to find an engine"
    on_gpu = type(error).__name__ == "OutOfMemoryError" or re.search(full, text)
    if not (on_gpu or isinstance(error, MemoryError) or "DefaultCPUAllocator" in text):
        return None
    return (
        f"out of {'GPU ' if on_gpu else ''}memory; lower train.train_batch_size or model.crop_size for training, "
        "train.valid_batch_size or test.short_side for evaluation, test.short_side for inference"
    )


def one_line(error: BaseException) -> str:
    """Format an error as one line, without the traceback that PyTorch adds to an error in a loader worker."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = re.split(r"^[\w.]+(?:Error|Exception): ", text, flags=re.MULTILINE)[-1]
    return " ".join(text.split("\n")) or type(error).__name__


class _TerminalHandler(logging.Handler):
    """Print through tqdm, which keeps progress bars intact."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))


def open_log(*, quiet: bool = False) -> logging.Logger:
    """Return the project's logger, which prints unless `quiet`; handlers of an earlier run are closed.

    Debug messages are not printed; handlers that are added later may record them.
    """
    logger = logging.getLogger("icnet")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    logger.addHandler(logging.NullHandler() if quiet else _TerminalHandler(logging.INFO))
    return logger


def progress(
    items: Iterable, name: str, *, total: int | None = None, initial: int = 0, unit: str = "it", quiet: bool = False
) -> tqdm:
    """Show a transient progress bar on terminals, only in process 0, and unless `quiet`."""
    hidden = True if quiet or os.environ.get("RANK", "0") != "0" else None
    return tqdm(items, name, total=total, initial=initial, unit=unit, leave=False, dynamic_ncols=True, disable=hidden)
