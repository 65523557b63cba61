"""Submissions to the Cityscapes test server: a zip file of one-channel PNGs with label ids."""

import re
import zipfile
from pathlib import Path

import numpy as np

from dataset.labels import cityscapes_label_ids
from dataset.segmentation import SegmentationDataset
from utils.io.files import check_folder, replacing, save_image


class Submission:
    """Files `{city}_{sequence}_{frame}_pred.png` at the images' original size, and a zip file of them.

    Args:
        folder: may contain an earlier submission of the same images, which is overwritten.
        data: in the Cityscapes layout, labelled or not.

    Raises:
        ValueError: other data, or a folder that is not writable or contains PNGs of other images.
    """

    def __init__(self, folder: Path, data: SegmentationDataset) -> None:
        if not data.classes.categories:
            raise ValueError("test.submission requires data in the Cityscapes layout; set test.submission=null")
        check_folder(folder, "test.submission")
        self.folder = folder
        self.archive = folder / "submission.zip"
        self.label_ids = cityscapes_label_ids()
        self.names = [_name(sample.image) for sample in data.samples]
        existing = {path.name for path in folder.glob("[!.]*.png")}  # without temporary files of killed processes
        if foreign := sorted(existing - set(self.names)):
            raise ValueError(
                f"test.submission: {folder} contains {foreign[0]}, which is not an image of this split; choose another "
                "folder"
            )
        self.archive.unlink(missing_ok=True)

    def write(self, index: int, pred: np.ndarray) -> None:
        """Write the prediction for image `index`, given as class indices (H, W) uint8."""
        save_image(self.folder / self.names[index], self.label_ids[pred])

    def finish(self) -> Path:
        """Write the zip file; raises FileNotFoundError if a prediction is missing."""
        with replacing(self.archive) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name in self.names:  # stored: PNGs are compressed already
                archive.write(self.folder / name, name)
        return self.archive


def _name(image: Path) -> str:
    """Return the file name that the server and the official script expect: it starts with city, sequence and frame."""
    match = re.match(r"[^_]+_\d{6}_\d{6}(?=_)", image.name)
    if match is None:
        raise ValueError(f"test.submission: {image.name} is not named CITY_SEQUENCE_FRAME_leftImg8bit.png")
    return f"{match[0]}_pred.png"
