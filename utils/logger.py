"""Where a run's words and figures go: the terminal, a log file, JSON lines."""

import contextlib
import json
import logging
import logging.handlers
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils import runtime


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


def keep_log(logger: logging.Logger, path: Path) -> None:
    """Write what was logged since `open_log`, and what follows, at the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    (memory,) = (handler for handler in logger.handlers if isinstance(handler, logging.handlers.MemoryHandler))
    memory.setTarget(file)
    memory.flush()
    logger.removeHandler(memory)
    logger.addHandler(file)


def append_json_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON object as a line at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects that `append_json_line` wrote; of a line that a kill cut short, nothing."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def progress(
    items: Iterable, name: str, *, total: int | None = None, initial: int = 0, unit: str = "it", quiet: bool = False
) -> tqdm:
    """Show a bar while `items` are worked through, and leave none behind; none where the output is no terminal.

    Of several processes only the first shows one, and not if it is to be `quiet`.
    """
    hidden = True if runtime.rank() or quiet else None
    return tqdm(items, name, total=total, initial=initial, unit=unit, leave=False, dynamic_ncols=True, disable=hidden)
