"""OpenVINO as a runtime."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.conftest import CLASSES, CPU
from tests.networks import tracing_once, trained_checkpoint
from utils import config
from utils.inference import opening
from utils.inference.export import export_openvino
from utils.inference.exported import METADATA
from utils.inference.openvino import OpenVinoSegmenter, has_bf16
from utils.inference.predictor import Predictor
from utils.inference.segmenter import build_segmenter
from utils.weights.checkpoint import save_checkpoint

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def trained():
    return trained_checkpoint()


@pytest.fixture(scope="module", autouse=True)
def traced_once(trained):
    """Trace `trained` once for its fp32 and its int8 export."""
    with tracing_once(trained):
        yield


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("openvino") / "network.xml"
    assert export_openvino(trained, path) < 1e-4
    assert {p.name for p in path.parent.iterdir()} == {"network.xml", "network.bin"}
    return path


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 33, 47), (1, 20, 50)])
def test_a_file_predicts_as_its_checkpoint_at_any_size(trained, file, shape):
    checkpoint, segment = opening.open_network(file, CPU, config.TestConfig())
    assert checkpoint.metadata() == trained.metadata() and (segment.runtime, segment.precision) == ("OpenVINO", "fp32")
    image = torch.randint(0, 256, (shape[0], 3, *shape[1:]), dtype=torch.uint8)
    expected = build_segmenter(trained, "cpu")
    large = min(shape[1:]) >= 32  # small images are upsampled and rounded
    scores = expected.scores(image)
    assert (segment.scores(image) - scores).abs().max() < (1e-4 if large else 0.02) * scores.abs().max()
    assert (segment(image) == expected(image)).float().mean() > (0.99 if large else 0.9)


def test_the_papers_variant_is_exported_to_label_maps_of_any_size(tmp_path):
    path = tmp_path / "paper.xml"
    export_openvino(trained_checkpoint(variant="paper"), path, output="labels")  # compares with PyTorch
    labels = OpenVinoSegmenter(path)(torch.zeros(2, 3, 40, 60, dtype=torch.uint8))
    assert labels.shape == (2, 40, 60) and labels.dtype == torch.uint8


def test_an_earlier_result_is_not_overwritten_by_the_next(file):
    segment = OpenVinoSegmenter(file)
    first = segment.scores(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    kept = first.clone()
    segment.scores(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8))
    assert torch.equal(first, kept)


def test_a_checkpoint_is_exported_once_into_the_cache(trained, file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    exports = []

    def export(checkpoint, path):
        exports.append(path)
        path.parent.mkdir(parents=True)
        for suffix in (".xml", ".bin"):  # what an export would write, without its half minute
            shutil.copy(file.with_suffix(suffix), path.with_suffix(suffix))

    monkeypatch.setattr(opening, "export_openvino", export)
    save_checkpoint(tmp_path / "trained.pth", trained)
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    for _ in range(2):
        checkpoint, segment = opening.open_network(tmp_path / "trained.pth", CPU, config.TestConfig(runtime="openvino"))
        assert checkpoint.source == tmp_path / "trained.pth" and segment.runtime == "OpenVINO"
        assert (segment(image) == build_segmenter(trained, "cpu")(image)).float().mean() > 0.99
    assert len(exports) == 1 and exports[0].parent == tmp_path / "cache" / "icnet"
    save_checkpoint(tmp_path / "trained.pth", trained_checkpoint(dropout=0.5))  # another content, another file
    monkeypatch.setattr(opening, "export_openvino", lambda checkpoint, path: pytest.fail("exported"))
    with pytest.raises(pytest.fail.Exception):
        opening.open_network(tmp_path / "trained.pth", CPU, config.TestConfig(runtime="openvino"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_that_the_machine_lacks_is_an_error(file, monkeypatch, precision):
    get = openvino.Core.get_property
    monkeypatch.setattr(
        openvino.Core, "get_property", lambda self, *key: [] if "OPTIMIZATION" in key[1] else get(self, *key)
    )
    with pytest.raises(ValueError, match=rf"test\.precision={precision}"):
        OpenVinoSegmenter(file, precision=precision)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.xml").write_text("<net></net>")
    with pytest.raises(ValueError, match=r"x\.xml cannot be read as an OpenVINO file"):
        OpenVinoSegmenter(tmp_path / "x.xml")
    with pytest.raises(FileNotFoundError, match=r"no OpenVINO file .*y\.xml"):
        OpenVinoSegmenter(tmp_path / "y.xml")
    parameter = openvino.opset13.parameter([1, 3, 8, 8], np.float32)
    openvino.save_model(openvino.Model([openvino.opset13.relu(parameter)], [parameter]), tmp_path / "z.xml")
    with pytest.raises(ValueError, match=r"z\.xml was not written by tools/export\.py"):
        OpenVinoSegmenter(tmp_path / "z.xml")


@pytest.mark.parametrize(
    ("suffix", "change", "problem"),
    [
        (".bin", lambda content: content[: len(content) // 2], "cannot be read as an OpenVINO file: ."),
        (".xml", lambda content: content[: len(content) // 2], "cannot be read as an OpenVINO file: ."),
        (".xml", lambda content: content.replace(b"&quot;classes&quot;", b"&quot;names&quot;"), "metadata is damaged"),
        (".xml", lambda content: content.replace(b"{&quot;", b"&quot;", 1), "metadata is damaged"),
    ],
)
def test_damaged_files_are_refused(file, tmp_path, suffix, change, problem):
    for part in (file, file.with_suffix(".bin")):
        content = part.read_bytes()
        (tmp_path / part.name).write_bytes(change(content) if part.suffix == suffix else content)
    with pytest.raises(ValueError, match=rf"network\.xml.* {problem}"):
        OpenVinoSegmenter(tmp_path / "network.xml")


def test_images_of_mixed_sizes_give_what_each_gives_alone(file):
    rng = np.random.default_rng(0)
    sizes = [(64, 96), (33, 47), (64, 96), (96, 64), (20, 50), (33, 47)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    mixed = Predictor(file).predict_batch(images)
    for image, labels in zip(images, mixed, strict=True):
        assert np.array_equal(labels, Predictor(file).predict(image))


def test_threads_that_share_a_network_each_get_their_own_result(file):
    segmenter = OpenVinoSegmenter(file)
    images = [np.full((1, 3, 64, 96), value, np.float32) for value in (-1, 1)] * 20
    expected = [segmenter.infer(image) for image in images[:2]] * 20
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(segmenter.infer, images))
    assert not np.array_equal(*expected[:2])
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
def test_the_precision_is_asked_of_openvino(file, monkeypatch, precision, hint):
    def compile_model(self, model, device, config):
        raise KeyError(config["INFERENCE_PRECISION_HINT"])

    monkeypatch.setattr("utils.inference.openvino.has_bf16", lambda: True)
    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    with pytest.raises(KeyError, match=f"^'{hint}'$"):
        OpenVinoSegmenter(file, precision=precision)


def test_without_openvino_a_file_cannot_be_opened(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-openvino\.txt"):
        OpenVinoSegmenter(file)


def test_int8_is_calibrated_on_images_and_named(trained, tmp_path):
    pytest.importorskip("nncf")
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 256, (4, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(4)]
    export_openvino(trained, tmp_path / "int8.xml", calibration=images)
    assert (tmp_path / "int8.bin").stat().st_size < 15e6  # a quarter of fp32's 48 MB, and what stays in fp32
    segment = OpenVinoSegmenter(tmp_path / "int8.xml")
    assert segment.precision == "int8 and fp32" and segment.checkpoint.classes == CLASSES
    image = torch.from_numpy(images[0]).permute(2, 0, 1)[None]
    assert (segment(image) == build_segmenter(trained, "cpu")(image)).float().mean() > 0.9
    model = openvino.Core().read_model(tmp_path / "int8.xml")
    assert json.loads(model.get_rt_info(METADATA).astype(str))["precision"] == "int8"


def test_int8_leaves_the_other_layers_of_a_bottleneck_network_in_bf16(tmp_path):
    pytest.importorskip("nncf")
    if not has_bf16():
        pytest.skip("needs a CPU with bf16 arithmetic")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    export_openvino(trained_checkpoint("resnet50", width=0.25), tmp_path / "int8.xml", calibration=[noise])
    segment = OpenVinoSegmenter(tmp_path / "int8.xml", precision="bf16")
    assert segment.precision == "int8 and bf16"
    assert segment(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape == (1, 64, 96)
