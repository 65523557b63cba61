"""CUDA paths, skipped without a GPU: ICNET_TEST_CUDA=1 pytest tests/test_cuda.py"""

import json

import pytest
import torch

from dataset.transforms import Normalize
from models import ICNet
from tests.conftest import CLASSES
from utils.inference.segmenter import build_segmenter
from utils.runtime import gradient_scaler, select_device
from utils.weights.checkpoint import Checkpoint, read_checkpoint

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


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_training_runs_resumes_and_evaluates(folder_data, run_script, amp):
    arguments = ["--config", folder_data.config, f"train.amp={amp}", "train.ema=0.9", "train.epochs=2"]
    first = run_script("train", *arguments, "train.resume=auto")
    assert first.code == 0 and "cuda:0" in first.out, first.err
    records = [json.loads(line) for line in (folder_data.ckpt_dir / "train.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2] and all(record["loss"] > 0 for record in records)
    again = run_script("train", *arguments, "train.resume=auto")
    assert again.code == 0 and "resumed from" in again.out, again.err
    assert run_script("evaluate", "--config", folder_data.config).code == 0


def test_a_run_begun_on_the_cpu_resumes_on_the_gpu(folder_data, run_script, monkeypatch):
    arguments = ["--config", folder_data.config, "train.val_epoch=2", "train.epochs=2"]
    with monkeypatch.context() as cpu:
        cpu.setattr(torch.cuda, "is_available", lambda: False)
        assert run_script("train", *arguments).code == 0
    last = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert last.training is not None
    resumed = run_script("train", *arguments, "train.resume=auto", "train.amp=fp16")
    assert resumed.code == 0 and "cuda:0" in resumed.out, resumed.err


def test_label_maps_equal_those_of_the_cpu(checkpoint, image):
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


@several
def test_an_exception_in_one_of_two_processes_ends_both(folder_data):
    import subprocess
    import sys

    (folder_data.root / "train" / "0.png").write_bytes(b"not an image")
    command = [sys.executable, "train.py", "--config", str(folder_data.config), 'train.specific_gpu_num="0,1"']
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "0.png" in done.stderr


def test_the_scaler_is_enabled_for_fp16_alone():
    device = torch.device("cuda")
    assert [gradient_scaler(device, precision).is_enabled() for precision in ("fp32", "bf16", "fp16")] == [0, 0, 1]
