"""Cityscapes, and any dataset with the same directory layout."""

from pathlib import Path

from dataset.pairs import Pairs, Sample, match

SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def find_cityscapes(root: str | Path, split: str) -> Pairs:
    """Pair `root/leftImg8bit/{split}/{city}/*_leftImg8bit.png` with the `gtFine` masks, sorted by name.

    The labels of the test split are not public; its samples have no mask.

    Raises:
        ValueError: an unknown split, or one without images.
        FileNotFoundError: no dataset at `root`.
    """
    if split not in SPLITS:
        raise ValueError(f"Cityscapes has no split {split!r}; available: {', '.join(SPLITS)}")
    root = Path(root)
    if not (root / "leftImg8bit").is_dir():
        raise FileNotFoundError(
            f"no Cityscapes dataset at {root}: folder leftImg8bit not found; "
            "set train.cityscapes_root to the folder that contains leftImg8bit and gtFine"
        )
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for part in SPLITS[split]:
        found = _find(root / "leftImg8bit" / part, _IMAGE)
        if not found:
            raise ValueError(
                f"no images in {root / 'leftImg8bit' / part}: expected CITY/*{_IMAGE}; "
                f"extract leftImg8bit_trainvaltest.zip in {root}"
            )
        images |= found
        masks |= _find(root / "gtFine" / part, _MASK)
    if split == "test":
        return Pairs([Sample(image, None) for image in images.values()])
    return match(images, masks, expected=f"*{_MASK} in {root / 'gtFine'} (extract gtFine_trainvaltest.zip in {root})")


def _find(folder: Path, suffix: str) -> dict[str, Path]:
    """Find `CITY/FRAME{suffix}` in the folder of a split, sorted, except hidden files; keyed by SPLIT/CITY/FRAME."""
    paths = sorted(folder.glob(f"*/[!.]*{suffix}"))
    return {f"{folder.name}/{path.parent.name}/{path.name.removesuffix(suffix)}": path for path in paths}
