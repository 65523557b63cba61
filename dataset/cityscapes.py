"""Cityscapes, and whatever lies on the disk as Cityscapes does."""

from pathlib import Path

from dataset.segmentation import Sample

SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def find_cityscapes(root: str | Path, split: str) -> list[Sample]:
    """List `root/leftImg8bit/{split}/{city}/*_leftImg8bit.png` with their `gtFine` label files, sorted by name.

    The labels of the split "test" are not public; its samples have no mask.

    Raises:
        ValueError: an unknown split, an empty dataset, images without labels.
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
    samples = [sample for part in SPLITS[split] for sample in _find_part(root, part)]
    missing = [str(s.mask) for s in samples if s.mask is not None and not s.mask.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(samples)} images in {root} have no label file; "
            f"the first: {', '.join(missing[:3])}; unpack gtFine_trainvaltest.zip beside leftImg8bit"
        )
    return samples


def _find_part(root: Path, part: str) -> list[Sample]:
    images = sorted((root / "leftImg8bit" / part).glob(f"*/*{_IMAGE}"))
    if not images:
        raise ValueError(
            f"no images in {root / 'leftImg8bit' / part}: expected CITY/*{_IMAGE}; "
            "unpack leftImg8bit_trainvaltest.zip there"
        )
    if part == "test":
        return [Sample(image, None) for image in images]
    folder = root / "gtFine" / part
    return [Sample(i, folder / i.parent.name / i.name.replace(_IMAGE, _MASK)) for i in images]
