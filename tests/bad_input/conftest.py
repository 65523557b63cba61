"""Scripts that must refuse what they are given."""

import re
from pathlib import Path

import pytest

from dataset.labels import cityscapes_classes, class_table
from models import ICNet
from utils.weights.checkpoint import Checkpoint

SCRIPTS = ("train", "evaluate", "inference")
FIGURES = r"/(metrics\.json|confusion\.(csv|png)|worst/\d\d_.*\.png)$"


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all files, by name."""
    stats = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.fixture
def refused(run_script, tmp_path):
    """Return a function that runs a script, makes sure that it refuses in one line, and returns that line.

    `logs` lets files in `ckpt_dir` pass that a run keeps of itself until then, and the figures of an earlier one go.
    """

    def check(name: str, *arguments: object, logs: bool = False) -> str:
        before = files(tmp_path)
        result = run_script(name, *arguments)
        assert result.code == 2, result
        lines = result.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), result.err
        assert "Traceback" not in result.out and ".part" not in lines[0]
        after = files(tmp_path)
        new = [path for path in after if after[path] != before.get(path)]
        kept = ("train.log", "last.pth", ".lock", "_pred.png") if logs else ()
        assert not [path for path in new if not (logs and (path.endswith(kept) or "tfevents" in path))], new
        assert not [path for path in before if path not in after and not (logs and re.search(FIGURES, path))]
        return lines[0]

    return check


def has(line: str, *words: object) -> bool:
    missing = [str(word) for word in words if str(word) not in line]
    assert not missing, f"{missing} not in: {line}"
    return True


def arguments(script: str, folder_data) -> list[str]:
    extra = ["--input", str(folder_data.root / "val")] if script == "inference" else []
    return ["--config", str(folder_data.config), *extra]


def untrained(classes: int) -> Checkpoint:
    table = cityscapes_classes() if classes == 19 else class_table([f"c{n}" for n in range(classes)], ())
    network = ICNet(num_classes=classes, backbone="resnet18")
    return Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=table)
