"""The files that an evaluation writes."""

from logging import Logger
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images import open_rgb
from dataset.segmentation import SegmentationDataset
from utils import distributed
from utils.config import TestConfig
from utils.evaluation.instances import InstanceScores, find_instances
from utils.evaluation.report import branch_table, remove_worst, speed_lines, write_confusion, write_worst
from utils.evaluation.submission import Submission
from utils.inference.segmenter import Segmenter
from utils.io.drawing import overlay
from utils.io.files import check_folder, save_image, save_labels, write_json
from utils.io.sources import output_names
from utils.metrics import ConfusionMatrix, category_summary, format_table


class Results:
    """Images, tables, metrics and submission of one evaluation; `metrics.json` is written last and marks it complete.

    Args:
        folder: for everything but the submission; the metrics and worst images of an earlier evaluation are deleted.
        test: what to save (`test.save`), and the folder of the submission (`test.submission`).

    Raises:
        ValueError: a folder that is not writable, data that cannot be submitted, or invalid instance files.
    """

    def __init__(self, folder: Path, data: SegmentationDataset, test: TestConfig) -> None:
        check_folder(folder, "train.ckpt_dir")
        self.folder, self.data, self.save = folder, data, test.save
        self.names = output_names([sample.image for sample in data.samples])
        instance_files = find_instances(data)
        self.instances = InstanceScores(data, instance_files) if instance_files else None
        self.submission = None if test.submission is None else Submission(Path(test.submission), data)
        for name in ("metrics.json", "confusion.csv", "confusion.png"):
            (folder / name).unlink(missing_ok=True)
        remove_worst(folder / "worst")

    def add(self, index: int, labels: np.ndarray) -> None:
        """Process the label map (H, W) uint8 predicted for image `index`; thread-safe."""
        if self.save == "pred":
            save_labels(self.folder / f"{self.names[index]}_pred.png", labels, self.data.classes)
        elif self.save == "overlay":
            image = np.asarray(open_rgb(self.data.samples[index].image))
            save_image(self.folder / f"{self.names[index]}_overlay.png", overlay(image, labels, self.data.classes))
        if self.instances is not None:
            self.instances.update(index, labels)
        if self.submission is not None:
            self.submission.write(index, labels)

    def write(self, confusion: ConfusionMatrix, metrics: dict[str, Any], segmenter: Segmenter, log: Logger) -> None:
        """Report and write everything; every process must call this, only the first one writes.

        Args:
            metrics: for `metrics.json`, from `measure`, optionally with `branches`; category and instance metrics are
                added.
            segmenter: used to predict the worst images again.
        """
        if self.instances is not None:
            self.instances.merge()
        if distributed.rank() > 0:
            return
        if "branches" in metrics:
            log.info(branch_table(metrics["branches"]))
        if confusion.by_image:
            if self.data.classes.categories:
                metrics = metrics | category_summary(confusion.counts, self.data.classes.categories)
            if self.instances is not None:
                metrics = metrics | self.instances.summary(confusion.counts)
            log.info(format_table(metrics))
            write_confusion(self.folder, confusion.counts, self.data.classes.names)
            write_worst(self.folder / "worst", confusion.image_iou(), self.data, segmenter, self.names)
        log.info(speed_lines(metrics["speed"]))
        if self.submission is not None:
            log.info(f"submission: {self.submission.finish()}, {len(self.data)} files")
        write_json(self.folder / "metrics.json", metrics)
        written = ["confusion matrix", "worst images"] if confusion.by_image else []
        written += [] if self.save == "none" else ["predictions"]
        log.info(f"in {self.folder}: {', '.join(['metrics.json', *written])}")
