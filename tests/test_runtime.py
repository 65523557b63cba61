import os
import signal
import sys
from contextlib import nullcontext

import pytest
import torch

from tests.conftest import CPU
from utils import distributed, runtime


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that fakes a number of CUDA devices, and returns the list of devices made current."""

    def pretend(count: int) -> list[torch.device]:
        current = []
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
        return current

    monkeypatch.setenv("OMP_NUM_THREADS", "")  # restored afterwards, as torchrun's environment is this process's
    monkeypatch.delenv("OMP_NUM_THREADS")
    return pretend


@pytest.mark.parametrize("number", ["0", "1", "7", " 0 "])
def test_without_cuda_any_gpu_number_selects_the_cpu(gpus, number):
    gpus(0)
    device = runtime.select_device(number)
    assert device == torch.device("cpu")
    assert "no CUDA" in runtime.describe(device)


def test_selected_gpu_becomes_the_current_device(gpus):
    current = gpus(2)
    assert runtime.select_device("0") == torch.device("cuda", 0)
    assert runtime.select_device("1") == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert runtime.describe(torch.device("cuda", 1)) == "cuda:1 (GPU of cuda:1)"


def test_under_torchrun_each_process_selects_the_gpu_of_its_local_rank(gpus, monkeypatch):
    current = gpus(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert runtime.select_device("0, 3") == torch.device("cuda", 1)  # numbers from before CUDA_VISIBLE_DEVICES was set
    assert current == [torch.device("cuda", 1)]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"more processes than this machine has GPUs; set --nproc_per_node=2"):
        runtime.select_device("0")


@pytest.mark.parametrize("function", [runtime.select_device, distributed.start_process_per_gpu])
@pytest.mark.parametrize("number", ["2", "0, 2"])
def test_nonexistent_gpu_is_an_error(gpus, function, number):
    current = gpus(2)
    with pytest.raises(ValueError, match=rf"train\.specific_gpu_num is {number}, but this machine has 2 GPU"):
        function(number)
    assert current == []


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("number", ["-1", "0,", "", "cuda:0", "first", "1.0", "²"])
def test_invalid_gpu_number_is_an_error(gpus, count, number):
    gpus(count)
    with pytest.raises(ValueError, match=r"train\.specific_gpu_num"):
        runtime.select_device(number)


@pytest.mark.parametrize(("visible", "started"), [("", "0,2"), ("4,5,7", "4,7"), ("GPU-a,GPU-b,GPU-c", "GPU-a,GPU-c")])
def test_one_process_is_started_per_gpu_among_the_visible_ones(gpus, monkeypatch, visible, started):
    gpus(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    commands = []
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", "x.yaml", "train.epochs=3"])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    distributed.start_process_per_gpu("0, 2")
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == started
    assert "--nproc_per_node=2" in commands[0]
    assert commands[0][-4:] == ["train.py", "--config", "x.yaml", "train.epochs=3"]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_torchrun_ignores_the_end_of_a_terminal_under_nohup(gpus, monkeypatch, handler):
    gpus(2)
    monkeypatch.setattr(os, "execv", lambda program, command: None)
    monkeypatch.setattr(signal, "getsignal", lambda number: handler)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("PET_SIGNALS_TO_HANDLE", raising=False)
    distributed.start_process_per_gpu("0, 1")
    ignored = handler == signal.SIG_IGN
    assert os.environ.pop("PET_SIGNALS_TO_HANDLE", None) == ("SIGTERM,SIGINT,SIGQUIT" if ignored else None)


def test_a_launcher_of_one_process_per_machine_need_not_set_the_local_rank(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert distributed.cuda_indices("1") == [1]


def test_no_processes_are_started_for_one_gpu_or_under_torchrun(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setattr(os, "execv", None)
    distributed.start_process_per_gpu("1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    distributed.start_process_per_gpu("0, 1")
    gpus(0)
    distributed.start_process_per_gpu("0, 1")


def test_several_gpus_are_an_error_for_a_single_process(gpus):
    gpus(2)
    with pytest.raises(ValueError, match=r"lists 2 GPUs .* uses only one; add train\.specific_gpu_num=0"):
        runtime.select_device("0, 1")
    gpus(0)
    assert runtime.select_device("0, 1").type == "cpu"  # to try out a configuration for two GPUs


def test_random_state_is_restored(tmp_path):
    runtime.seed_torch(3)
    torch.randn(1)  # normal numbers are generated in pairs, one of which is kept
    torch.save(runtime.random_state(), tmp_path / "state.pth")
    following = torch.randn(2).tolist()
    runtime.seed_torch(4)
    runtime.set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert torch.randn(2).tolist() == following


def test_seed_determines_the_random_numbers():
    drawn = []
    for seed in (3, 3, 4):
        runtime.seed_torch(seed)
        drawn.append(torch.rand(()).item())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("cores", "kind", "workers"),
    [(1, "cpu", 0), (2, "cpu", 1), (16, "cpu", 2), (1, "cuda", 1), (6, "cuda", 6), (64, "cuda", 8)],
)
def test_default_number_of_loader_workers(monkeypatch, cores, kind, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert runtime.loader_workers(None, torch.device(kind), training=True) == workers
    assert runtime.loader_workers(None, torch.device(kind), training=False) == (workers if kind == "cuda" else 0)


def test_local_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert runtime.loader_workers(None, torch.device("cuda"), training=True) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert runtime.loader_workers(None, torch.device("cuda"), training=True) == 1


def test_only_the_first_process_continues_with_the_restored_state(monkeypatch):
    runtime.seed_torch(0)
    state, drawn = runtime.random_state(), []
    for number in (0, 1, 2, 1):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        runtime.set_random_state(state)
        drawn.append(torch.rand(()).item())
    assert len(set(drawn)) == 3 and drawn[1] == drawn[3]
    monkeypatch.undo()
    runtime.seed_torch(0)
    assert drawn[0] == torch.rand(()).item()


@pytest.mark.parametrize("training", [True, False])
def test_configured_number_of_loader_workers(training):
    assert runtime.loader_workers(0, torch.device("cuda"), training=training) == 0
    assert runtime.loader_workers(5, torch.device("cpu"), training=training) == 5


@pytest.mark.parametrize(("bf16", "amx"), [(False, False), (True, False), (True, True), (False, True)])
def test_auto_is_bf16_only_where_the_cpu_computes_in_it(monkeypatch, bf16, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    cpu = torch.device("cpu")
    assert runtime.choose_precision("auto", cpu) == ("bf16" if bf16 or amx else "fp32")
    assert [runtime.choose_precision(name, cpu) for name in ("off", "fp32", "bf16", "fp16")] == [
        "fp32",
        "fp32",
        "bf16",
        "fp16",
    ]


@pytest.mark.parametrize(("native", "printed"), [(True, ""), (False, "bf16 is emulated on this device")])
def test_warning_where_bf16_is_emulated(monkeypatch, capsys, native, printed):
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: native)
    for precision in ("fp32", "bf16"):
        runtime.warn_of_emulation(precision, torch.device("cpu"))
    errors = capsys.readouterr().err
    assert errors.startswith(printed) and errors.count("\n") == bool(printed)


@pytest.mark.parametrize(
    ("native", "capability", "expected"), [(True, (8, 6), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "fp32")]
)
def test_auto_precision_on_gpus(monkeypatch, native, capability, expected):
    current = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(current.append(device)))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native)
    assert runtime.choose_precision("auto", torch.device("cuda", 1)) == expected
    assert current == [torch.device("cuda", 1)]  # PyTorch answers for the current one only


def test_cudnn_times_its_algorithms_only_where_asked_to(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with pytest.raises(KeyError), runtime.fastest_convolutions():
        assert torch.backends.cudnn.benchmark
        raise KeyError
    assert not torch.backends.cudnn.benchmark


def test_available_runtimes_are_what_the_machine_and_the_packages_can_do(monkeypatch):
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(runtime, "installed", lambda *packages: "openvino" not in packages)
    assert runtime.available_runtimes(CPU) == {"pytorch": ["fp32"], "onnx": ["fp32"]}
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(runtime, "installed", lambda *packages: "onnxruntime" not in packages)
    assert runtime.available_runtimes(CPU) == {"pytorch": ["fp32", "bf16"], "openvino": ["fp32", "bf16"]}
    monkeypatch.setattr(runtime, "emulates_bf16", lambda device: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert runtime.available_runtimes(torch.device("cuda", 0))["pytorch"] == ["fp32", "fp16"]


@pytest.mark.parametrize(
    ("cpu", "packages", "precision", "expected"),
    [
        ("AVX512", {"onnx", "onnxscript", "onnxruntime", "openvino"}, "fp32", "openvino"),
        ("AVX2", {"onnx", "onnxscript", "onnxruntime", "openvino"}, "fp32", "onnx"),
        ("AVX2", {"onnx", "onnxscript", "openvino"}, "fp32", "openvino"),
        ("AVX512", {"onnx", "onnxscript", "onnxruntime"}, "fp32", "onnx"),
        ("AVX512", {"onnxruntime", "openvino"}, "fp32", "pytorch"),  # nothing to export with
        ("AVX512", {"onnx", "onnxscript", "onnxruntime", "openvino"}, "bf16", "openvino"),
        ("AVX512", {"onnx", "onnxscript", "onnxruntime"}, "bf16", "pytorch"),
        ("AVX512", {"onnx", "onnxscript", "onnxruntime", "openvino"}, "fp16", "pytorch"),
    ],
)
def test_auto_is_the_fastest_installed_runtime(monkeypatch, cpu, packages, precision, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(runtime, "installed", lambda *names: set(names) <= packages)
    assert runtime.choose_runtime("auto", CPU, precision) == expected
    assert runtime.choose_runtime("auto", torch.device("cuda"), precision) == "pytorch"
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: False)
    assert runtime.choose_runtime("auto", CPU, "bf16") == "pytorch"


def test_a_precision_that_a_runtime_lacks_is_refused():
    with pytest.raises(ValueError, match=r"test\.precision=bf16 is not available with test\.runtime=onnx"):
        runtime.choose_runtime("onnx", CPU, "bf16")
    with pytest.raises(ValueError, match=r"test\.precision=fp16 is not .*=openvino; set fp32 or bf16, or"):
        runtime.choose_runtime("openvino", CPU, "fp16")  # before the network is exported


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_autocast_computes_in_the_precision(precision):
    with runtime.autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == runtime.DTYPES[precision]
