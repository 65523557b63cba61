"""CUDA paths, skipped without a GPU: ICNET_TEST_CUDA=1 pytest tests/test_cuda.py"""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from dataset.transforms import Normalize
from models import ICNet
from tests.conftest import CLASSES
from tools import benchmark
from tools.benchmarking.contenders import Contender, Workload
from utils.config import TestConfig as Settings
from utils.inference.predictor import Predictor
from utils.inference.segmenter import build_segmenter
from utils.runtime import gradient_scaler, select_device
from utils.training.records import Records
from utils.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
several = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    network = ICNet(len(CLASSES), "resnet18").train()
    with torch.no_grad():
        for _ in range(10):
            network(torch.randn(4, 3, 64, 64))
    return Checkpoint(state_dict=network.state_dict(), backbone="resnet18", classes=CLASSES)


@pytest.fixture
def image():
    return torch.randint(0, 256, (2, 3, 97, 161), dtype=torch.uint8)


def stop_after_an_epoch(monkeypatch):
    log_epoch = Records.log_epoch

    def terminate(self, record, **options):
        log_epoch(self, record, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Records, "log_epoch", terminate)


def losses(folder_data):
    lines = (folder_data.ckpt_dir / "train.jsonl").read_text().splitlines()
    return {record["epoch"]: record["loss"] for record in map(json.loads, lines)}


@pytest.mark.parametrize("more", [["off"], ["bf16"], ["fp16", "train.accumulate=2", "optimizer.clip_norm=1.0"]])
def test_training_stops_resumes_and_evaluates(folder_data, run_script, monkeypatch, more):
    arguments = ["--config", folder_data.config, "train.ema=0.9", "train.epochs=2", "train.resume=auto"]
    arguments += [f"train.amp={more[0]}", *more[1:]]
    with monkeypatch.context() as context:
        stop_after_an_epoch(context)
        first = run_script("train", *arguments)
    assert first.code == 130 and "cuda:0" in first.out, first.err
    again = run_script("train", *arguments)
    assert again.code == 0 and "resumed from" in again.out, again.err
    assert list(losses(folder_data)) == [1, 2] and min(losses(folder_data).values()) > 0
    assert run_script("evaluate", "--config", folder_data.config).code == 0


@pytest.mark.parametrize("override", ["loss.ohem=0.7", "loss.balance=log", "loss.distill={checkpoint}"])
def test_losses_are_those_of_the_cpu(folder_data, run_script, monkeypatch, checkpoint_path, override):
    command = ["train", "--config", folder_data.config, "train.epochs=1", "train.amp=off"]
    command.append(override.format(checkpoint=checkpoint_path))
    found = []
    for device in ("cpu", "cuda"):
        with monkeypatch.context() as context:
            if device == "cpu":
                context.setattr(torch.cuda, "is_available", lambda: False)
            result = run_script(*command, f"train.ckpt_dir={folder_data.ckpt_dir / device}")
        assert result.code == 0, result.err
        (line,) = (folder_data.ckpt_dir / device / "train.jsonl").read_text().splitlines()
        found.append(json.loads(line)["loss"])
    assert found[1] == pytest.approx(found[0], rel=0.01)


def test_a_run_begun_on_the_cpu_continues_on_the_gpu(folder_data, run_script, monkeypatch):
    arguments = ["--config", folder_data.config, "train.val_epoch=2", "train.epochs=2"]
    with monkeypatch.context() as cpu:
        cpu.setattr(torch.cuda, "is_available", lambda: False)
        stop_after_an_epoch(cpu)
        assert run_script("train", *arguments).code == 130
    resumed = run_script("train", *arguments, "train.resume=auto", "train.amp=fp16")
    assert resumed.code == 0 and "cuda:0" in resumed.out, resumed.err
    assert list(losses(folder_data)) == [1, 2]


