import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models import ICNet
from tests.conftest import CLASSES
from tools import benchmark
from tools.benchmarking import contenders, timing
from tools.benchmarking.contenders import CONTENDERS, DEFAULT, RUNTIMES, Contender, PublishedExecution, Workload, usable
from tools.benchmarking.timing import count_flops, peak_flops, peak_memory, time_in_turns
from utils import runtime
from utils.weights.checkpoint import Checkpoint, save_checkpoint


@torch.inference_mode()
def test_published_execution_gives_the_same_logits():
    network = ICNet(5, "resnet18").eval()
    image = torch.randn(1, 3, 97, 130)
    expected, found = network(image)["out"], PublishedExecution(network)(image)["out"]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_published_execution_costs_as_many_flops_as_the_published_code():
    with torch.device("meta"):
        network, image = ICNet(19, "resnet50_v1s").eval(), torch.empty(1, 3, 1024, 2048)
    assert count_flops(PublishedExecution(network), image) / 1e9 == pytest.approx(589, abs=1)


def test_contenders_that_cannot_run_are_left_out(tmp_path, monkeypatch, capsys):
    def absent(workload):
        raise ValueError("not installed")

    monkeypatch.setitem(CONTENDERS, "onnx", absent)
    monkeypatch.setitem(CONTENDERS, "eager", lambda workload: None)
    assert usable(["eager", "onnx"], None) == {"eager": None}
    assert capsys.readouterr().out == "without onnx: not installed\n"
    assert {*DEFAULT, *RUNTIMES} <= set(CONTENDERS)


def test_emulated_bf16_is_not_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: False)
    tiny = {"backbone": "resnet18", "size": (64, 96), "batch": 1, "device": torch.device("cpu"), "precision": "bf16"}
    workload = Workload(folder=tmp_path, ckpt=None, **tiny)
    assert usable(["eager-bf16"], workload) == {}
    assert capsys.readouterr().out.startswith("without eager-bf16: bf16 is emulated")
    monkeypatch.setattr(benchmark, "peak_flops", lambda *_: pytest.fail("takes minutes"))
    monkeypatch.setattr(benchmark, "peak_memory", lambda *_: None)
    assert benchmark.compare(workload, usable(["eager"], workload), repeats=1)["eager"]["share_of_peak"] is None


def test_a_variant_cannot_run_the_published_way(tmp_path):
    tiny = {"backbone": "resnet18", "size": (64, 96), "batch": 1, "device": torch.device("cpu"), "precision": "fp32"}
    workload = Workload(folder=tmp_path, ckpt=None, variant="paper", **tiny)
    assert workload.image().shape == (1, 3, 64, 96) and workload.image().dtype == torch.uint8
    assert CONTENDERS["eager"](workload).predict(workload.image()).shape == (1, 64, 96)
    with pytest.raises(
        ValueError, match="the variant paper cannot be run as in the published code; remove 'published'"
    ):
        CONTENDERS["published"](workload)
    assert list(usable(DEFAULT[:2], workload)) == ["eager"]


def test_jobs_take_turns_after_the_warm_up():
    order = []
    seconds = time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"conv": [1.0, 3.0], "matmul": [100.0]}, 2 * 9 * 256 * 256 * 128 * 128),
        ({"conv": [1.0], "matmul": [1.0]}, 2 * 4096**3),
    ],
)
def test_the_peak_is_that_of_the_faster_of_convolution_and_matrix_product(monkeypatch, seconds, expected):
    monkeypatch.setattr(timing, "time_in_turns", lambda jobs, **options: seconds)
    assert peak_flops(torch.device("cpu"), torch.float32) == expected


def test_peak_memory_is_what_the_job_allocates():
    make_job = partial(partial, np.ones, 50 * 2**17)  # of 8 bytes; the fresh process need not import this file
    assert peak_memory(make_job, torch.device("cpu")) == pytest.approx(50 * 2**20, rel=0.1)


def test_script_prints_tables_and_writes_json(checkpoint_path, tmp_path, monkeypatch, run_script):
    monkeypatch.setattr(benchmark, "peak_flops", lambda *args, **kwargs: 1e9)
    monkeypatch.setattr(benchmark, "peak_memory", lambda *args: 10**6)
    what = ["--what", "predict", "stages", "train", "--only", "published", "eager", "deeplabv3"]
    size = ["--size", "96x64", "--crop", "64", "--ckpt", str(checkpoint_path), "--repeats", "1", "--batch", "2"]
    code, out, err = run_script("tools.benchmark", *what, *size, "--json", tmp_path / "speed.json")
    assert code == 0, err
    results = json.loads((tmp_path / "speed.json").read_text())
    assert set(results) == {"machine", "arguments", "predict", "stages", "train"}
    assert results["predict"]["published"]["ratio"] == 1.0
    assert results["predict"]["eager"]["gflop"] < results["predict"]["published"]["gflop"]
    assert results["predict"]["eager"]["same_labels"] > 0.999
    assert results["predict"]["deeplabv3"]["same_labels"] is None
    lines = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()]
    rows = {cells[1]: cells[2:-1] for cells in lines if len(cells) > 1}
    assert all(len(rows[name]) == len(benchmark.HEADINGS) for name in results["predict"])
    assert rows["eager"][6] == "1" and rows["deeplabv3"][-1] == "-"
    assert rows["label map"][0] == f"{results['stages']['label map']:.1f}" and "train.py" in rows


