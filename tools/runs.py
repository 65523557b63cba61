"""Running the scripts as subprocesses, for tools that need several runs; complete runs are not repeated."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.cli import Interruption, catching_signals
from utils.config import Config, load_config
from utils.io.files import locked, replacing
from utils.settings import setting
from utils.training.state import check_resumable
from utils.weights.checkpoint import Checkpoint, read_checkpoint
from utils.weights.run_folder import LAST

REPOSITORY = Path(__file__).parent.parent


def run_script(folder: Path, script: str, *arguments: str) -> None:
    """Run a script whose results go to `folder`.

    Raises:
        BlockingIOError: another process is at work in this folder.
        ValueError: it failed; its own message has been printed.
        Interruption: a signal stopped it, after it saved its state.
    """
    with locked(folder.with_name(f".{folder.name}.lock")):
        print(f"{folder.name}: python {shlex.join([script, *arguments])}")
        command = [sys.executable, str(REPOSITORY / script), *arguments]
        process = subprocess.Popen(command, start_new_session=True)  # Ctrl-C, too, reaches the script once, from here
        posix = os.name == "posix"  # on Windows, the console sends Ctrl-C to both
        with catching_signals(process.send_signal if posix else lambda number: None) as stopping:
            code = process.wait()  # it needs time to save its state
    if stopping():
        raise Interruption("stopped; run the same command again to continue")
    if code != 0:
        raise ValueError(f"{folder.name} failed with exit code {code}; see its message above")


def finished_checkpoint(folder: Path, config: Config) -> Checkpoint | None:
    """Return the last state of the training run in `folder`, None if it has not reached its end.

    Raises:
        ValueError: it was trained with settings other than `config`.
    """
    if not (folder / LAST).is_file():
        return None
    last = read_checkpoint(folder / LAST)
    check_resumable(config, last)
    assert last.training is not None, "it is resumable"
    return last if last.epoch == config.train.epochs and not last.training["losses"] else None


def run_evaluation(path: Path, folder: Path, config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Evaluate a checkpoint under this configuration; return the metrics that evaluate.py writes to `metrics.json`.

    An existing evaluation in `folder` is reused if neither the checkpoint nor the configuration has changed since.
    """
    metrics = folder / "evaluate_output" / "metrics.json"
    found = json.loads(metrics.read_text()) if metrics.exists() else {}
    own = [setting("test.ckpt_path", path), setting("train.ckpt_dir", folder), "test.save=none"]
    overrides = [*overrides, *own]
    asked = load_config(config, overrides).model_dump(mode="json")
    if found.get("config") != asked or changed_since(metrics, path):
        run_script(folder, "evaluate.py", "--config", config, *overrides)
        found = json.loads(metrics.read_text())
    if "miou" not in found:
        raise ValueError(f"{metrics} has no mIoU, because the split has no labels; choose another test.split")
    return found


def changed_since(reference: Path, path: Path) -> bool:
    """Return whether a file has been written, or another one moved to its place, since `reference` was written."""
    status = path.stat()
    return max(status.st_mtime, status.st_ctime) > reference.stat().st_mtime


@contextmanager
def plotting(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """Yield the axes of a plot, (width, height) in inches, then write it as an SVG; equal plots give equal files."""
    from matplotlib import rc_context  # takes a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield figure.subplots()
    with rc_context({"svg.hashsalt": "icnet"}), replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})
