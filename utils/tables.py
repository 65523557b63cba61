"""Figures as tables for the terminal."""

from collections.abc import Sequence
from typing import Any

_TITLES = {
    "iou": "IoU %",
    "precision": "precision %",
    "recall": "recall %",
    "share": "share %",
    "iiou": "iIoU %",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "miiou": "mean iIoU",
    "category_miou": "mIoU of categories",
    "category_miiou": "mean iIoU of categories",
    "miou_running_mean": "mean of the running mIoU",
    "pixel_accuracy_running_mean": "of the running pixel accuracy",
}


def format_table(summary: dict[str, Any]) -> str:
    """Write the figures of `ConfusionMatrix.summary`, and those of categories and instances, if any, as tables."""
    columns = ("iou", "precision", "recall", "share", "iiou")
    lines = _table("class", {key: summary[f"class_{key}"] for key in columns if f"class_{key}" in summary})
    if "category_iou" in summary:
        found = {key: summary[f"category_{key}"] for key in ("iou", "iiou") if f"category_{key}" in summary}
        lines += ["", *_table("category", found), ""]
    absent = f", {summary['absent_classes']} absent classes left out" if summary["absent_classes"] else ""
    lines.append(f"{_means(summary, ['miou', 'pixel_accuracy'])} ({summary['images']} images{absent})")
    lines.append(_means(summary, ["mean_accuracy", "frequency_weighted_iou"]))
    if "category_miou" in summary:
        lines.append(_means(summary, ["category_miou", "miiou", "category_miiou"]))
    lines.append(f"as published, {_means(summary, ['miou_running_mean', 'pixel_accuracy_running_mean'])}")
    return "\n".join(lines)


def _means(summary: dict[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{_TITLES[key]} {100 * summary[key]:.2f} %" for key in keys if key in summary)


def _table(head: str, columns: dict[str, dict[str, float | None]]) -> list[str]:
    """Write a row for each name of the first column; `absent` for a class that does not occur, `-` for no figure."""
    names = next(iter(columns.values()))
    width = max(len(name) for name in [head, *names])
    rows = [f"  {head:<{width}}" + "".join(f"  {_TITLES[key]:>11}" for key in columns)]
    for name in names:
        cells = []
        for number, values in enumerate(columns.values()):
            value = values.get(name)
            cells.append(("-" if number else "absent") if value is None else f"{100 * value:.2f}")
        rows.append(f"  {name:<{width}}" + "".join(f"  {cell:>11}" for cell in cells))
    return rows


def branch_table(branches: dict[str, dict[str, Any]]) -> str:
    """Write the figures of each part of the cascade, by name, as a table."""
    rows = [f"  {'branches':<22}  {'mIoU %':>7}  {'pixel accuracy %':>16}  {'latency ms':>10}"]
    for name, part in branches.items():
        quality = [f"{100 * part[key]:.2f}" if key in part else "-" for key in ("miou", "pixel_accuracy")]
        rows.append(f"  {name:<22}  {quality[0]:>7}  {quality[1]:>16}  {part['speed']['latency_median_ms']:>10.1f}")
    return "\n".join(rows)