def test_machine_lists_the_vector_extensions_of_the_cpu(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: "model name\t: A CPU\nflags\t\t: fpu avx2 amx_bf16\n")
    capability = torch.backends.cpu.get_cpu_capability()
    assert benchmark.describe_machine(torch.device("cpu")).startswith(f"A CPU ({capability}, avx2, amx_bf16), ")


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--size", "20x", "is not WIDTHxHEIGHT"),
        ("--device", "gpu", "is not a device of this machine"),
        ("--device", "cuda:9", "is not a device of this machine"),
        ("--device", "cpu:", "is not a device of this machine"),
        ("--batch", "0", "is not a whole number of at least 1"),
        ("--repeats", "-1", "is not a whole number of at least 1"),
        ("--crop", "31", "is not a whole number of at least 32"),
    ],
)
def test_impossible_option_is_refused(run_script, option, value, problem):
    refused = run_script("tools.benchmark", option, value)
    assert refused.code == 2 and f"{value!r} {problem}" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--what", "runtimes", "--ckpt", "network.onnx"], "network.onnx"),
        (["--what", "predict", "--backbone", "resnet5"], "resnet5"),
        (["--what", "runtimes", "--ckpt", "lacking.pth"], "lacking.pth"),
        (["--what", "runtimes", "--only", "eager"], "--only selects contenders of --what predict, which is missing"),
        (["--json", "network.onnx/speed.json"], "is a file; set --json to another folder"),
        (["--json", "."], "--json . is a folder; name a file"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(tmp_path, monkeypatch, run_script, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path("network.onnx").write_bytes(b"-")
    state = {"conv_sub2.bn.weight": torch.ones(1)}
    save_checkpoint("lacking.pth", Checkpoint(state_dict=state, backbone="resnet18", classes=CLASSES))
    monkeypatch.setattr(benchmark, "compare", lambda *args: pytest.fail("measured"))
    code, _, err = run_script("tools.benchmark", *arguments)
    assert code == 2 and words in err and err.count("\n") == 1


def test_figures_by_hand(monkeypatch):
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    peaks = {torch.float32: 1e9, torch.bfloat16: 4e9}
    monkeypatch.setattr(benchmark, "peak_flops", lambda device, dtype: peaks[dtype])
    times = {"a": [2.0, 4.0], "b": [2.0, 4.0], "c": [0.5, 1.0]}
    monkeypatch.setattr(benchmark, "time_in_turns", lambda jobs, **options: times)
    monkeypatch.setattr(benchmark, "peak_memory", lambda *args: 3e6)
    own = {"a": "fp32", "b": "bf16", "c": "int8"}
    found = {
        name: Contender(lambda image: image[:, 0], precision=precision, memory=name != "b")
        for name, precision in own.items()
    }
    facts = {"folder": Path(), "ckpt": None, "backbone": "resnet18", "device": torch.device("cpu"), "precision": "fp32"}
    rows = benchmark.compare(Workload(size=(64, 96), batch=2, **facts), found, repeats=2)
    assert rows["a"]["share_of_peak"] == pytest.approx(4 * rows["b"]["share_of_peak"])  # of each precision's own peak
    assert rows["c"]["share_of_peak"] is None
    assert [row["ratio"] for row in rows.values()] == [1, 1, 4]
    assert [row["memory_mb"] for row in rows.values()] == [3, None, 3]
    assert rows["c"]["median_ms"] == 750 and rows["c"]["images_per_second"] == pytest.approx(2 / 0.75)


@pytest.mark.parametrize(("name", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_int8_is_a_file_of_its_own_calibrated_on_the_image(tmp_path, monkeypatch, name, suffix):
    def export(checkpoint, path, *, calibration, **options):
        written.append((path.name, len(calibration)))
        path.touch()

    written, cpu = [], torch.device("cpu")
    for function in ("export_onnx", "export_openvino"):
        monkeypatch.setattr(contenders, function, export)
    for segmenter in ("OnnxSegmenter", "OpenVinoSegmenter"):
        monkeypatch.setattr(contenders, segmenter, lambda path, *_, **__: SimpleNamespace(file=path.name, device=cpu))
    monkeypatch.setattr(contenders, "has_bf16", lambda: False)
    monkeypatch.setattr(Workload, "checkpoint", lambda self: None)
    tiny = {"backbone": "resnet18", "size": (64, 96), "batch": 1, "device": torch.device("cpu"), "precision": "fp32"}
    workload = Workload(folder=tmp_path, ckpt=None, **tiny)
    found = [CONTENDERS[key](workload) for key in (name, f"{name}-int8", name)]
    assert written == [(f"network{suffix}", 0), (f"int8{suffix}", 1)]
    used = [(contender.predict.file, contender.precision) for contender in found[:2]]
    assert used == [(f"network{suffix}", "fp32"), (f"int8{suffix}", "int8")]


def test_what_was_asked_for_is_measured(monkeypatch, run_script):
    seen = []
    monkeypatch.setattr(Workload, "checkpoint", lambda self: SimpleNamespace(build=lambda: None))
    monkeypatch.setattr(benchmark, "compare", lambda *given: seen.append(given))
    monkeypatch.setitem(CONTENDERS, "eager", lambda workload: "built")
    options = "--variant psp --backbone resnet18 --size 96x64 --batch 2 --precision bf16 --repeats 3 --only eager"
    assert run_script("tools.benchmark", *options.split()).code == 0
    ((workload, *others),) = seen
    assert (workload.variant, workload.backbone, workload.precision) == ("psp", "resnet18", "bf16")
    assert (workload.size, workload.batch, others) == ((64, 96), 2, [{"eager": "built"}, 3])
