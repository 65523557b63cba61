import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from dataset.transforms import Normalization
from tests.conftest import CLASSES, CPU
from tests.networks import tracing_once, trained_checkpoint
from tools import export
from utils import config
from utils.inference.export import _Graph, _preparation, compare, export_onnx
from utils.inference.onnx import METADATA, OnnxSegmenter, _open_session
from utils.inference.opening import open_network
from utils.inference.predictor import Predictor
from utils.inference.segmenter import build_segmenter
from utils.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def psp():
    return trained_checkpoint(variant="psp", width=0.5)


@pytest.fixture(scope="module", autouse=True)
def traced_once(psp):
    """Trace `psp` once for its fp32 and its int8 export."""
    with tracing_once(psp):
        yield


@pytest.fixture(scope="module")
def logits_file(psp, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "logits.onnx"
    assert export_onnx(psp, path, normalized_inside=False) < 1e-4
    return path


@pytest.fixture(scope="module")
def paper():
    return trained_checkpoint(variant="paper")


@pytest.fixture(scope="module")
def labels_file(paper, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "labels.onnx"
    assert export_onnx(paper, path, output="labels", precision="fp16", normalized_inside=True) < 0.01
    largest = max(onnx.load(path).graph.initializer, key=lambda tensor: len(tensor.raw_data))
    assert largest.data_type == onnx.TensorProto.FLOAT16
    return path


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 33, 47), (1, 20, 50)])
def test_a_logits_file_predicts_as_its_checkpoint(psp, logits_file, shape):
    checkpoint, segment = open_network(logits_file, CPU, config.TestConfig())
    assert checkpoint.metadata() == psp.metadata()
    assert (segment.runtime, segment.precision) == ("ONNX Runtime (CPUExecutionProvider)", "fp32")
    batch, height, width = shape
    image = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    expected = build_segmenter(psp, "cpu")
    scores = expected.scores(image)
    assert (segment.scores(image) - scores).abs().max() < 1e-4 * scores.abs().max()
    labels = segment(image)
    assert labels.shape == shape and labels.dtype == torch.uint8
    assert (labels == expected(image)).float().mean() > 0.99


def test_the_papers_variant_assigns_to_no_part_of_a_map(labels_file):
    operators = {node.op_type for node in onnx.load(labels_file).graph.node}
    assert not [name for name in operators if name.startswith("Scatter")]  # which are slow


def test_labels_file_takes_uint8_images_and_gives_uint8_labels(paper, labels_file, monkeypatch):
    session = onnxruntime.InferenceSession(str(labels_file))
    image = torch.randint(0, 256, (2, 3, 48, 80), dtype=torch.uint8)
    (labels,) = session.run(None, {"image": image.numpy()})
    assert labels.shape == (2, 48, 80) and labels.dtype == np.uint8
    expected = build_segmenter(paper, "cpu")(image).numpy()
    assert (labels == expected).mean() > 0.98  # in half precision
    _, segment = open_network(labels_file, CPU, config.TestConfig())
    assert (segment(image).numpy() == labels).all()
    assert segment(image[..., :20, :20]).shape == (2, 20, 20)
    monkeypatch.setattr(segment, "_run", lambda image: torch.tensor([[[0, 2]]], dtype=torch.uint8).repeat(1, 32, 16))
    assert segment(image[:1, :, :20, :20]).unique().tolist() == [0, 2]  # nearest neighbour invents no class
    with pytest.raises(ValueError, match="only label maps"):
        segment.scores(image)


def test_metadata_name_classes_and_colours(logits_file):
    facts = json.loads(onnxruntime.InferenceSession(str(logits_file)).get_modelmeta().custom_metadata_map[METADATA])
    assert facts["classes"] == list(CLASSES.names) and facts["colors"] == [list(color) for color in CLASSES.colors]
    assert facts["output"] == "logits" and facts["normalized_inside"] is False


