"""Device, precision, inference runtime, and random seeds."""

import importlib.util
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from utils import distributed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(gpus: str) -> torch.device:
    """Select the given GPU (under torchrun, this process's) as the current CUDA device, or the CPU without CUDA."""
    indices = distributed.cuda_indices(gpus)
    if not indices:
        return torch.device("cpu")
    if len(indices) > 1:
        raise ValueError(
            f"train.specific_gpu_num lists {len(indices)} GPUs ({gpus}), but this script uses only one; "
            f"add train.specific_gpu_num={indices[0]}"
        )
    device = torch.device("cuda", indices[0])
    torch.cuda.set_device(device)  # for NCCL, pinned memory and whatever else uses the current device
    return device


def choose_precision(setting: str, device: torch.device) -> str:
    """Resolve "auto": bf16 if the hardware has it, fp16 on older GPUs with tensor cores, else fp32. "off" is fp32."""
    if setting != "auto":
        return "fp32" if setting == "off" else setting
    if device.type == "cuda":
        old = "fp16" if torch.cuda.get_device_capability(device) >= (7, 0) else "fp32"
        return old if emulates_bf16(device) else "bf16"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16: AVX512-BF16 or AMX."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def emulates_bf16(device: torch.device) -> bool:
    """Return whether PyTorch only emulates bf16 on the device: with AVX2, four to six times slower than fp32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return not torch.cuda.is_bf16_supported(including_emulation=False)
    return platform.machine() in ("x86_64", "AMD64") and not cpu_has_bf16()


def warn_of_emulation(precision: str, device: torch.device) -> None:
    """Print a warning in the first process if PyTorch is about to emulate bf16."""
    if distributed.rank() == 0 and precision == "bf16" and emulates_bf16(device):
        hint = "train.amp=auto or test.precision=auto avoids it"
        print(f"bf16 is emulated on this device, several times slower than fp32; {hint}", file=sys.stderr)


def choose_runtime(setting: str, device: torch.device, precision: str) -> str:
    """Resolve "auto" to the fastest installed runtime for checkpoints: "pytorch", "onnx" or "openvino".

    On a CPU that is OpenVINO with AVX-512 and ONNX Runtime without (docs/speed.md has the figures); both need the
    packages that export networks, and neither computes in fp16 here.

    Raises:
        ValueError: a precision that the runtime does not have.
    """
    available = {"onnx": ("fp32",), "openvino": ("fp32", "bf16")}.get(setting)
    if available is not None and precision not in available:
        raise ValueError(
            f"test.precision={precision} is not available with test.runtime={setting}; "
            f"set {' or '.join(available)}, or test.runtime=auto"
        )
    if setting != "auto":
        return setting
    if device.type != "cpu":
        return "pytorch"
    usable = available_runtimes(device)
    names = ("openvino", "onnx") if "AVX512" in torch.backends.cpu.get_cpu_capability() else ("onnx", "openvino")
    return next((name for name in names if precision in usable.get(name, ())), "pytorch")


def available_runtimes(device: torch.device) -> dict[str, list[str]]:
    """Return the precisions of each usable runtime: those of PyTorch on the device, of the others on the CPU."""
    found = {"pytorch": list(dict.fromkeys(["fp32", choose_precision("auto", device)]))}
    if installed("onnx", "onnxscript", "onnxruntime"):
        found["onnx"] = ["fp32"]
    if installed("onnx", "onnxscript", "openvino"):
        found["openvino"] = ["fp32", "bf16"] if cpu_has_bf16() else ["fp32"]
    return found


def installed(*packages: str) -> bool:
    """Return whether all packages are installed."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to "bf16" or "fp16"; disabled for "fp32"."""
    dtype = DTYPES["bf16" if precision == "fp32" else precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Build the loss scaler of fp16 training; disabled for other precisions."""
    if precision == "fp16":  # the schedule includes steps that the scaler skips, such as the first
        warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def loader_workers(setting: int | None, device: torch.device, *, training: bool) -> int:
    """Return the number of data loader workers: the setting, or a default for this process's share of the CPU cores.

    Evaluation on a CPU has none by default, as the network occupies all cores, see `utils.io.pipeline.in_rounds`.
    """
    if setting is not None:
        return setting
    if device.type != "cuda" and not training:
        return 0
    cores = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(cores, 8) if device.type == "cuda" else min(cores // 2, 2)  # on a CPU the network needs the cores


def available_cores() -> int:
    """Return the number of CPU cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(device: torch.device) -> str:
    """Describe the device for logs."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    missing = "" if torch.cuda.is_available() else " (no CUDA device found)"
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}{missing}"


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms for each new input size: worth it for training crops, which are all of one size."""
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


def synchronize(device: torch.device) -> None:
    """Wait for pending work on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seed_torch(seed: int) -> None:
    """Seed PyTorch, differently in each process; augmentation and shuffling have their own generators."""
    torch.manual_seed(seed + distributed.rank())


def random_state() -> dict[str, Any]:
    """Return the state of PyTorch's random generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the state that `random_state` returned in process 0; other processes reseed, each differently."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if distributed.rank() > 0:
        seed_torch(int(torch.randint(2**31, ())))
