import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from models import ICNet
from tests.conftest import CLASSES
from tests.test_fold import with_statistics
from utils import config
from utils.inference.predictor import Predictor
from utils.inference.segmenter import open_segmenter
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
    _, segment = open_segmenter(checkpoint_path, "cpu")
    expected = segment(torch.from_numpy(FRAMES[0]).permute(2, 0, 1)[None])[0].numpy()
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    for image in (FRAMES[0], tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png")):
        labels = predictor.predict(image)
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


def test_a_network_without_aligned_corners_gives_its_segmenters_labels(tmp_path):
    network, path = with_statistics(ICNet(3, "resnet18", variant="psp")), tmp_path / "psp.pth"
    state, structure = network.state_dict(), network.structure
    save_checkpoint(path, Checkpoint(state_dict=state, backbone="resnet18", structure=structure, classes=CLASSES))
    _, segment = open_segmenter(path, "cpu")
    expected = segment(torch.from_numpy(FRAMES[0]).permute(2, 0, 1)[None])[0].numpy()
    assert len(np.unique(expected)) > 1 and np.array_equal(Predictor(path, "cpu").predict(FRAMES[0]), expected)


def test_pillow_image_of_sixteen_bits_is_no_white_one(predictor):
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    grey = np.asarray(deep).astype(int) // 257
    assert np.array_equal(predictor.predict(deep), predictor.predict(np.dstack([grey] * 3).astype(np.uint8)))


def test_batch_of_several_sizes_equals_single_images(predictor):
    images = [FRAMES[0], FRAMES[1], FRAMES[2][:33, :40], FRAMES[3], FRAMES[4][:1, :1]]
    batch = predictor.predict_batch(images)
    assert [labels.shape for labels in batch] == [image.shape[:2] for image in images]
    for image, labels in zip(images, batch, strict=True):
        assert (labels == predictor.predict(image)).mean() > 0.999
    assert predictor.predict_batch([]) == []


def test_what_is_no_rgb_image(predictor):
    for wrong in (FRAMES[0][..., 0], FRAMES[0].astype(float), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"an RGB image \(H, W, 3\) uint8 is needed, got"):
            predictor.predict(wrong)


def test_stream_gives_frames_with_their_labels(predictor, video):
    pairs = list(predictor.stream(video))
    assert len(pairs) == 5
    for frame, labels in pairs:
        assert frame.shape == (48, 64, 3) and np.array_equal(labels, predictor.predict(frame))
    assert len(list(predictor.stream(video, span=Span(every=2)))) == 3
    assert [np.array_equal(a, b) for (a, _), b in zip(predictor.stream(FRAMES), FRAMES, strict=True)] == [True] * 5


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_pipeline_keeps_keys_and_order_with_any_batch_and_size(predictor, batch):
    images = [*FRAMES[:3], FRAMES[3][:40], FRAMES[4]]
    result = list(predictor.pipeline(zip("abcde", images, strict=True), batch=batch))
    assert [key for key, _, _ in result] == list("abcde")
    for (_, image, labels), given in zip(result, images, strict=True):
        assert image is given and (labels == predictor.predict(given)).mean() > 0.999


def test_smoothing_makes_a_still_scene_of_flickering_frames(predictor):
    changes = {}
    for weight in (0.0, 0.9):
        maps = [labels for _, labels in predictor.stream(FRAMES, smooth=weight)]
        changes[weight] = np.mean([(a != b).mean() for a, b in pairwise(maps)])
    assert changes[0.9] < 0.5 * changes[0.0]


def test_smoothing_starts_with_the_first_frame_and_leaves_a_still_one(predictor):
    expected = predictor.predict(FRAMES[0])
    for _, labels in predictor.stream([FRAMES[0]] * 3, smooth=0.8):
        assert (labels == expected).mean() > 0.999


def test_smoothing_needs_scores(predictor, monkeypatch):
    monkeypatch.setattr(predictor.segment, "gives_scores", False)
    with pytest.raises(ValueError, match="gives label maps only"):
        predictor.pipeline([], smooth=0.5)
    labels = predictor.segment(torch.from_numpy(FRAMES[0]).permute(2, 0, 1)[None])[0]
    assert np.array_equal(predictor.predict(FRAMES[0]), labels.numpy())


def test_a_stream_that_is_left_early_leaves_no_thread(predictor):
    before = threading.active_count()
    stream = predictor.stream(iter(FRAMES * 10))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_shares_add_up_and_fall(predictor):
    shares = predictor.shares(np.array([[0, 2], [2, 2]], np.uint8))
    assert list(shares.items()) == [("car", 0.75), ("road", 0.25)]


def test_times_are_kept(checkpoint_path):
    predictor = Predictor(checkpoint_path, "cpu")
    predictor.predict(FRAMES[0])
    assert set(predictor.watch.seconds) == {"network", "label map"}


def test_sizes_are_those_of_the_checkpoints_own_configuration(tmp_path, checkpoint_path):
    checkpoint = replace(read_checkpoint(checkpoint_path), config={"test": {"short_side": 96, "save": "none"}})
    save_checkpoint(tmp_path / "a.pth", checkpoint)
    own = Predictor(tmp_path / "a.pth", "cpu").predict(FRAMES[0])
    assert np.array_equal(
        own, Predictor(checkpoint_path, "cpu", test=config.TestConfig(short_side=96)).predict(FRAMES[0])
    )
    plain = Predictor(tmp_path / "a.pth", "cpu", test=config.TestConfig(short_side=0)).predict(FRAMES[0])
    assert not np.array_equal(own, plain)
    assert np.array_equal(plain, Predictor(checkpoint_path, "cpu").predict(FRAMES[0]))
