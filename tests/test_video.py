import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.io.video import Span, VideoReader, source_name, writing_video


def frames(count: int, width: int, height: int) -> list[np.ndarray]:
    """Frames of a single colour each, which a lossy codec changes little."""
    return [np.full((height, width, 3), (200, 30 * n, 60), np.uint8) for n in range(count)]


def write(path: Path, fps: float, images: list[np.ndarray]) -> Path:
    with writing_video(path, fps) as writer:
        for image in images:
            writer.write(image)
    return path


def read(path: Path) -> list[np.ndarray]:
    return [frame for _, frame in VideoReader(path)]


@pytest.mark.parametrize(
    ("width", "height", "fps"),
    [(64, 48, 25), (64, 48, 12.5), (96, 64, 29.97), (64, 48, 1), (1280, 720, 60), (64, 48, 119.913)],
)
def test_video_round_trip(tmp_path, width, height, fps):
    written = frames(5, width, height)
    video = VideoReader(write(tmp_path / "a.mp4", fps, written))
    assert video.fps == pytest.approx(fps, abs=0.01)
    assert video.frames == 5
    result = list(video)
    assert [number for number, _ in result] == [0, 1, 2, 3, 4]
    for before, (_, after) in zip(written, result, strict=True):
        assert after.shape == (height, width, 3) and after.dtype == np.uint8
        assert np.abs(after.astype(int) - before).max() < 12  # in RGB order


def test_written_colors_are_read_the_same_by_other_programs(tmp_path):
    write(tmp_path / "red.mp4", 10, [np.full((48, 64, 3), (220, 40, 60), np.uint8)])
    capture = cv2.VideoCapture(str(tmp_path / "red.mp4"))
    decoded, frame = capture.read()
    capture.release()
    assert decoded and np.abs(frame.mean((0, 1)) - (60, 40, 220)).max() < 12  # OpenCV uses BGR


@pytest.mark.parametrize(("width", "height"), [(63, 47), (64, 47), (63, 48)])
def test_odd_size_loses_at_most_a_row_and_a_column(tmp_path, width, height):
    result = read(write(tmp_path / "a.mp4", 25, frames(3, width, height)))
    assert len(result) == 3
    assert abs(result[0].shape[0] - height) == height % 2 and abs(result[0].shape[1] - width) == width % 2
    assert np.abs(result[2].astype(int) - (200, 60, 60)).max() < 12


def test_interrupted_video_is_playable_and_does_not_replace_a_complete_one(tmp_path):
    path = write(tmp_path / "a.mp4", 25, frames(2, 64, 48))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), writing_video(path, 25) as writer:
        for frame in frames(3, 64, 48):
            writer.write(frame)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert len(read(tmp_path / "a.part.mp4")) == 3
    write(path, 25, frames(4, 64, 48))
    assert list(tmp_path.iterdir()) == [path] and len(read(path)) == 4


def test_frame_of_another_size_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"a\.mp4: a frame of 64x32 cannot be added to a video of 64x48"):
        write(tmp_path / "a.mp4", 25, frames(1, 64, 48) + frames(1, 64, 32))
    assert len(read(tmp_path / "a.part.mp4")) == 1


def test_unwritable_video_is_named_by_its_final_path(tmp_path, capfd):
    with pytest.raises(ValueError, match=r"[/\\]a\.mp4 cannot be written"):
        write(tmp_path / "a.mp4", 1e9, frames(1, 64, 48))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"hello", b"half"])