def test_the_predictor_knows_the_index_of_its_gpu(checkpoint_path, image):
    predictor = Predictor(checkpoint_path, "cuda")
    assert predictor.segmenter.device == torch.device("cuda", torch.cuda.current_device())
    assert predictor.batch_size == 8
    assert Predictor(checkpoint_path, "cuda", test=Settings(compile="default")).batch_size == 1
    frames = [image[0].permute(1, 2, 0).numpy()] * 3
    assert len(list(predictor.stream(frames))) == 3


def test_label_maps_equal_those_of_the_cpu(checkpoint, image, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # in which fp32 convolutions have 10 bits
    expected = build_segmenter(checkpoint, "cpu")(image)
    for precision, share in (("fp32", 0.999), ("bf16", 0.95), ("fp16", 0.98)):
        labels = build_segmenter(checkpoint, "cuda", precision=precision)(image).cpu()
        assert (labels == expected).float().mean() > share, precision


@pytest.mark.parametrize("mode", ["default", "cuda_graphs"])
def test_compiled_networks_give_the_same(checkpoint, image, mode):
    expected = build_segmenter(checkpoint, "cuda")(image)
    compiled = build_segmenter(checkpoint, "cuda", compiled=mode)
    for _ in range(3):
        assert (compiled(image) == expected).float().mean() > 0.999


def test_onnx_runtime_on_the_gpu(checkpoint, image, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    from utils.inference.export import export_onnx
    from utils.inference.onnx import OnnxSegmenter

    export_onnx(checkpoint, tmp_path / "network.onnx")
    segmenter = OnnxSegmenter(tmp_path / "network.onnx", "cuda:0")
    assert segmenter.runtime == "ONNX Runtime (CUDAExecutionProvider)"
    assert (segmenter(image) == build_segmenter(checkpoint, "cpu")(image)).float().mean() > 0.99


def test_the_benchmark_tells_what_runs_on_the_cpu(tmp_path, monkeypatch, capsys):
    contenders = {name: Contender(lambda image: image[:, 0], on_cpu=name == "b") for name in "ab"}
    facts = {"folder": tmp_path, "ckpt": None, "backbone": "resnet18", "precision": "fp32"}
    workload = Workload(size=(64, 96), batch=1, device=torch.device("cuda"), **facts)
    monkeypatch.setattr(benchmark, "peak_memory", lambda *arguments: 1)
    rows = benchmark.compare(workload, contenders, repeats=1)
    assert rows["a"]["memory_mb"] and rows["a"]["share_of_peak"]
    assert rows["b"]["memory_mb"] is rows["b"]["share_of_peak"] is None
    assert "on the CPU: b\n" in capsys.readouterr().out


def test_normalisation_copies_its_constants_once(image):
    normalize, device = Normalize(), torch.device("cuda")
    on_device = image.to(device)
    normalize(on_device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        normalize(on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@several
def test_the_second_gpu_is_used_when_named(folder_data, run_script):
    assert select_device("1") == torch.device("cuda", 1) and torch.cuda.current_device() == 1
    result = run_script("train", "--config", folder_data.config, 'train.specific_gpu_num="1"')
    assert result.code == 0 and "cuda:1" in result.out, result.err


def on_two_gpus(folder_data, *overrides):
    command = [sys.executable, "train.py", "--config", folder_data.config, 'train.specific_gpu_num="0,1"', *overrides]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


@several
def test_two_gpus_train_together(folder_data):
    done = on_two_gpus(folder_data, "train.epochs=2", "train.train_batch_size=4", "train.ema=0.9")
    assert done.returncode == 0, done.stderr
    assert list(losses(folder_data)) == [1, 2]


@several
@pytest.mark.parametrize("size", [8, 100])  # found before training; in the first epoch, while the other trains
def test_an_exception_in_one_of_two_processes_ends_both(folder_data, size):
    file = folder_data.root / "train" / "0.png"
    file.write_bytes(file.read_bytes()[:size])
    done = on_two_gpus(folder_data)
    assert done.returncode != 0 and "0.png" in done.stderr


def test_the_scaler_is_enabled_for_fp16_alone():
    device = torch.device("cuda")
    assert [gradient_scaler(device, precision).is_enabled() for precision in ("fp32", "bf16", "fp16")] == [0, 0, 1]
