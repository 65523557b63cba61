"""The checkpoints in a run's folder, `train.ckpt_dir`: how they are called, and how they are found again."""

import re
from pathlib import Path

from utils.config import ModelConfig
from utils.weights.checkpoint import Checkpoint, read_checkpoint
from utils.weights.zoo import find_weights

LAST = "last.pth"  # what training goes on from


def run_name(model: ModelConfig) -> str:
    """How the names of a network's checkpoints begin, as the published file's does."""
    variant = "" if model.variant == "published" else f"_{model.variant}"
    return f"{model.name}{variant}_{model.backbone}"


def best_name(name: str, *, epoch: int, miou: float) -> str:
    """Name the best weights of a run, as the published file is."""
    return f"{name}_{epoch}_{miou:.3f}_best_model.pth"


def find_checkpoint(ckpt_path: str | None, ckpt_dir: str, *, name: str) -> Path:
    """Return the checkpoint to use: the named one (`zoo.find_weights`), else the best in the folder.

    Args:
        name: how the file names of the configured network begin; others count only where it has none.

    Raises:
        FileNotFoundError: there is none.
    """
    if ckpt_path is not None:
        return find_weights(ckpt_path, ckpt_dir)
    found = [
        (match[1] == name, float(match[2]), path)
        for path in Path(ckpt_dir).glob("*.pth")
        if (match := re.fullmatch(r"(.*)_\d+_(\d\.\d+)_best_model\.pth", path.name))
    ]
    if not found:
        raise FileNotFoundError(
            f"no *_best_model.pth in {ckpt_dir}; train first, or set test.ckpt_path to a checkpoint"
        )
    return max(found)[2]


def find_last(resume: str | None, ckpt_dir: str) -> Checkpoint | None:
    """Read the checkpoint to go on from: the one that is named, for "auto" the folder's `last.pth` if it has one."""
    last = Path(ckpt_dir) / LAST
    if resume is None or (resume == "auto" and not last.is_file()):
        return None
    return read_checkpoint(last if resume == "auto" else resume)