def test_broken_video_is_an_error_and_prints_nothing(tmp_path, capfd, content):
    whole = write(tmp_path / "whole.mp4", 25, frames(3, 64, 48)).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(ValueError, match=r"cannot read .*a\.mp4 as a video"):
        VideoReader(tmp_path / "a.mp4")
    assert capfd.readouterr().err == ""  # from OpenCV or FFmpeg


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A video of 20 frames at 10 frames/s, whose brightness encodes their number."""
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
        ({"start": 1.1, "end": 1.2}, [11]),  # 1.1 * 10 is 11.000000000000002
    ],
)
def test_span_selects_frames(counting, span, numbers):
    video = VideoReader(counting, span=Span(**span))
    assert video.frames == len(numbers) and video.fps == 10 / span.get("every", 1)
    assert [(number, round(frame.mean() / 12)) for number, frame in video] == [(number, number) for number in numbers]
    assert not video.truncated


def test_a_span_between_two_frames_is_an_error(counting):
    with pytest.raises(ValueError, match=r"no frame of .*count\.mp4 is between --start and --end, at 10 frames/s"):
        VideoReader(counting, span=Span(start=0.51, end=0.55))


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist there")
@pytest.mark.parametrize("name", [b"12:30:00.mp4", b"caf\xe9.mp4"])
def test_files_of_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = write(Path(os.fsdecode(name)), 10, frames(3, 64, 48))
    assert os.listdir(os.fsencode(tmp_path)) == [name] and len(read(path)) == 3


def test_start_after_the_end_is_an_error(counting):
    with pytest.raises(ValueError, match=r"count\.mp4 .*: it ends after 2\.0 s, before --start \(3 s\)"):
        VideoReader(counting, span=Span(start=3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"every": 0}, "--every must be at least 1, got 0"),
        ({"start": -1}, "--start must be at least 0 seconds, got -1"),
        ({"start": float("nan")}, "--start"),
        ({"start": 2, "end": 2}, r"--end must be greater than --start \(2 s\), got 2"),
        ({"end": float("nan")}, "--end"),
    ],
)
def test_impossible_span_is_an_error(wrong, words):
    with pytest.raises(ValueError, match=words):
        Span(**wrong)


def test_truncated_video_gives_the_frames_that_remain_and_says_so(tmp_path):
    path = str(tmp_path / "a.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for frame in np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3)).astype(np.uint8):
        writer.write(frame)
    writer.release()
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])
    video = VideoReader(path)
    assert 5 < len(list(video)) < 15 and video.truncated


def test_video_without_frames_cannot_be_read(tmp_path):
    path = write(tmp_path / "a.avi", 10, frames(1, 64, 48))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(ValueError, match="no frame could be decoded"):
        VideoReader(path)


class Camera:
    """A camera that takes frame n, of brightness n, at n / 10 s: a grab waits for the next one, as others are lost."""

    seconds = 0.0

    def __init__(self, *source: object) -> None:
        self.taken = -1

    def get(self, key: int) -> float:
        return {cv2.CAP_PROP_FPS: 10.0}.get(key, -1.0)

    def grab(self) -> bool:
        self.taken = max(self.taken + 1, int(10 * Camera.seconds + 1e-6))
        Camera.seconds = max(Camera.seconds, self.taken / 10)
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        return self.grab(), np.full((48, 64, 3), self.taken, np.uint8)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("every", "work", "numbers"),
    [(1, 0.02, [0, 1, 2, 3, 4, 5]), (2, 0.02, [0, 2, 4]), (1, 0.25, [0, 2, 5]), (2, 0.25, [0, 2, 4])],
)
def test_a_cameras_frames_are_numbered_by_the_clock(monkeypatch, every, work, numbers):
    """`work` is what each frame costs, in seconds; what the camera takes meanwhile is lost."""
    monkeypatch.setattr(Camera, "seconds", 0.0)
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr("utils.io.video.time.monotonic", lambda: Camera.seconds)
    found = []
    for number, frame in VideoReader(0, span=Span(every=every, end=0.55)):
        found.append((number, int(frame[0, 0, 0])))
        Camera.seconds += work
    assert [number for number, _ in found] == numbers
    assert all(abs(number - taken) <= 1 for number, taken in found)


def test_image_sequence_patterns_are_passed_to_opencv(tmp_path):
    for number, frame in enumerate(frames(3, 64, 48)):
        cv2.imwrite(str(tmp_path / f"frame_{number:03}.png"), frame)
    assert len(list(VideoReader(str(tmp_path / "frame_%03d.png")))) == 3


@pytest.mark.parametrize(("end", "truncated"), [(None, True), (0.9, True), (0.4, False)])
def test_a_camera_that_disconnects_is_truncated(monkeypatch, end, truncated):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr("utils.io.video.time.monotonic", lambda: 0.0)
    monkeypatch.setattr(VideoReader, "_read", lambda reader, number: np.zeros((4, 4, 3)) if number < 5 else None)
    reader = VideoReader(0, span=Span(end=end))
    list(reader)
    assert reader.truncated is truncated


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no video .*a\.mp4"):
        VideoReader(str(tmp_path / "a.mp4"))


def test_an_unreadable_video_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # permissions do not bind root
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read: permission denied"):
        VideoReader(path)


def test_the_frame_before_a_gap_fills_it(tmp_path):
    dark, light = (np.full((48, 64, 3), value, np.uint8) for value in (20, 220))
    with writing_video(tmp_path / "a.mp4", 10) as writer:
        writer.write(dark)
        writer.write(light, gap=2)
    assert [frame.mean() > 100 for frame in read(tmp_path / "a.mp4")] == [False, False, False, True]


def test_missing_camera_is_an_error(capfd):
    with pytest.raises(ValueError, match="cannot read camera 97 as a video"):
        VideoReader(97)
    assert capfd.readouterr().err == ""


def test_password_of_a_stream_is_not_in_the_error():
    with pytest.raises(ValueError, match=r"cannot read tcp://127\.0\.0\.1:1/x as a video"):
        VideoReader("tcp://me:secret@127.0.0.1:1/x")


def test_codec_is_described(tmp_path):
    with writing_video(tmp_path / "a.mp4", 25) as writer:
        writer.write(frames(1, 64, 48)[0])
    assert writer.codec in ("H.264", "MPEG-4 part 2, as this OpenCV cannot encode H.264")


def test_video_without_frames_leaves_no_file(tmp_path):
    write(tmp_path / "a.mp4", 25, [])
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_frames_so_far(tmp_path, monkeypatch):
    with (
        pytest.raises(OSError, match=r"the disk is full: .*a\.mp4 .*a\.part\.mp4"),
        writing_video(tmp_path / "a.mp4", 25) as writer,
    ):
        for frame in frames(3, 64, 48):
            writer.write(frame)
        monkeypatch.setattr("utils.io.video.RESERVE", 1 << 62)
        writer.write(frame)
    assert len(read(tmp_path / "a.part.mp4")) == 3


def test_incomplete_file_is_an_error_though_opencv_reports_none(tmp_path):
    with (
        pytest.raises(OSError, match=r"a\.mp4 could not be written completely"),
        writing_video(tmp_path / "a.mp4", 25) as writer,
    ):
        writer.write(frames(1, 64, 48)[0])
        writer._writer.release()
        Path(writer.name).write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


def test_video_for_browsers_is_vp8(tmp_path):
    written = frames(5, 64, 48)
    with writing_video(tmp_path / "a.webm", 12.5) as writer:
        for image in written:
            writer.write(image)
    assert writer.codec == "VP8"
    video = VideoReader(tmp_path / "a.webm")
    assert video.fps == pytest.approx(12.5) and video.frames == 5
    for before, (_, after) in zip(written, video, strict=True):
        assert after.shape == (48, 64, 3) and np.abs(after.astype(int) - before).max() < 12


def test_the_slowest_webm_can_be_read_back(tmp_path):
    with writing_video(tmp_path / "a.webm", 0.01) as writer:
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    assert len(read(tmp_path / "a.webm")) == 3


@pytest.mark.parametrize(("times", "fps"), [((0, 50, 90, 150), 20.0), ((0, 0, 0, 0), 25.0)])
def test_a_rate_that_is_the_clocks_is_measured(tmp_path, monkeypatch, times, fps):
    """Browsers record without a rate, and OpenCV then reports the clock's 1000 per second."""

    class Recording:
        def __init__(self, source: str) -> None:
            self.capture, self.grabbed = capture(source), 0

        def __getattr__(self, name: str) -> object:
            return getattr(self.capture, name)

        def grab(self) -> bool:
            self.grabbed += 1
            return self.grabbed <= len(times)

        def get(self, key: int) -> float:
            own = {cv2.CAP_PROP_FPS: 1000.0, cv2.CAP_PROP_POS_MSEC: times[self.grabbed - 1]}
            own[cv2.CAP_PROP_FRAME_COUNT] = 200.0  # milliseconds
            return own[key] if key in own else self.capture.get(key)

    path, capture = write(tmp_path / "a.mp4", 5, frames(4, 64, 48)), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Recording)
    reader = VideoReader(path)
    assert reader.source_fps == pytest.approx(fps) and reader.frames == 0.2 * fps


