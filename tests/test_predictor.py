import threading
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch.torch_version import TorchVersion

from models import ICNet
from tests.conftest import CLASSES
from tests.networks import with_statistics
from utils import config
from utils.inference.opening import open_network
from utils.inference.predictor import Predictor, Smoother
from utils.io.video import Span, writing_video
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

RNG = np.random.default_rng(0)
FRAMES = [RNG.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(5)]


@pytest.fixture(scope="module")
def predictor(checkpoint_path):
    return Predictor(checkpoint_path, "cpu")


@pytest.fixture
def video(tmp_path):
    with writing_video(tmp_path / "v.mp4", 10) as writer:
        for frame in FRAMES:
            writer.write(frame)
    return tmp_path / "v.mp4"


def test_array_file_and_pillow_image_give_the_segmenters_labels(predictor, checkpoint_path, tmp_path):
    _, segment = open_network(checkpoint_path, torch.device("cpu"), config.TestConfig())
    expected = segment(torch.from_numpy(FRAMES[0]).permute(2, 0, 1)[None])[0].numpy()
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    for image in (FRAMES[0], tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png")):
        labels = predictor.predict(image)
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


@pytest.mark.parametrize(("device", "size"), [("cpu", 1), ("cuda", 8)])
def test_only_a_network_on_a_gpu_is_given_batches(checkpoint_path, monkeypatch, device, size):
    segmenter = SimpleNamespace(device=torch.device(device), runtime="ONNX Runtime", precision="fp32")
    checkpoint = read_checkpoint(checkpoint_path)
    monkeypatch.setattr("utils.inference.predictor.open_network", lambda *_: (checkpoint, segmenter))
    assert Predictor(checkpoint_path, "cpu").batch_size == size


def test_network_without_align_corners_gives_its_segmenters_labels(tmp_path):
    network, path = with_statistics(ICNet(3, "resnet18", variant="psp")), tmp_path / "psp.pth"
    state, structure = network.state_dict(), network.structure
    save_checkpoint(path, Checkpoint(state_dict=state, backbone="resnet18", structure=structure, classes=CLASSES))
    _, segment = open_network(path, torch.device("cpu"), config.TestConfig())
    expected = segment(torch.from_numpy(FRAMES[0]).permute(2, 0, 1)[None])[0].numpy()
    assert len(np.unique(expected)) > 1 and np.array_equal(Predictor(path, "cpu").predict(FRAMES[0]), expected)


def test_a_file_is_turned_upright_but_not_a_pillow_image(predictor, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(FRAMES[0]).save(tmp_path / "turned.png", exif=exif)
    assert predictor.predict(tmp_path / "turned.png").shape == (64, 48)
    assert predictor.predict(Image.open(tmp_path / "turned.png")).shape == (48, 64)


def test_sixteen_bit_pillow_image_is_scaled_not_clipped(predictor):
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    grey = np.asarray(deep).astype(int) // 257
    assert np.array_equal(predictor.predict(deep), predictor.predict(np.dstack([grey] * 3).astype(np.uint8)))


def test_batch_with_several_sizes_equals_single_images(predictor, monkeypatch):
    images = [FRAMES[0], FRAMES[1], FRAMES[2], FRAMES[2][:33, :40], FRAMES[3], FRAMES[4][:1, :1]]
    sizes, predict = [], predictor._predict
    monkeypatch.setattr(predictor, "batch_size", 2)
    monkeypatch.setattr(predictor, "_predict", lambda group, *more: sizes.append(len(group)) or predict(group, *more))
    batch = predictor.predict_batch(images)
    assert sizes == [2, 1, 1, 1, 1]
    assert [labels.shape for labels in batch] == [image.shape[:2] for image in images]
    for image, labels in zip(images, batch, strict=True):
        assert (labels == predictor.predict(image)).mean() > 0.999
    assert predictor.predict_batch([]) == []


def test_the_checkpoint_may_be_that_of_the_settings(checkpoint_path):
    predictor = Predictor(device="cpu", test=config.TestConfig(ckpt_path=str(checkpoint_path)))
    assert predictor.classes == CLASSES


def test_other_devices_are_refused(checkpoint_path):
    with pytest.raises(ValueError, match=r"the device meta is not supported; use cpu or cuda"):
        Predictor(checkpoint_path, "meta")


def test_a_narrow_image_is_refused_before_it_is_enlarged(predictor):
    for narrow in (np.zeros((1, 200, 3), np.uint8), Image.new("RGB", (2, 200))):
        with pytest.raises(ValueError, match=r"the image is too narrow to segment \(2\d*x\d+ pixels\); crop it"):
            predictor.predict(narrow)


def test_array_that_is_not_an_rgb_image_is_an_error(predictor):
    empty = Image.new("RGB", (0, 5))
    for wrong in (FRAMES[0][..., 0], FRAMES[0].astype(float), np.zeros((4, 4, 4), np.uint8), FRAMES[0][:0], empty):
        message = r"expected an RGB image \(H, W, 3\) uint8, H and W at least 1, got \(.*\d\) \w+$"
        with pytest.raises(ValueError, match=message):
            predictor.predict(wrong)
        with pytest.raises(ValueError, match=message):
            next(predictor.stream([wrong]))
    with pytest.raises(ValueError, match=r"expected an RGB image .* got NoneType$"):  # cv2.imread of a missing file
        predictor.predict(None)


def test_stream_yields_frames_with_their_labels(predictor, video):
    pairs = list(predictor.stream(video))
    assert len(pairs) == 5
    for frame, labels in pairs:
        assert frame.shape == (48, 64, 3) and np.array_equal(labels, predictor.predict(frame))
    assert len(list(predictor.stream(video, span=Span(every=2)))) == 3
    with pytest.raises(ValueError, match="span applies to files, streams and cameras"):
        next(predictor.stream(FRAMES, span=Span(every=2)))
    assert [np.array_equal(a, b) for (a, _), b in zip(predictor.stream(FRAMES), FRAMES, strict=True)] == [True] * 5


@pytest.mark.parametrize("batch", [None, 1, 2, 8])
def test_pipeline_keeps_keys_and_order_for_any_batch_and_size(predictor, batch):
    images = [*FRAMES[:3], FRAMES[3][:40], FRAMES[4]]
    result = list(predictor.pipeline(zip("abcde", images, strict=True), batch=batch))
    assert [key for key, _, _ in result] == list("abcde")
    for (_, image, labels), given in zip(result, images, strict=True):
        assert image is given and (labels == predictor.predict(given)).mean() > 0.999


def test_frames_that_arrive_in_real_time_wait_for_few_others(predictor):
    taken = []
    stream = predictor.stream(taken.append(number) or frame for number, frame in enumerate(FRAMES * 4))
    next(stream)
    time.sleep(0.3)  # enough to take more, if it did
    assert len(taken) <= 4  # the first is here, others are in the network, read, and being read
    stream.close()


def test_smoothing_reduces_flicker(predictor):
    changes = {}
    for weight in (0.0, 0.9):
        maps = [labels for _, labels in predictor.stream(FRAMES, smooth=weight)]
        changes[weight] = np.mean([(a != b).mean() for a, b in pairwise(maps)])
    assert changes[0.9] < 0.5 * changes[0.0]


def test_smoothing_needs_scores(predictor, monkeypatch):
    monkeypatch.setattr(predictor.segmenter, "gives_scores", False)
    with pytest.raises(ValueError, match="smoothing needs class scores"):
        predictor.pipeline([], smooth=0.5)
    labels = predictor.segmenter(torch.from_numpy(FRAMES[0]).permute(2, 0, 1)[None])[0]
    assert np.array_equal(predictor.predict(FRAMES[0]), labels.numpy())


def test_closed_stream_leaves_no_thread(predictor):
    before = set(threading.enumerate())
    stream = predictor.stream(iter(FRAMES * 10))
    next(stream)
    stream.close()
    assert set(threading.enumerate()) <= before


def test_shares_are_sorted(predictor):
    shares = predictor.shares(np.array([[0, 2], [2, 2]], np.uint8))
    assert list(shares.items()) == [("car", 0.75), ("road", 0.25)]


def test_stages_are_timed(checkpoint_path):
    predictor = Predictor(checkpoint_path, "cpu")
    predictor.predict(FRAMES[0])
    assert set(predictor.watch.seconds) == {"network", "label map"}


def test_input_size_defaults_to_that_of_the_checkpoint(tmp_path, checkpoint_path):
    checkpoint = replace(read_checkpoint(checkpoint_path), config={"test": {"short_side": 96, "save": "none"}})
    save_checkpoint(tmp_path / "a.pth", checkpoint)
    own = Predictor(tmp_path / "a.pth", "cpu").predict(FRAMES[0])
    assert np.array_equal(
        own, Predictor(checkpoint_path, "cpu", test=config.TestConfig(short_side=96)).predict(FRAMES[0])
    )
    plain = Predictor(tmp_path / "a.pth", "cpu", test=config.TestConfig(short_side=0)).predict(FRAMES[0])
    assert not np.array_equal(own, plain)
    assert np.array_equal(plain, Predictor(checkpoint_path, "cpu").predict(FRAMES[0]))


def test_smoother_averages_exponentially():
    smooth = Smoother(0.75)
    frames = torch.tensor([0.0, 4.0, 8.0]).view(3, 1, 1, 1)
    assert smooth(frames[:2]).flatten().tolist() == [0, 1]  # 0.75 * 0 + 0.25 * 4
    assert smooth(frames[2:]).flatten().tolist() == [2.75]  # 0.75 * 1 + 0.25 * 8


def test_smoother_does_not_depend_on_batching():
    frames = torch.randn(6, 3, 4, 5)
    single = Smoother(0.5)
    assert torch.equal(Smoother(0.5)(frames), torch.cat([single(frame[None]) for frame in frames]))


def test_smoother_restarts_when_the_size_changes_and_may_be_off():
    frames = torch.randn(2, 3, 4, 5)
    assert Smoother(0)(frames) is frames
    smooth = Smoother(0.9)
    smooth(frames)
    other = torch.randn(1, 3, 2, 2)
    assert torch.equal(smooth(other), other)


@pytest.mark.parametrize("weight", [-0.1, 1, 2, float("nan")])
def test_smoothing_weight_out_of_range_is_an_error(weight):
    with pytest.raises(ValueError, match=r"--smooth must be at least 0 and below 1, got"):
        Smoother(weight)


def test_cuda_graphs_need_a_pytorch_that_runs_them_in_threads(checkpoint_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.13.1+cpu"))
    with pytest.raises(ValueError, match=r"test\.compile=cuda_graphs needs PyTorch 2\.14 or later .*, not 2\.13\.1"):
        Predictor(checkpoint_path, test=config.TestConfig(compile="cuda_graphs"))


def test_stream_copies_frames_whose_memory_is_reused(predictor):
    def frames():
        buffer = np.empty_like(FRAMES[0])
        for frame in FRAMES:
            buffer[:] = frame
            yield buffer

    streamed = [frame for frame, _ in predictor.stream(frames())]
    assert all(np.array_equal(a, b) for a, b in zip(streamed, FRAMES, strict=True))


@pytest.mark.parametrize(("source", "batch"), [(0, None), ("rtsp://x/live", None), (FRAMES[:1], None), ("a.mp4", 8)])
def test_stream_batches_only_the_frames_of_a_file(predictor, monkeypatch, source, batch):
    asked, pipeline = [], predictor.pipeline

    def record(items, **options):
        asked.append(options["batch"])
        return pipeline(items, **options)

    monkeypatch.setattr("utils.inference.predictor.VideoReader", lambda source, *, span: [(0, FRAMES[0])])
    monkeypatch.setattr(predictor, "batch_size", 8)
    monkeypatch.setattr(predictor, "pipeline", record)
    assert len(list(predictor.stream(source))) == 1 and asked == [batch]


def test_labels_are_drawn_in_the_networks_colours(predictor):
    image, labels = np.full((1, 2, 3), 100, np.uint8), np.array([[0, 2]], np.uint8)
    assert predictor.colorize(labels).tolist() == [[[128, 64, 128], [0, 0, 142]]]
    assert predictor.overlay(image, labels, alpha=0.2).tolist() == [[[106, 93, 106], [80, 80, 108]]]  # 105.6, 92.8, …
    with pytest.raises(ValueError, match="alpha must be from 0 to 1, got 50"):
        predictor.overlay(image, labels, alpha=50)
