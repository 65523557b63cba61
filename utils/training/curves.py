"""The curves of a training run as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.files import replacing


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
