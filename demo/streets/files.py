"""The set on the disk: written once, all or nothing, in the layout of Cityscapes."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from demo.streets.scene import render

VERSION = 1  # raise it when the pictures change, so that old files are not taken for new ones
SPLITS = {"train": (0, "drawnburg"), "val": (1, "sketchstadt")}  # number for the seed, city
RECORD = "streets.json"


def generate(root: Path | str, *, train: int, val: int, height: int, width: int, seed: int) -> bool:
    """Write `train` and `val` scenes of height x width pixels below `root`, in the layout of Cityscapes.

    Scene i of a split depends on (seed, split, i) alone. The set appears at `root` all at once, when
    complete; let one process at a time generate it. Returns False if the same set is there already.

    Raises:
        ValueError: something else is there; a size below 64 x 128; a negative number.
    """
    root = Path(root).expanduser().resolve()
    wanted = {"version": VERSION, "train": train, "val": val, "height": height, "width": width, "seed": seed}
    if min(train, val, seed) < 0 or height < 64 or width < 128:
        raise ValueError(f"cannot generate streets with {wanted}: sizes start at 64 x 128, numbers at 0")
    if _is_there(root, wanted):
        return False
    unfinished = root.with_name(f".{root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed
    try:
        _write_all(unfinished, wanted)
        if root.exists():
            root.rmdir()  # empty, or _is_there had refused it
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def _is_there(root: Path, wanted: dict[str, int]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    mend = "delete it or give another dataset.root"
    record = root / RECORD
    if not record.is_file():
        raise ValueError(f"{root} holds something other than generated streets; {mend}")
    try:
        found = json.loads(record.read_text())
    except ValueError:
        raise ValueError(f"{record} is not readable JSON; {mend}") from None
    if found != wanted:
        raise ValueError(f"{root} holds generated streets with {found}, not {wanted}; {mend}")
    count, total = len(list(root.glob("gtFine/*/*/*_labelIds.png"))), wanted["train"] + wanted["val"]
    if count != total:
        raise ValueError(f"{root} holds {count} of {total} generated streets; {mend}")
    return True


def _write_all(root: Path, wanted: dict[str, int]) -> None:
    for split, (number, city) in SPLITS.items():
        images, targets = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
        images.mkdir(parents=True)
        targets.mkdir(parents=True)
        for i in tqdm(range(wanted[split]), desc=f"drawing streets for {split}", leave=False, disable=None):
            rng = np.random.default_rng((wanted["seed"], number, i))
            image, label_ids, instance_ids = render(rng, height=wanted["height"], width=wanted["width"])
            name = f"{city}_{i:06d}_000019"  # Cityscapes labels the 20th frame of each sequence
            for path, array in (
                (images / f"{name}_leftImg8bit.png", image),
                (targets / f"{name}_gtFine_labelIds.png", label_ids),
                (targets / f"{name}_gtFine_instanceIds.png", instance_ids),
            ):
                Image.fromarray(array).save(path, compress_level=1)
    (root / RECORD).write_text(json.dumps(wanted) + "\n")
