"""What a training run leaves for people to look at: its log, its figures, its curves."""

import time
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from dataset.labels import ClassTable
from utils import runtime
from utils.files import remove_leftovers
from utils.logger import append_json_line, keep_log, open_log, read_json_lines
from utils.training.board import Board
from utils.training.curves import draw_curves
from utils.visualize import colorize, grid


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
