"""What a training run leaves for people to look at: its log, its figures, its curves."""

import contextlib
import json
import logging
import logging.handlers
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from dataset.labels import ClassTable
from utils import runtime
from utils.cli import open_log
from utils.io.drawing import colorize, grid
from utils.io.files import remove_leftovers, replacing


class Records:
    """Write `train.log`, `train.jsonl` (one object per epoch), TensorBoard's files and `curves.png` into a folder.

    Of several processes only the first writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writes = runtime.rank() == 0
        self.log = open_log(quiet=not self.writes)
        self.started = time.strftime("%Y-%m-%d %H:%M:%S")
        self.board: Board | None = None

    def begin(self, *, iteration: int, config: str) -> None:
        """Begin to write: only now, since a run that cannot begin leaves nothing.

        What a killed run left half-written goes. A resumed run replaces, of what TensorBoard shows, what came after
        `iteration`.
        """
        if self.writes:
            remove_leftovers(self.folder)
            keep_log(self.log, self.folder / "train.log")
            self.board = Board(self.folder, log=self.log, purge_step=iteration)
            self.board.text("config", config)

    def scalars(self, record: dict[str, Any], iteration: int) -> None:
        """Show figures of an iteration."""
        if self.board is not None:
            self.board.scalars(record, iteration)

    def prediction(self, index: int, sample: dict, pred: Tensor, classes: ClassTable, iteration: int) -> None:
        """Show image, label and prediction (H, W) of a validation sample side by side."""
        if self.board is not None:
            maps = [colorize(labels.numpy(), classes) for labels in (sample["target"], pred)]
            picture = grid([sample["image"].permute(1, 2, 0).numpy(), *maps], columns=3)
            self.board.picture(f"validation/{index}", picture, iteration)

    def epoch(self, record: dict[str, Any]) -> None:
        """Keep the figures of an epoch; they hold its number as `epoch` and its last `iteration`."""
        if self.writes:
            append_json_line(self.folder / "train.jsonl", {"run": self.started, **record})
            self.scalars(record, record["iteration"])

    def finish(self) -> None:
        """Draw the curves of the whole run."""
        if self.board is not None:
            self.board.close()
            draw_curves(read_json_lines(self.folder / "train.jsonl"), self.folder / "curves.png")


def epoch_line(record: dict[str, Any], *, epochs: int, best: float) -> str:
    """Say in a line how an epoch went, and how long is left."""
    quality = ""
    if "miou" in record:
        mark = " (best)" if record["miou"] == best else ""
        quality = f"  mIoU {record['miou']:.4f}{mark}  pixel accuracy {record['pixel_accuracy']:.4f}"
    left = tqdm.format_interval((epochs - record["epoch"]) * record["seconds"])
    return (
        f"epoch {record['epoch']:3}/{epochs}  loss {record['loss']:.4f}{quality}  "
        f"{record['seconds']:.1f} s, {left} left"
    )


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


class Board:
    """Write TensorBoard's event files into a folder; without the package tensorboard, do nothing and say so.

    Args:
        purge_step: what former runs in the folder wrote from this step on is not shown any more.
    """

    def __init__(self, folder: Path, *, log: logging.Logger, purge_step: int = 0) -> None:
        self._writer = None
        try:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import
        except ImportError:
            log.info("no TensorBoard files: pip install tensorboard")
            return
        self._writer = SummaryWriter(folder, purge_step=purge_step)

    def scalars(self, record: dict[str, Any], step: int) -> None:
        """Show the numbers of a record; those of a nested one as `key/name`; what is no number is left out."""
        for key, value in record.items():
            if isinstance(value, dict):
                self.scalars({f"{key}/{name}": number for name, number in value.items()}, step)
            elif isinstance(value, float) and self._writer is not None:
                self._writer.add_scalar(key, value, step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Show an RGB picture (H, W, 3) uint8."""
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Show a text as it is, line by line."""
        if self._writer is not None:
            self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))

    def close(self) -> None:
        """Finish the files."""
        if self._writer is not None:
            self._writer.close()


def draw_curves(records: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw losses, learning rates, quality and the IoU of each class over the epochs.

    Args:
        records: the objects of a run's `train.jsonl`; of an epoch that was run twice the later one counts.
        path: of the PNG.
    """
    from matplotlib.figure import Figure  # takes a second to import

    records = list({record["epoch"]: record for record in records}.values())
    records.sort(key=lambda record: record["epoch"])
    figure = Figure(figsize=(14, 9), layout="constrained")
    (loss, rate), (quality, classes) = figure.subplots(2, 2)
    keys = list(dict.fromkeys(key for record in records for key in record))
    _plot(loss, records, [key for key in keys if key.startswith("loss")], "loss")
    _plot(rate, records, [key for key in keys if key.startswith("lr_")], "learning rate")
    _plot(quality, records, ["miou", "pixel_accuracy"], "validation")
    validated = [{"epoch": record["epoch"], **record["class_iou"]} for record in records if "class_iou" in record]
    _plot(classes, validated, [key for key in (validated[-1] if validated else {}) if key != "epoch"], "IoU per class")
    for axes in (quality, classes):
        axes.set_ylim(0, 1)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _plot(axes: Any, records: Sequence[dict[str, Any]], keys: Sequence[str], title: str) -> None:
    """Draw one line per key over the epochs that have it; beyond ten lines the dashes tell colours apart."""
    for number, key in enumerate(keys):
        points = [(record["epoch"], record[key]) for record in records if record.get(key) is not None]
        dashes = ("-", "--", ":")[number // 10 % 3]
        axes.plot(*zip(*points, strict=True), dashes, marker=".", label=key) if points else None
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    if len(axes.lines) > 6:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    elif axes.lines:
        axes.legend(fontsize=9)
