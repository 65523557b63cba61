"""Writing of the dataset to disk, in the Cityscapes layout."""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from demo.streets.scene import render

VERSION = 1  # to be increased when the images change, so that existing files are not mistaken for them
SPLITS = {"train": (0, "drawnburg"), "val": (1, "sketchstadt")}  # number for the seed, city
RECORD = "streets.json"


def generate(root: Path | str, *, train: int, val: int, height: int, width: int, seed: int) -> None:
    """Write `train` and `val` scenes of height x width pixels to `root`, unless they exist.

    Scene i of a split depends only on (seed, split, i). A new folder appears at `root` once it is complete.

    Raises:
        ValueError: other content at `root`.
    """
    root = Path(root).resolve()
    wanted = {"version": VERSION, "train": train, "val": val, "height": height, "width": width, "seed": seed}
    if _exists(root, wanted):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    empty = root.exists()  # see _exists; it stays, as it may be a mount point or the working directory
    with tempfile.TemporaryDirectory(dir=root if empty else root.parent, prefix=f".{root.name}.") as folder:
        unfinished = Path(folder, root.name)
        _write(unfinished, wanted)
        try:
            if empty:
                for name in ("leftImg8bit", "gtFine", RECORD):
                    (unfinished / name).rename(root / name)
            else:
                unfinished.rename(root)
        except OSError:
            if not _exists(root, wanted):  # else another process was faster
                raise


def _exists(root: Path, wanted: dict[str, int]) -> bool:
    if not root.exists():
        return False
    if root.is_dir() and all(path.name.startswith(".") for path in root.iterdir()):
        return False  # empty, but for .DS_Store, and what another process is writing or a killed one has left
    fix = "delete it or choose another dataset.root"
    try:
        found = json.loads((root / RECORD).read_text())
    except (OSError, ValueError):
        raise ValueError(f"{root} contains something other than generated streets; {fix}") from None
    if found != wanted:
        raise ValueError(f"{root} contains generated streets with {found}, not {wanted}; {fix}")
    count, total = len(list(root.glob("gtFine/*/*/[!.]*_labelIds.png"))), wanted["train"] + wanted["val"]
    if count != total:
        raise ValueError(f"{root} contains {count} of {total} generated streets; {fix}")
    return True


def _write(root: Path, wanted: dict[str, int]) -> None:
    for split, (number, city) in SPLITS.items():
        images, targets = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
        images.mkdir(parents=True)
        targets.mkdir(parents=True)
        for i in tqdm(range(wanted[split]), desc=f"generating streets ({split})", leave=False, disable=None):
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
