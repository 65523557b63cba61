"""Submissions to the Cityscapes test server."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from dataset.cityscapes import find_cityscapes
from dataset.labels import cityscapes_classes, cityscapes_train_ids
from dataset.segmentation import SegmentationDataset
from tests.conftest import CLASSES
from utils.evaluation.submission import Submission

NAME = "berlin_000000_000019_pred.png"


@pytest.fixture
def data(cityscapes_data):
    return SegmentationDataset(
        find_cityscapes(cityscapes_data, "test").complete(), cityscapes_classes(), cityscapes_train_ids()
    )


@pytest.fixture
def written(data, tmp_path):
    submission = Submission(tmp_path / "out", data)
    submission.write(0, np.resize(np.append(np.arange(19), 255), (32, 64)).astype(np.uint8))
    return submission


def test_zip_file_of_label_ids_at_the_original_size(written, tmp_path):
    archive = written.finish()
    with Image.open(tmp_path / "out" / NAME) as image:
        assert (image.mode, image.size) == ("L", (64, 32))
        ids = np.asarray(image).ravel()[:20].tolist()
    assert ids == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33, 0]
    with zipfile.ZipFile(archive) as content:
        assert content.namelist() == [NAME]
        assert content.read(NAME) == (tmp_path / "out" / NAME).read_bytes()


def test_temporary_files_of_killed_processes_are_ignored(data, written, tmp_path):
    (tmp_path / "out" / ".0123abcd.part.png").write_bytes(b"half")
    with zipfile.ZipFile(Submission(tmp_path / "out", data).finish()) as content:
        assert content.namelist() == [NAME]


def test_a_second_submission_overwrites_the_first(written, data, tmp_path):
    written.finish()
    again = Submission(tmp_path / "out", data)
    again.write(0, np.zeros((32, 64), np.uint8))
    again.finish()
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out" / NAME)))) == {7}


def test_a_missing_prediction_is_an_error(written, tmp_path):
    (tmp_path / "out" / NAME).unlink()
    with pytest.raises(FileNotFoundError, match=NAME):
        written.finish()
    assert not (tmp_path / "out" / "submission.zip").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(data, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match=r"out is a file; set test\.submission to another folder"):
        Submission(tmp_path / "out", data)


def test_files_of_other_images_are_refused(data, tmp_path):
    (tmp_path / "out").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "out" / "other.png")
    with pytest.raises(ValueError, match=r"test\.submission.*other\.png"):
        Submission(tmp_path / "out", data)


def test_only_cityscapes_data_can_be_submitted(data, tmp_path):
    with pytest.raises(ValueError, match="requires data in the Cityscapes layout"):
        Submission(tmp_path, SegmentationDataset(data.samples, CLASSES, data.train_ids))
    data.samples[0].image.rename(data.samples[0].image.with_name("berlin_1_leftImg8bit.png"))
    renamed = find_cityscapes(data.samples[0].image.parents[3], "test").complete()
    with pytest.raises(ValueError, match=r"berlin_1_leftImg8bit\.png"):
        Submission(tmp_path, SegmentationDataset(renamed, data.classes, data.train_ids))


def test_an_earlier_zip_file_does_not_outlive_the_start_of_the_next(written, data, tmp_path):
    written.finish()
    Submission(tmp_path / "out", data)
    assert not (tmp_path / "out" / "submission.zip").exists()
