"""What an evaluation leaves in its folder."""

import platform
from collections.abc import Sequence
from logging import Logger
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from dataset.images import open_rgb
from dataset.segmentation import SegmentationDataset
from utils.evaluation.instances import InstanceScores, has_instances
from utils.evaluation.measure import Output, speed_lines
from utils.evaluation.report import write_confusion, write_worst
from utils.evaluation.submission import ARCHIVE, Submission
from utils.inference.segmenter import Segments
from utils.io.drawing import overlay, save_image, save_labels
from utils.io.files import check_folder, write_json
from utils.io.sources import output_names
from utils.metrics import ConfusionMatrix, branch_table, category_summary, format_table


class Results:
    """Write pictures, tables, figures and a submission; `metrics.json` comes last, so where it is, all is.

    Args:
        folder: where all but the submission goes; figures of an earlier run are removed.
        data: the split; its files of instances are looked at.
        save: "none", "pred" (palette PNGs of class indices) or "overlay".
        submission: a folder for the files that the test server takes; None: none.

    Attributes:
        outputs: what takes each prediction.

    Raises:
        ValueError: a folder that cannot be written into, data that cannot be submitted, instances that do not fit.
    """

    def __init__(self, folder: Path, data: SegmentationDataset, *, save: str, submission: Path | None = None) -> None:
        check_folder(folder, "train.ckpt_dir")
        self.folder, self.data = folder, data
        self.names = output_names([sample.image for sample in data.samples])
        self.instances = InstanceScores(data) if has_instances(data) else None
        self.submission = None if submission is None else Submission(submission, data)
        self.outputs = picture_writers(save, folder, data, self.names)
        self.outputs += [] if self.instances is None else [self.instances.update]
        self.outputs += [] if self.submission is None else [self.submission.write]
        stale = [folder / name for name in ("metrics.json", "confusion.csv", "confusion.png")]
        for path in [*stale, *([] if submission is None else [submission / ARCHIVE])]:
            path.unlink(missing_ok=True)

    def merge(self) -> None:
        """Take in what the other processes have; all of them must ask."""
        if self.instances is not None:
            self.instances.merge()

    def figures(self, confusion: ConfusionMatrix) -> dict[str, Any]:
        """Return all that the counts tell, as plain numbers; of a split without labels, nothing."""
        if not confusion.images:
            return {}
        summary, categories = confusion.summary(self.data.classes.names), self.data.classes.categories
        if categories:
            summary |= category_summary(confusion.counts, categories)
        if self.instances is not None:
            summary |= self.instances.summary(confusion.counts)
        return summary

    def write(self, confusion: ConfusionMatrix, figures: dict[str, Any], segment: Segments, log: Logger) -> None:
        """Write everything, once all images are through; one process does it for all.

        Args:
            figures: for `metrics.json`, with `speed` and perhaps `branches` among them.
            segment: predicts the worst images again.
        """
        if "branches" in figures:
            log.info(branch_table(figures["branches"]))
        if confusion.images:
            log.info(format_table(figures))
            write_confusion(self.folder, confusion.counts, self.data.classes.names)
            worst = self.folder / "worst"
            write_worst(worst, confusion.image_iou(), data=self.data, segment=segment, names=self.names)
        log.info(speed_lines(figures["speed"]))
        if self.submission is not None:
            log.info(f"submission: {self.submission.finish()}, {len(self.data)} files, checked")
        write_json(self.folder / "metrics.json", figures)
        log.info(f"figures: {self.folder / 'metrics.json'}; confusion matrix, worst images and predictions beside it")


def picture_writers(kind: str, folder: Path, data: SegmentationDataset, names: Sequence[str]) -> list[Output]:
    """Return what writes `{name}_pred.png` for the kind "pred", `{name}_overlay.png` for "overlay"."""

    def pred(index: int, labels: np.ndarray) -> None:
        save_labels(folder / f"{names[index]}_pred.png", labels, data.classes)

    def laid_over(index: int, labels: np.ndarray) -> None:
        image = np.asarray(open_rgb(data.samples[index].image))
        save_image(folder / f"{names[index]}_overlay.png", overlay(image, labels, data.classes))

    writers: dict[str, list[Output]] = {"none": [], "pred": [pred], "overlay": [laid_over]}
    return writers[kind]


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda or "none",
    }
