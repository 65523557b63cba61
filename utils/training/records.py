"""The logs of a training run: train.log, train.jsonl, TensorBoard events and curves.png."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from textwrap import indent
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dataset.segmentation import SegmentationDataset
from utils import distributed
from utils.cli import open_log
from utils.io.drawing import colorize, grid
from utils.io.files import locked, remove_leftovers, replacing
from utils.settings import flatten

SHOWN = 3  # validation images in TensorBoard


class Records:
    """A run's logs in the terminal and in its folder; with several processes, only the first one writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = open_log(quiet=distributed.rank() > 0)
        self._memory = MemoryHandler(1000, flushLevel=logging.CRITICAL, flushOnClose=False)  # until train.log is open
        self.log.addHandler(self._memory)
        self.started = time.strftime("%Y-%m-%d %H:%M:%S")
        self.writer: SummaryWriter | None = None
        self.shown: set[int] = set()  # validation images of this process

    @contextlib.contextmanager
    def writing(self, *, first: int, config: str) -> Iterator[None]:
        """Write files, after everything is built, so that a run that cannot start leaves none.

        TensorBoard hides what an interrupted run wrote for the iteration `first` and later ones.

        Raises:
            BlockingIOError: another run writes to the folder.
        """
        if distributed.rank() > 0:
            yield
            return
        with locked(self.folder / ".lock"):
            self._begin(first=first, config=config)
            yield

    def _begin(self, *, first: int, config: str) -> None:
        remove_leftovers(self.folder)
        self.writer = SummaryWriter(self.folder, purge_step=first)
        self.writer.add_text("config", indent(config, "    "))  # a Markdown code block
        file = logging.FileHandler(self.folder / "train.log", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._memory.setTarget(file)
        self._memory.flush()
        self.log.removeHandler(self._memory)
        self.log.addHandler(file)

    def show_prediction(self, dataset: SegmentationDataset, iteration: int, index: int, pred: Tensor) -> None:
        """Show image, label and prediction (H, W) side by side in TensorBoard, for the first few images."""
        if self.writer is not None and (index in self.shown or len(self.shown) < SHOWN):
            self.shown.add(index)
            sample = dataset[index]
            maps = [colorize(labels.cpu().numpy(), dataset.classes) for labels in (sample["target"], pred)]
            image = grid([sample["image"].permute(1, 2, 0).numpy(), *maps], columns=3)
            self.writer.add_image(f"validation/{index}", image, iteration, dataformats="HWC")

    def log_epoch(self, record: dict[str, Any], *, epochs: int, best: bool) -> None:
        """Log the metrics of an epoch, with its `epoch`, last `iteration` and `seconds`."""
        left = tqdm.format_interval((epochs - record["epoch"]) * record["seconds"])
        line = f"epoch {record['epoch']:3}/{epochs}  loss {record['loss']:.4f}"
        if "miou" in record:
            mark = " (best)" if best else ""
            line += f"  mIoU {record['miou']:.4f}{mark}  pixel accuracy {record['pixel_accuracy']:.4f}"
        self.log.info(f"{line}  {record['seconds']:.1f} s, {left} left")
        if distributed.rank() == 0:
            path = self.folder / "train.jsonl"
            cut = path.is_file() and not path.read_bytes().endswith(b"\n")  # last line cut off by a kill or a full disk
            with path.open("a", encoding="utf-8") as file:
                file.write(cut * "\n" + json.dumps({"run": self.started, **record}) + "\n")
        if self.writer is not None:
            for key, value in flatten(record).items():
                if isinstance(value, float):
                    self.writer.add_scalar(key.replace(".", "/", 1), value, record["iteration"])

    def finish(self) -> None:
        """Plot the curves of the whole run."""
        if self.writer is not None:
            self.writer.close()
            if (path := self.folder / "train.jsonl").is_file():  # not if a finished run was resumed in another folder
                draw_curves(read_json_lines(path), self.folder / "curves.png")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the records of a `train.jsonl`, skipping a line cut short by a kill."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot the records of `train.jsonl` over the epochs, as a PNG; of a repeated epoch the last record counts."""
    start = max((number for number, record in enumerate(records) if record["epoch"] == 1), default=0)
    by_epoch = {record["epoch"]: flatten(record) for record in records[start:]}  # without an earlier run in the folder
    records = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    keys = list(dict.fromkeys(key for record in records for key in record))
    panels = {
        "loss": (("loss",), (None, None)),
        "learning rate": (("lr_",), (None, None)),
        "validation": (("miou", "pixel_accuracy"), (0, 1)),
        "IoU per class": (("class_iou.",), (0, 1)),
    }
    figure = Figure(figsize=(14, 9), layout="constrained")
    for axes, (title, (prefixes, limits)) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for number, key in enumerate(key for key in keys if key.startswith(prefixes)):
            points = [(record["epoch"], record[key]) for record in records if record.get(key) is not None]
            if points:
                dashes = ("-", "--", ":")[number // 10 % 3]  # the colours repeat after ten lines
                label = " " + key.removeprefix("class_iou.")  # the legend leaves out what begins with an underscore
                axes.plot(*zip(*points, strict=True), dashes, marker=".", label=label)
        axes.set(title=title, xlabel="epoch", ylim=limits)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