def test_a_file_that_differs_is_refused(psp, logits_file):
    state = psp.state_dict | {"classifier.1.weight": psp.state_dict["classifier.1.weight"] * 1.01}
    _, exported = open_network(logits_file, CPU, config.TestConfig())
    with pytest.raises(ValueError, match=r"differs from PyTorch: logits by 0\.0"):
        compare(exported, replace(psp, state_dict=state), "logits", tolerance=1e-4)


@pytest.mark.parametrize(
    ("config", "size"),
    [({}, (48, 80)), ({"test": {"short_side": None}}, (48, 80)), ({"test": {"short_side": 60}}, (60, 100))],
)
def test_the_documented_program_runs_a_labels_file(labels_file, tmp_path, monkeypatch, config, size):
    page = (Path(__file__).parent.parent / "docs" / "speed.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    model = onnx.load(labels_file)
    facts = json.loads(model.metadata_props[0].value)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(facts | {"config": config})})
    onnx.save(model, "network.onnx")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)).save("street.jpg")
    exec(program, {})
    colors = np.asarray(Image.open("street_labels.png"))
    assert colors.shape == (*size, 3) and {tuple(color) for color in colors.reshape(-1, 3)} <= set(CLASSES.colors)


def test_a_file_that_differs_is_not_left_behind(psp, tmp_path, monkeypatch):
    program = SimpleNamespace(
        model=SimpleNamespace(metadata_props={}), save=lambda path, **_: Path(path).write_bytes(b"-")
    )

    def differ(*_, **__):
        raise ValueError("differs")

    monkeypatch.setattr("utils.inference.export._trace", lambda *_, **__: (program, {}))
    monkeypatch.setattr("utils.inference.export.OnnxSegmenter", lambda path: path)
    monkeypatch.setattr("utils.inference.export.compare", differ)
    with pytest.raises(ValueError, match="differs"):
        export_onnx(psp, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_gives_nan_is_refused(psp, logits_file, monkeypatch):
    _, exported = open_network(logits_file, CPU, config.TestConfig())
    monkeypatch.setattr(exported, "scores", lambda image: torch.full((1,), torch.nan))
    with pytest.raises(ValueError, match="differs from PyTorch: logits by nan"):
        compare(exported, psp, "logits", tolerance=np.inf)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(psp, tmp_path, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(ValueError, match=rf"needs {missing}: pip install -r requirements-onnx\.txt"):
        export_onnx(psp, tmp_path / "x.onnx")


ADVICE = torch.onnx.OnnxExporterError("General advice,\nmany lines")


@pytest.mark.parametrize(
    ("error", "cause", "line"),
    [
        (ADVICE, RuntimeError("no such operator\nat all"), r"^the network cannot be exported: no such operator$"),
        (ModuleNotFoundError("no module x"), None, r"^onnxscript does not fit this PyTorch \(no module x\): pip "),
    ],
)
def test_an_export_that_fails_is_explained_in_one_line(tmp_path, monkeypatch, error, cause, line):
    def fail(*arguments, **options):
        raise error from cause

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ValueError, match=line):
        export_onnx(trained_checkpoint(width=0.25), tmp_path / "x.onnx")


def test_onnx_files_without_our_metadata_are_refused(tmp_path):
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.INT64, [1, 3])
    labels = onnx.helper.make_tensor_value_info("labels", onnx.TensorProto.INT64, [1, 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["image"], ["labels"])], "g", [image], [labels])
    onnx.save(onnx.helper.make_model(graph, ir_version=8), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"x\.onnx was not written by tools/export\.py"):
        open_network(tmp_path / "x.onnx", CPU, config.TestConfig())


def test_exhausted_memory_in_onnx_runtime_is_a_memory_error(logits_file):
    segmenter = OnnxSegmenter(logits_file)

    def run(outputs, inputs):
        raise Exception("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 8")

    segmenter.session = SimpleNamespace(run=run)
    with pytest.raises(MemoryError):
        segmenter.infer(np.zeros((1, 3, 64, 64), np.float32))


