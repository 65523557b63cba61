"""Cityscapes, and whatever lies on the disk as Cityscapes does."""

from pathlib import Path

from dataset.pairs import Pairs, Sample

SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def find_cityscapes(root: str | Path, split: str) -> Pairs:
    """Pair `root/leftImg8bit/{split}/{city}/*_leftImg8bit.png` with their `gtFine` label files, sorted by name.

    The labels of the split "test" are not public; its samples have no mask.

    Raises:
        ValueError: an unknown split, an empty dataset.
        FileNotFoundError: no dataset at `root`.
    """
    if split not in SPLITS:
        raise ValueError(f"Cityscapes has no split {split!r}; there are: {', '.join(SPLITS)}")
    root = Path(root)
    if not (root / "leftImg8bit").is_dir():
        raise FileNotFoundError(
            f"no Cityscapes at {root}: it has no folder leftImg8bit; "
            "set train.cityscapes_root to the folder that holds leftImg8bit and gtFine"
        )
    images: dict[str, Path] = {}  # by split, city and frame
    masks: dict[str, Path] = {}
    for part in SPLITS[split]:
        images |= _find(root / "leftImg8bit" / part, _IMAGE)
        masks |= _find(root / "gtFine" / part, _MASK)
        if not any(name.startswith(f"{part}/") for name in images):
            raise ValueError(
                f"no images in {root / 'leftImg8bit' / part}: expected CITY/*{_IMAGE}; "
                "unpack leftImg8bit_trainvaltest.zip there"
            )
    if split == "test":
        return Pairs([Sample(image, None) for image in images.values()])
    return Pairs(
        samples=[Sample(image, masks[name]) for name, image in images.items() if name in masks],
        images=[image for name, image in images.items() if name not in masks],
        masks=[mask for name, mask in masks.items() if name not in images],
        fault=f"in {root} have no *{_MASK} in gtFine; unpack gtFine_trainvaltest.zip beside leftImg8bit",
    )


def _find(folder: Path, suffix: str) -> dict[str, Path]:
    """Find `CITY/FRAME{suffix}` in the folder of a split, sorted, by SPLIT/CITY/FRAME."""
    paths = sorted(folder.glob(f"*/*{suffix}"))
    return {f"{folder.name}/{path.parent.name}/{path.name.removesuffix(suffix)}": path for path in paths}
