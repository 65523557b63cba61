"""Files for the test server of Cityscapes: label ids in one-channel PNGs, checked, in a zip."""

import re
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.images import open_image, read_header
from dataset.labels import cityscapes_label_ids
from dataset.segmentation import SegmentationDataset
from utils.io.files import replacing

ARCHIVE = "submission.zip"


class Submission:
    """Write `{city}_{sequence}_{frame}_pred.png` for each image, at its own size, then `submission.zip` of them all.

    Args:
        folder: may hold the files of an earlier submission of the same images, which are replaced.
        data: in the layout of Cityscapes, labelled or not.

    Raises:
        ValueError: other data, or other PNGs in the folder.
    """

    def __init__(self, folder: Path, data: SegmentationDataset) -> None:
        if not data.classes.categories:
            raise ValueError("test.submission is for data in the layout of Cityscapes; leave it out")
        self.folder = folder
        self.samples = data.samples
        self.label_ids = cityscapes_label_ids()
        self.names = [_name(sample.image) for sample in data.samples]
        foreign = sorted(_pictures(folder) - set(self.names))
        if foreign:
            raise ValueError(f"test.submission: {folder} holds {foreign[0]}, which is of other images; name another")

    def write(self, index: int, pred: np.ndarray) -> None:
        """Write image `index`, predicted as the class indices (H, W) uint8."""
        with replacing(self.folder / self.names[index]) as temporary:
            Image.fromarray(self.label_ids[pred]).save(temporary)

    def finish(self) -> Path:
        """Read all files again, check them, and make the zip.

        Raises:
            ValueError: a file too few or too many, of another size or kind, or with an id that is not evaluated.
        """
        self.check()
        with replacing(self.folder / ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name in self.names:  # PNGs do not get smaller
                archive.write(self.folder / name, name)
        return self.folder / ARCHIVE

    def check(self) -> None:
        """Check number, names, sizes, kind and ids of the files; see `finish`."""
        there = _pictures(self.folder)
        odd = sorted(there ^ set(self.names))
        if odd:
            raise ValueError(f"{self.folder}: {odd[0]} is {'not wanted' if odd[0] in there else 'missing'}")
        allowed = np.zeros(256, dtype=bool)
        allowed[self.label_ids] = True
        for name, sample in zip(self.names, self.samples, strict=True):
            image, (size, _) = open_image(self.folder / name), read_header(sample.image)
            if image.mode != "L" or image.size != size:
                raise ValueError(f"{self.folder / name} is {image.size} of mode {image.mode!r}, not {size} of mode 'L'")
            ids = np.bincount(np.asarray(image).ravel(), minlength=256) > 0
            if (ids & ~allowed).any():
                raise ValueError(f"{self.folder / name} holds the id {np.flatnonzero(ids & ~allowed)[0]}, of no class")


def _pictures(folder: Path) -> set[str]:
    """Names of the PNGs in a folder, without those that are being written or that a killed process left."""
    return {path.name for path in folder.glob("*.png") if not path.name.startswith(".")}


def _name(image: Path) -> str:
    """Name the file as the server and the official script look for it: city, sequence and frame come first."""
    match = re.match(r"[^_]+_\d{6}_\d{6}(?=_)", image.name)
    if match is None:
        raise ValueError(f"test.submission: {image.name} is not named CITY_SEQUENCE_FRAME_leftImg8bit.png")
    return f"{match[0]}_pred.png"