def test_without_onnx_runtime_a_file_cannot_be_opened(logits_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-onnx\.txt"):
        open_network(logits_file, CPU, config.TestConfig())


def test_an_onnx_runtime_that_cannot_be_loaded_is_not_called_missing_and_ends_before_the_export(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('DLL load failed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(torch.onnx, "export", lambda *arguments, **options: pytest.fail("exported"))
    with pytest.raises(ValueError, match=r"^ONNX Runtime cannot be loaded: DLL load failed$"):
        export_onnx(trained_checkpoint(width=0.25), tmp_path / "x.onnx")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"x\.onnx cannot be read as an ONNX file"):
        open_network(tmp_path / "x.onnx", CPU, config.TestConfig())
    with pytest.raises(FileNotFoundError, match=r"no ONNX file .*y\.onnx"):
        open_network(tmp_path / "y.onnx", CPU, config.TestConfig())


def test_int8_is_calibrated_on_images_and_named(psp, logits_file, tmp_path):
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 256, (4, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(4)]
    export_onnx(psp, tmp_path / "int8.onnx", calibration=images)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * logits_file.stat().st_size  # not all is quantised
    checkpoint, segment = open_network(tmp_path / "int8.onnx", CPU, config.TestConfig())
    assert segment.precision == "int8" and checkpoint.classes == CLASSES
    image = torch.from_numpy(images[0]).permute(2, 0, 1)[None]
    assert (segment(image) == build_segmenter(psp, "cpu")(image)).float().mean() > 0.9


def test_script_quantises_and_compares_on_the_calibration_images(
    psp, logits_file, folder_data, tmp_path, monkeypatch, run_script
):
    def export_given(checkpoint, path, **options):
        given.update(options)
        shutil.copy(logits_file, path)
        return {}

    given = {}
    save_checkpoint(tmp_path / "a.pth", psp)
    arguments = ["--ckpt", tmp_path / "a.pth", "--precision", "int8", "--calibrate", folder_data.root / "val"]
    monkeypatch.setattr(export, "export_onnx", export_given)
    out = run_script("tools.export", *arguments).out
    assert given["precision"] == "fp32" and len(given["calibration"]) == 2
    assert re.search(r"(99|100)\.\d+% of the labels of the calibration images agree", out)


def test_script_measures_the_miou_of_a_split(
    checkpoint_path, logits_file, folder_data, tmp_path, monkeypatch, run_script
):
    target = tmp_path / "net.onnx"
    monkeypatch.setattr(export, "export_onnx", lambda *a, **k: target.write_bytes(logits_file.read_bytes()) and 0)
    arguments = ["--ckpt", checkpoint_path, "--target", target, "--config", folder_data.config, "test.split=train"]
    assert "mIoU on the 4 images of train: " in run_script("tools.export", *arguments).out
    folder_data.values["dataset"]["classes"] = ["road", "sky", "truck"]
    folder_data.write()
    target.unlink()
    refused = run_script("tools.export", *arguments)
    assert refused.code == 2 and "name classes differently: car / truck" in refused.err and not target.exists()


def test_evaluation_and_inference_take_the_file(psp, logits_file, folder_data, tmp_path, run_script):
    save_checkpoint(tmp_path / "trained.pth", psp)
    figures = []
    for path in (logits_file, tmp_path / "trained.pth"):
        result = run_script("evaluate", "--config", folder_data.config, f"test.ckpt_path={path}")
        assert result.code == 0, result.err
        figures.append(json.loads((folder_data.ckpt_dir / "evaluate_output" / "metrics.json").read_text()))
    assert [(f["runtime"], f["precision"]) for f in figures] == [
        ("ONNX Runtime (CPUExecutionProvider)", "fp32"),
        ("PyTorch", "fp32"),
    ]
    assert figures[0]["miou"] == pytest.approx(figures[1]["miou"], abs=0.01)
    picture = folder_data.root / "val" / "0.png"
    result = run_script("inference", "--input", picture, "--output", tmp_path / "out", f"test.ckpt_path={logits_file}")
    assert result.code == 0, result.err
    assert (tmp_path / "out" / "0_pred.png").exists() and (tmp_path / "out" / "0_overlay.png").exists()


def test_inference_resizes_images_for_a_label_map_file(paper, labels_file, folder_data, tmp_path, run_script):
    picture, given = folder_data.root / "val" / "0.png", [f"test.ckpt_path={labels_file}", "test.short_side=96"]
    result = run_script("inference", "--input", picture, "--output", tmp_path / "out", *given)
    assert result.code == 0, result.err
    save_checkpoint(tmp_path / "paper.pth", paper)
    expected = Predictor(tmp_path / "paper.pth", "cpu", test=config.TestConfig(short_side=96)).predict(picture)
    assert (np.asarray(Image.open(tmp_path / "out" / "0_pred.png")) == expected).mean() > 0.8  # nearest, not bilinear
    result = run_script("inference", "--input", picture, "--output", tmp_path / "out", *given, "test.tta.flip=true")
    assert result.code == 2 and "--output logits" in result.err


def test_a_file_whose_input_is_in_half_precision_is_given_that(psp, tmp_path):
    facts = {"output": "logits", "align_corners": True, "precision": "fp16", "normalized_inside": False}
    half, sides = onnx.TensorProto.FLOAT16, ["B", 3, "H", "W"]
    image, logits = (onnx.helper.make_tensor_value_info(name, half, sides) for name in ("image", "logits"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["image"], ["logits"])], "g", [image], [logits])
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.helper.set_model_props(model, {METADATA: json.dumps(psp.metadata() | facts)})
    onnx.save(model, tmp_path / "half.onnx")
    scores = OnnxSegmenter(tmp_path / "half.onnx").scores(torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
    assert scores.shape == (1, 3, 32, 48) and scores.dtype == torch.float32


def test_a_file_runs_on_the_cpu_if_onnx_runtime_lacks_cuda(labels_file, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    segmenter = OnnxSegmenter(labels_file, "cuda")
    assert segmenter.device == torch.device("cpu") and "CPU" in segmenter.runtime


def test_onnx_runtime_gets_the_gpu_and_the_threads(monkeypatch):
    asked, names = [], ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def open_session(path, options, providers):
        asked.append((options.intra_op_num_threads, providers))

    fake = {"SessionOptions": SimpleNamespace, "get_available_providers": lambda: names}
    package = SimpleNamespace(**fake, InferenceSession=open_session)
    monkeypatch.setattr("utils.inference.onnx.import_onnxruntime", lambda: package)
    _open_session("a.onnx", torch.device("cuda", 1))
    assert asked == [
        (torch.get_num_threads(), [(names[0], {"device_id": 1, "cudnn_conv_algo_search": "HEURISTIC"}), names[1]])
    ]


def test_calibration_images_are_normalised_unless_the_file_does_so():
    own = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    checkpoint = Checkpoint(state_dict={}, backbone="resnet18", classes=CLASSES, normalization=own)
    image = np.full((2, 3, 3), 51, np.uint8)  # 0.2 of 255
    inside, outside = (_preparation(checkpoint, inside)(image) for inside in (True, False))
    assert inside.dtype == np.uint8 and (inside == 51).all()
    assert outside.dtype == np.float32 and outside[0, :, 0, 0].tolist() == pytest.approx([-1, -1.2, -4 / 3])


@torch.inference_mode()
def test_labels_inside_a_file_are_those_of_the_network(psp):
    network, image = psp.build(), torch.randn(1, 3, 64, 96)
    labels = _Graph(network, normalize=None, labels=True)(image)
    assert torch.equal(labels.long(), network(image)["out"].argmax(1))
