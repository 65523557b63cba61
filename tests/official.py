"""The official evaluator of cityscapesscripts, for comparison."""

from pathlib import Path

import numpy as np
import pytest

from dataset.labels import cityscapes_classes

PAIRS = {
    "class_iou": "classScores",
    "class_iiou": "classInstScores",
    "category_iou": "categoryScores",
    "category_iiou": "categoryInstScores",
    "miou": "averageScoreClasses",
    "miiou": "averageScoreInstClasses",
    "category_miou": "averageScoreCategories",
    "category_miiou": "averageScoreInstCategories",
}


def official_scores(preds: list[Path], labels: list[Path], monkeypatch: pytest.MonkeyPatch) -> dict:
    """Score files of label ids, with `*_instanceIds.png` next to the labels."""
    module = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # removed in NumPy 2.4
    for name, value in {"quiet": True, "JSONOutput": False}.items():
        monkeypatch.setattr(module.args, name, value)
    return module.evaluateImgLists(list(map(str, preds)), list(map(str, labels)), module.args)


def assert_same(ours: dict, official: dict) -> None:
    """Compare all metrics to 1e-6; an undefined mean is NaN there and 0 here."""
    for key, name in PAIRS.items():
        theirs = official[name]
        if isinstance(ours[key], float):
            assert ours[key] == pytest.approx(theirs if theirs == theirs else 0.0, abs=1e-6), key
            continue
        known = set(cityscapes_classes().names if key.startswith("class") else cityscapes_classes().categories)
        expected = {name: value for name, value in theirs.items() if name in known and value == value}
        found = {name: value for name, value in ours[key].items() if value is not None}
        assert found == pytest.approx(expected, abs=1e-6), key
