"""The checkpoints in a run's folder, `train.ckpt_dir`: their names, and finding the best and the last."""

import re
from pathlib import Path

from utils.config import Config, ModelConfig, TrainConfig
from utils.weights.checkpoint import Checkpoint, read_checkpoint
from utils.weights.zoo import WEIGHTS, find_weights

LAST = "last.pth"
INCLUDED = Path(__file__).parents[2] / "ckpt" / "icnet_resnet18_cityscapes.pth"  # the weights that ship


def run_name(model: ModelConfig) -> str:
    """Return the prefix of a network's checkpoint names; for the published network, that of the published file."""
    variant = "" if model.variant == "published" else f"_{model.variant}"
    return f"{model.name}{variant}_{model.backbone.replace('/', '_')}"


def best_name(name: str, *, epoch: int, miou: float) -> str:
    """Name a run's best checkpoint after the pattern of the published one."""
    return f"{name}_{epoch}_{miou:.3f}_best_model.pth"


def find_checkpoint(
    ckpt_path: str | None, ckpt_dir: str | Path, *, name: str = "", fallback: Path | None = None
) -> Path:
    """Return the given checkpoint (a path or a known name, see `find_weights`), or else the best one in the folder.

    Args:
        name: prefix of the configured network's checkpoints ("": none). They come before those of other networks; then
            checkpoints of your own runs come before downloaded ones, whatever their mIoU; then the highest mIoU wins.
        fallback: checkpoint to return if the folder has none.

    Raises:
        FileNotFoundError: there is none.
    """
    if ckpt_path is not None:
        return find_weights(ckpt_path, ckpt_dir)
    found = [(prefix == name, own, miou, path) for prefix, own, miou, path in _best_checkpoints(ckpt_dir)]
    if not found and fallback is not None:
        return fallback
    if not found:
        raise FileNotFoundError(
            f"no *_best_model.pth in {ckpt_dir}; train first, or set test.ckpt_path to a checkpoint"
        )
    return max(found)[-1]


def _best_checkpoints(folder: str | Path) -> list[tuple[str, bool, float, Path]]:
    """Find a folder's best checkpoints: prefix of the name, whether of a run of your own, mIoU, and path."""
    published = {known.file for known in WEIGHTS.values()}
    return [
        (match[1], path.name not in published, float(match[2]), path)
        for path in Path(folder).glob("*.pth")
        if (match := re.fullmatch(r"(.*)_\d+_(\d\.\d+)_best_model\.pth", path.name))
    ]


def choose_checkpoint(config: Config, config_file: Path | None) -> tuple[Path, str | None]:
    """Return the checkpoint that evaluation and inference use, and a note for the log if it is the included one.

    The included weights are used if neither a configuration file nor another run folder is given, and the folder has
    no best checkpoint.
    """
    folder = config.train.ckpt_dir
    fallback = INCLUDED if config_file is None and folder == TrainConfig().ckpt_dir else None
    path = find_checkpoint(config.test.ckpt_path, folder, name=run_name(config.model), fallback=fallback)
    if path is not fallback:
        return path, None
    last = Path(folder) / LAST
    own = f" ({last} has not been validated yet; test.ckpt_path={last} uses it)" if last.is_file() else ""
    return path, f"{folder} has no best checkpoint, using the included weights{own}"


def find_last(resume: str | None, ckpt_dir: str) -> Checkpoint | None:
    """Read the checkpoint to resume from: a given file, or for "auto" the folder's `last.pth` if there is one.

    Raises:
        FileExistsError: the run would overwrite another one's state, or start beside another one's best checkpoint.
    """
    last = Path(ckpt_dir) / LAST
    continues = resume is not None and (resume == "auto" or Path(resume).resolve() == last.resolve())
    if last.is_file() and not continues:
        raise FileExistsError(
            f"{last} is the state of a run; continue it with train.resume=auto, or set another train.ckpt_dir"
        )
    if resume is None or (resume == "auto" and not last.is_file()):
        for _, own, _, path in _best_checkpoints(ckpt_dir):
            if own:  # test.ckpt_path=null might prefer it to those of the new run
                raise FileExistsError(f"{path} is of an earlier run; delete or move it, or set another train.ckpt_dir")
        return None
    return read_checkpoint(last if resume == "auto" else resume)
