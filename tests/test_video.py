from pathlib import Path

import numpy as np
import pytest

from utils.video import VideoReader, writing_video


def frames(count: int, width: int, height: int) -> list[np.ndarray]:
    """Frames of one colour each, which a lossy codec keeps nearly as it is."""
    return [np.full((height, width, 3), (200, 30 * n, 60), np.uint8) for n in range(count)]


def write(path: Path, fps: float, pictures: list[np.ndarray]) -> Path:
    with writing_video(path, fps) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


@pytest.mark.parametrize(
    ("width", "height", "fps"), [(64, 48, 25), (64, 48, 12.5), (96, 64, 29.97), (64, 48, 1), (1280, 720, 60)]
)
def test_video_round_trip(tmp_path, width, height, fps):
    written = frames(5, width, height)
    video = VideoReader(write(tmp_path / "a.mp4", fps, written))
    assert video.fps == pytest.approx(fps, abs=0.01)
    assert video.frames == 5
    read = list(video)
    assert len(read) == 5
    for before, after in zip(written, read, strict=True):
        assert after.shape == (height, width, 3) and after.dtype == np.uint8
        assert np.abs(after.astype(int) - before).max() < 12  # in RGB order


@pytest.mark.parametrize(("width", "height"), [(63, 47), (64, 47), (63, 48)])
def test_video_of_odd_size_differs_by_no_more_than_a_row_and_a_column(tmp_path, width, height):
    """OpenCV writes even sizes only."""
    read = list(VideoReader(write(tmp_path / "a.mp4", 25, frames(3, width, height))))
    assert len(read) == 3
    assert abs(read[0].shape[0] - height) == height % 2 and abs(read[0].shape[1] - width) == width % 2
    assert np.abs(read[2].astype(int) - (200, 60, 60)).max() < 12


def test_video_is_in_place_only_when_it_is_whole(tmp_path):
    path = write(tmp_path / "a.mp4", 25, frames(2, 64, 48))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), writing_video(path, 25) as writer:
        writer.write(frames(1, 64, 48)[0])
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_video_whose_frames_change_size_is_no_silent_loss(tmp_path):
    with pytest.raises((ValueError, AssertionError)):
        write(tmp_path / "a.mp4", 25, frames(1, 64, 48) + frames(1, 64, 32))
    assert list(tmp_path.iterdir()) == []


def test_video_that_cannot_be_written_names_the_file_that_was_asked_for(tmp_path, capfd):
    with pytest.raises(ValueError, match=r"[/\\]a\.mp4 cannot be written"):
        write(tmp_path / "a.mp4", 1e9, frames(1, 64, 48))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"hello", b"half"])
def test_broken_video_is_named_and_nothing_else_is_printed(tmp_path, capfd, content):
    whole = write(tmp_path / "whole.mp4", 25, frames(3, 64, 48)).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read as a video"):
        VideoReader(tmp_path / "a.mp4")
    assert capfd.readouterr().err == ""  # OpenCV and FFmpeg have words of their own
