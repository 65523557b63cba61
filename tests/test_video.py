from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.io.video import Span, VideoReader, writing_video


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


def test_written_colours_are_those_that_others_read(tmp_path):
    write(tmp_path / "red.mp4", 10, [np.full((48, 64, 3), (220, 40, 60), np.uint8)])
    capture = cv2.VideoCapture(str(tmp_path / "red.mp4"))
    there, frame = capture.read()
    capture.release()
    assert there and np.abs(frame.mean((0, 1)) - (60, 40, 220)).max() < 12  # OpenCV gives blue first


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


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A video of 20 frames at 10 frames/s, each as bright as its number says."""
    path = tmp_path_factory.mktemp("video") / "count.mp4"
    return write(path, 10, [np.full((48, 64, 3), 12 * number, np.uint8) for number in range(20)])


@pytest.mark.parametrize(
    ("span", "numbers"),
    [
        ({}, range(20)),
        ({"every": 7}, [0, 7, 14]),
        ({"every": 100}, [0]),
        ({"start": 0.5, "end": 1.0}, [5, 6, 7, 8, 9]),
        ({"start": 1.45, "every": 2}, [15, 17, 19]),
        ({"end": 0.25}, [0, 1, 2]),
        ({"start": 1.9, "end": 99}, [19]),
        ({"end": 1, "every": 9}, [0, 9]),
        ({"every": 7}, [0, 7, 14]),
    ],
)
def test_span(counting, span, numbers):
    video = VideoReader(counting, span=Span(**span))
    assert video.frames == len(numbers) and video.fps == 10 / span.get("every", 1)
    read = [(round(frame.mean() / 12), video.number) for frame in video]
    assert read == [(number, number) for number in numbers]
    assert not video.short


def test_start_after_the_end(counting):
    with pytest.raises(ValueError, match=r"count\.mp4 ends after 2\.0 s, before --start \(3 s\)"):
        VideoReader(counting, span=Span(start=3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"every": 0}, "--every must be at least 1, got 0"),
        ({"start": -1}, "--start must be 0 or more seconds, got -1"),
        ({"start": float("nan")}, "--start"),
        ({"start": 2, "end": 2}, r"--end must lie after --start \(2 s\), got 2"),
        ({"end": float("nan")}, "--end"),
    ],
)
def test_span_that_is_none(wrong, words):
    with pytest.raises(ValueError, match=words):
        Span(**wrong)


def test_truncated_video_gives_its_frames_and_says_so(tmp_path):
    path = str(tmp_path / "a.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for frame in np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3)).astype(np.uint8):
        writer.write(frame)
    writer.release()
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])
    video = VideoReader(path)
    assert 5 < len(list(video)) < 15 and video.short


def test_video_without_a_frame(tmp_path):
    path = write(tmp_path / "a.avi", 10, frames(1, 64, 48))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(ValueError, match="no frame could be decoded"):
        VideoReader(path)


def test_camera_that_is_not_there(capfd):
    with pytest.raises(ValueError, match="camera 97 cannot be opened"):
        VideoReader(97)
    assert capfd.readouterr().err == ""


def test_video_that_was_cut_is_playable_and_not_in_the_place_of_the_whole(tmp_path):
    path = tmp_path / "a.mp4"
    with writing_video(path, 25) as writer:
        for frame in frames(3, 64, 48):
            writer.write(frame)
        writer.part.cut = True
    assert list(tmp_path.iterdir()) == [tmp_path / "a.part.mp4"]
    assert len(list(VideoReader(tmp_path / "a.part.mp4"))) == 3
    write(path, 25, frames(4, 64, 48))
    assert list(tmp_path.iterdir()) == [path]


def test_codec_is_h264_or_said_to_be_another(tmp_path):
    with writing_video(tmp_path / "a.mp4", 25) as writer:
        writer.write(frames(1, 64, 48)[0])
    assert writer.codec in ("H.264", "MPEG-4 part 2, as this OpenCV writes no H.264")


def test_video_without_frames_leaves_nothing(tmp_path):
    write(tmp_path / "a.mp4", 25, [])
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_up_leaves_the_frames_so_far(tmp_path, monkeypatch):
    with (
        pytest.raises(OSError, match=r"the disk is full: .*a\.mp4 .*a\.part\.mp4"),
        writing_video(tmp_path / "a.mp4", 25) as writer,
    ):
        for frame in frames(3, 64, 48):
            writer.write(frame)
        monkeypatch.setattr("utils.io.video.SPARE", 1 << 62)
        writer.write(frame)
    assert len(list(VideoReader(tmp_path / "a.part.mp4"))) == 3


def test_video_that_is_not_whole_after_all_is_an_error(tmp_path):
    """OpenCV says nothing where its writes fail: see what is there."""
    with (
        pytest.raises(OSError, match=r"a\.mp4 could not be written whole"),
        writing_video(tmp_path / "a.mp4", 25) as writer,
    ):
        writer.write(frames(1, 64, 48)[0])
        writer._writer.release()
        writer.part.path.write_bytes(b"")
    assert list(tmp_path.iterdir()) == []
