"""inference.py run on videos: outputs, resuming and interruptions."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.test_inference import interrupt, names, put
from utils.inference.predictor import Predictor
from utils.io.drawing import Painter
from utils.io.outputs import Outputs
from utils.io.sources import Source
from utils.io.video import VideoReader


def test_video_outputs_keep_frame_rate_and_times_and_report_the_codec(infer, video, tmp_path):
    result = infer(video, "--save", "pred,overlay,color,side", "--json", "--start", 0.4, "--every", 2)
    assert (result.code, result.err) == (0, "")
    assert "4 frames at 2.5 frames/s, " in result.out and ("H.264" in result.out or "MPEG-4" in result.out)
    out = tmp_path / "out"
    assert names(out) == ["v_color.mp4", "v_overlay.mp4", "v_shares.jsonl", "v_side.mp4"]
    for kind, width in (("color", 64), ("overlay", 64), ("side", 128)):
        written = VideoReader(out / f"v_{kind}.mp4")
        assert written.fps == 2.5 and [frame.shape for _, frame in written] == [(48, width, 3)] * 4
    lines = [json.loads(line) for line in (out / "v_shares.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["seconds"]) for line in lines] == [(2, 0.4), (4, 0.8), (6, 1.2), (8, 1.6)]
    assert all(sum(line["shares"].values()) == pytest.approx(1) for line in lines)
    assert "0 of 1 inputs done, 1 already complete" in infer(video, "--save", "overlay").out


def test_shares_of_frames_are_a_file_each(infer, video, tmp_path):
    assert infer(video, "--frames", "--save", "none", "--json", "--every", 5).code == 0
    out = tmp_path / "out" / "v_frames"
    assert names(out) == ["000000_shares.json", "000005_shares.json"]
    facts = json.loads((out / "000005_shares.json").read_text())
    assert (facts["frame"], facts["seconds"]) == (5, 1.0) and sum(facts["shares"].values()) == pytest.approx(1)


def test_interrupted_frames_of_a_video_are_resumed(infer, video, tmp_path):
    given = ("--frames", "--save", "pred", "--every", 3)
    assert infer(video, *given).code == 0
    out = tmp_path / "out" / "v_frames"
    assert names(out) == [f"{number:06}_pred.png" for number in (0, 3, 6, 9)]
    (out / "000003_pred.png").unlink()
    (out / "000006_pred.png").write_text("mine")
    result = infer(video, *given)
    assert result.code == 0 and "1 frames at" in result.out
    assert len(names(out)) == 4 and (out / "000006_pred.png").read_text() == "mine"


def test_interrupt_while_nothing_is_missing_stops_before_the_next_video(infer, video, tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(video.read_bytes())
    given = (folder, "--frames", "--save", "pred")
    assert infer(*given).code == 0
    interrupt(monkeypatch, Outputs, "complete", call=4)  # two calls for the videos, then one for each frame
    result = infer(*given)
    assert result.code == 130 and "stopped after 1 of 2 inputs" in result.err


def test_smoothed_frames_are_the_same_after_resuming(infer, video, tmp_path):
    given = ("--frames", "--save", "pred", "--smooth", 0.8)
    infer(video, *given)
    path = tmp_path / "out" / "v_frames" / "000007_pred.png"
    before = path.read_bytes()
    path.unlink()
    assert "9 already complete (--overwrite replaces them)" in infer(video, *given).out
    assert path.read_bytes() == before
    assert "10 already complete" in infer(video, *given[:3]).out  # not smoothed, so not even computed


def test_frames_of_a_video_do_not_collide_with_an_image_of_a_similar_name(infer, video, tmp_path):
    put(tmp_path / "out" / "v_pred.png")
    video.rename(tmp_path / "out" / "v.mp4")
    assert infer(tmp_path / "out", "--frames", "--save", "pred", "--every", 5).code == 0
    assert len(names(tmp_path / "out" / "v_frames")) == 2


def test_a_cameras_gaps_are_filled(infer, video, tmp_path, monkeypatch):
    class Reader(VideoReader):
        def __iter__(self):
            for number, frame in super().__iter__():
                if number not in (2, 3):
                    yield number, frame

    monkeypatch.setattr("utils.inference.run.VideoReader", Reader)
    assert infer(video, "--json", "--end", 1.2).code == 0  # frames 0, 1, 4 and 5
    assert len(list(VideoReader(tmp_path / "out" / "v_overlay.mp4"))) == 6
    lines = [json.loads(line) for line in (tmp_path / "out" / "v_shares.jsonl").read_text().splitlines()]
    assert [line["seconds"] for line in lines] == [0, 0.2, 0.8, 1.0]


def test_ctrl_c_ends_a_camera_recording_normally(infer, video, tmp_path, monkeypatch):
    monkeypatch.setattr("inference.find_sources", lambda text, *, recursive: [Source(video, "live", "camera_0")])
    interrupt(monkeypatch, Painter, "paint", call=4)
    result = infer("0")
    assert (result.code, result.err) == (0, "") and "1 of 1 inputs done" in result.out
    assert names(tmp_path / "out") == ["camera_0_overlay.mp4"]
    assert len(list(VideoReader(tmp_path / "out" / "camera_0_overlay.mp4"))) == 4


def test_a_stream_that_breaks_off_is_reported(infer, video, tmp_path, monkeypatch):
    class Stream:
        """Of unknown length."""

        def __init__(self, address):
            self.capture = capture(str(video))

        def get(self, key):
            return 0 if key == cv2.CAP_PROP_FRAME_COUNT else self.capture.get(key)

        def __getattr__(self, name):
            return getattr(self.capture, name)

    capture, address = cv2.VideoCapture, "tcp://camera"
    monkeypatch.setattr("utils.io.video.cv2.VideoCapture", lambda of: Stream(of) if of == address else capture(of))
    monkeypatch.setattr("inference.find_sources", lambda text, *, recursive: [Source(address, "live", "camera_0")])
    result = infer(address)
    assert (result.code, result.err) == (1, "tcp://camera gives no more frames\n")
    assert len(list(tmp_path.glob("out/camera_0_overlay.mp4"))) == 1


def test_overwrite_replaces_a_video_and_other_runs_add_only_what_is_missing(infer, video, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "v_overlay.mp4").write_text("mine")
    assert infer(video, "--save", "overlay,color").code == 0
    assert (out / "v_overlay.mp4").read_text() == "mine" and len(list(VideoReader(out / "v_color.mp4"))) == 10
    assert infer(video, "--overwrite").code == 0
    assert len(list(VideoReader(out / "v_overlay.mp4"))) == 10


@pytest.mark.parametrize(("kind", "batch"), [("live", None), ("video", 8)])
def test_only_frames_of_a_file_are_batched(infer, video, monkeypatch, kind, batch):
    asked, pipeline = [], Predictor.pipeline

    def record(self, *arguments, **options):
        asked.append(options.get("batch", 1))
        return pipeline(self, *arguments, **options)

    monkeypatch.setattr("inference.find_sources", lambda text, *, recursive: [Source(video, kind, "x")])
    monkeypatch.setattr(Predictor, "batch_size", property(lambda self: 8, lambda self, value: None), raising=False)
    monkeypatch.setattr(Predictor, "pipeline", record)
    assert infer("x").code == 0 and asked == [1, batch]  # the first call is that of the images


def test_class_indices_of_a_video_need_frames(infer, video):
    result = infer(video, "--save", "pred")
    assert result.code == 2 and "--frames" in result.err


def test_the_shares_of_a_video_can_be_written_alone(infer, video, tmp_path):
    assert infer(video, "--save", "pred", "--json").code == 0
    assert names(tmp_path / "out") == ["v_shares.jsonl"]


def test_a_truncated_video_is_reported_even_by_quiet_runs(infer, video, tmp_path, monkeypatch):
    frame = np.zeros((48, 64, 3), np.uint8)
    monkeypatch.setattr(VideoReader, "_read", lambda reader, number: frame if number < 4 else None)
    result = infer(video, "--quiet")
    assert result.code == 1 and result.err.count("\n") == 1
    assert result.err.startswith(f"{video} ends before the length in its header: it is damaged, or was cut")
    assert cv2.VideoCapture(str(tmp_path / "out" / "v_overlay.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_full_disk_during_a_video_is_an_error(infer, video, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.io.video.RESERVE", 1 << 62)
    result = infer(video)
    assert result.code == 2 and "the disk is full" in result.err
    assert names(tmp_path / "out") == []


def test_interrupted_video_leaves_a_playable_part(infer, video, tmp_path, monkeypatch):
    interrupt(monkeypatch, Painter, "paint", call=4)
    result = infer(video, "--json")
    assert result.code == 130 and "v_overlay.part.mp4" in result.err and "Traceback" not in result.err
    out = tmp_path / "out"
    assert names(out) == ["v_overlay.part.mp4", "v_shares.part.jsonl"]
    assert len(list(VideoReader(out / "v_overlay.part.mp4"))) == 4
    assert len((out / "v_shares.part.jsonl").read_text().splitlines()) == 4
    assert infer(video, "--json").code == 0
    assert names(out) == ["v_overlay.mp4", "v_shares.jsonl"]
    assert len(list(VideoReader(out / "v_overlay.mp4"))) == 10


def test_smoothed_frames_are_those_of_the_python_api(infer, video, tmp_path, checkpoint_path):
    assert infer(video, "--frames", "--save", "pred", "--smooth", 0.8).code == 0
    for number, (_, labels) in enumerate(Predictor(checkpoint_path, "cpu").stream(video, smooth=0.8)):
        with Image.open(tmp_path / "out" / "v_frames" / f"{number:06}_pred.png") as image:
            assert np.array_equal(np.asarray(image), labels), number


def test_smoothing_label_maps_is_one_error(infer, video):
    result = infer(video, "--smooth", 0.5, "test.window=32")
    assert result.code == 2 and "smoothing needs class scores" in result.err and result.err.count("\n") == 1