@pytest.mark.parametrize("secret", ["me:secret", "me:se@cret"])
def test_no_part_of_a_password_remains(secret):
    assert source_name(f"rtsp://{secret}@10.0.0.5/live") == "rtsp://10.0.0.5/live"
    for address in (
        "rtmp://10.0.0.5/x?user=me&password=secret&channel=1",
        "rtsp://10.0.0.5/user=me&Password=secret&n=1",
    ):
        assert "secret" not in source_name(address) and source_name(address).endswith("=1")
    assert source_name("videos/user=me.mp4") == "videos/user=me.mp4"  # a file


@pytest.mark.parametrize(("stated", "truncated"), [(21, False), (25, True)])
def test_a_header_that_states_a_frame_too_many_is_no_damage(counting, monkeypatch, stated, truncated):
    class Header:
        def __init__(self, source):
            self.capture = capture(source)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, key):
            return stated if key == cv2.CAP_PROP_FRAME_COUNT else self.capture.get(key)

    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Header)
    reader = VideoReader(counting)
    assert len(list(reader)) == 20 and reader.truncated is truncated


def test_a_video_that_lost_frames_is_not_complete(tmp_path):
    with pytest.raises(OSError, match="could not be written completely"), writing_video(tmp_path / "a.mp4", 25) as out:
        for frame in frames(3, 64, 48):
            out.write(frame)
        out._frames = 10
    assert os.listdir(tmp_path) == ["a.part.mp4"]
