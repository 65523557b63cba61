"""Device, precision, distributed processes and random seeds."""

import importlib.util
import os
import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def start_process_per_gpu(gpus: str) -> None:
    """If several GPUs are given, replace this process by torchrun with one process for each; otherwise do nothing."""
    indices = _cuda_indices(gpus)
    if len(indices) < 2:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # which the indices refer to
    names = visible.split(",") if visible else [str(index) for index in range(max(indices) + 1)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[index] for index in indices)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={len(indices)}"]
    os.execv(sys.executable, [*torchrun, *sys.argv])


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(gpus: str, *, one_size: bool = False) -> torch.device:
    """Select the given GPU (under torchrun, this process's) as the current CUDA device, or the CPU without CUDA.

    With `one_size`, when all images have the same size, cuDNN benchmarks its algorithms.
    """
    indices = _cuda_indices(gpus)
    if not indices:
        return torch.device("cpu")
    if len(indices) > 1:
        raise ValueError(f"train.specific_gpu_num lists {len(indices)} GPUs ({gpus}), but this script uses only one")
    device = torch.device("cuda", indices[0])
    torch.cuda.set_device(device)  # for NCCL, pinned memory and whatever else uses the current device
    torch.backends.cudnn.benchmark = one_size
    return device


def _cuda_indices(gpus: str) -> list[int]:
    """Parse "0" or "0, 1"; return the device indices that this process is to use, none without CUDA."""
    texts = [text.strip() for text in gpus.split(",")]
    if not all(text.isascii() and text.isdecimal() for text in texts) or len(set(map(int, texts))) < len(texts):
        raise ValueError(f"train.specific_gpu_num must be the number of a GPU, or several as in '0, 1', got {gpus!r}")
    if not torch.cuda.is_available():
        return []
    indices = [int(os.environ["LOCAL_RANK"])] if _under_torchrun() else [int(text) for text in texts]
    if max(indices) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"train.specific_gpu_num is {gpus}, but this machine has {count} GPU(s), numbered from 0")
    return indices


def _under_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes under torchrun, with NCCL on GPUs and Gloo on CPUs."""
    if not _under_torchrun():
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return the rank of this process; process 0 writes files and logs."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """Return the number of processes (the world size)."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """All-reduce a tensor to its sum, in place."""
    if processes() > 1:
        distributed.all_reduce(value)
    return value


def mean_over_processes(value: Tensor) -> Tensor:
    """All-reduce a tensor to its mean."""
    return sum_over_processes(value.clone()) / processes()


def any_process(value: bool, device: torch.device) -> bool:
    """Return whether `value` is true in any process; a collective operation."""
    return value if processes() == 1 else bool(sum_over_processes(torch.tensor(float(value), device=device)))


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank; a collective operation."""
    values = [value] * processes()
    if processes() > 1:
        distributed.all_gather_object(values, value)
    return values


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the body in the first process of each machine before the others, for example to download a file for all."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if processes() > 1 and not first:
        distributed.barrier()
    try:
        yield
    finally:
        if processes() > 1 and first:
            distributed.barrier()


def broadcast_buffers(network: nn.Module) -> None:
    """Copy process 0's buffers, such as batch norm statistics, to all processes."""
    if processes() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """With several processes, wrap a network in DistributedDataParallel (on GPUs with synchronised batch norm)."""
    if processes() == 1:
        return network
    if device.type == "cuda":
        return DistributedDataParallel(synchronize_batch_norms(network), device_ids=[device.index])
    return DistributedDataParallel(network)


def synchronize_batch_norms(network: nn.Module) -> nn.Module:
    """Convert batch norms to synchronised ones, which still run what they contain, such as the activation in timm's."""
    network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for norm in (module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)):
        norm.register_forward_hook(lambda norm, _, output: nn.Sequential(*norm.children())(output))
    return network


def sharing_gradients(network: nn.Module, *, now: bool) -> AbstractContextManager:
    """Context of a backward pass; with several processes and not `now`, gradients accumulate without all-reduce."""
    return nullcontext() if now or not isinstance(network, DistributedDataParallel) else network.no_sync()


def choose_precision(setting: str, device: torch.device) -> str:
    """Resolve "auto" to bf16 where the hardware has it, else to fp16 on GPUs and fp32 on CPUs; "off" to fp32."""
    if setting != "auto":
        return "fp32" if setting == "off" else setting
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16, AVX512-BF16 or AMX; others emulate it, slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_runtime(setting: str, device: torch.device, precision: str) -> str:
    """Resolve "auto" to the fastest installed runtime for checkpoints: "pytorch", "onnx" or "openvino".

    On a CPU that is OpenVINO with AVX-512 and ONNX Runtime without (docs/speed.md has the figures); both need the
    packages that export networks, and neither computes in fp16 here.

    Raises:
        ValueError: a precision that the runtime does not have.
    """
    if setting == "onnx" and precision != "fp32":
        raise ValueError(f"test.precision={precision} is not available with test.runtime=onnx; export with --precision")
    if setting != "auto":
        return setting
    if device.type != "cpu" or precision == "fp16":
        return "pytorch"
    packages = {"openvino": "openvino", "onnx": "onnxruntime"}
    names = packages if "AVX512" in torch.backends.cpu.get_cpu_capability() else reversed(packages)
    usable = [name for name in names if installed("onnx", "onnxscript", packages[name])]
    return next((name for name in usable if precision == "fp32" or name == "openvino"), "pytorch")


def installed(*packages: str) -> bool:
    """Return whether all packages are installed."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to "bf16" or "fp16"; disabled for "fp32"."""
    dtype = DTYPES["bf16" if precision == "fp32" else precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Build the loss scaler of fp16 training; disabled for other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def loader_workers(setting: int | None, device: torch.device, *, training: bool) -> int:
    """Return the number of data loader workers: the setting, or a default for this process's share of the CPU cores.

    Evaluation on a CPU has none by default, as the network occupies all cores, see `utils.io.pipeline.in_rounds`.
    """
    if setting is not None:
        return setting
    if device.type != "cuda" and not training:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(cores, 8) if device.type == "cuda" else min(cores // 2, 2)  # on a CPU the network needs the cores


def describe(device: torch.device) -> str:
    """Describe the device for logs."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"CPU, {torch.get_num_threads()} threads (no CUDA device found)"


def synchronize(device: torch.device) -> None:
    """Wait for pending work on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, differently in each process; augmentation has its own seed."""
    seed = (seed + rank()) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Return the state of all random generators as plain values and tensors."""
    numpy_state: Any = np.random.get_state()
    kind, keys, *rest = numpy_state
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the state that `random_state` returned in process 0; other processes reseed, each differently."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if rank() > 0:
        seed_everything(int(torch.randint(2**31, ())))
