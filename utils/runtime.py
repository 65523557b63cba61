"""Where and how the program runs: device, precision, processes, seed. Decided here alone."""

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


def select_device(gpu: str, *, one_size: bool = False) -> torch.device:
    """Choose the CUDA device of that number, under torchrun that of this process, or the CPU where there is no CUDA.

    Args:
        one_size: all images will have one size, so it pays to try which convolution algorithm is fastest.

    Raises:
        ValueError: no number, several, or one that this machine does not have.
    """
    numbers = gpu_numbers(gpu)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if under_torchrun():
        numbers = [int(os.environ["LOCAL_RANK"])]
    if len(numbers) > 1:
        raise ValueError(f"train.specific_gpu_num names {len(numbers)} GPUs ({gpu}); this script uses one, name that")
    if numbers[0] >= torch.cuda.device_count():
        raise ValueError(
            f"train.specific_gpu_num is {gpu}, but this machine has {torch.cuda.device_count()} GPU(s), numbered from 0"
        )
    torch.backends.cudnn.benchmark = one_size
    return torch.device("cuda", numbers[0])


def gpu_numbers(gpu: str) -> list[int]:
    """Read `train.specific_gpu_num`: "0", or "0, 1".

    Raises:
        ValueError: something else, or a number twice.
    """
    numbers = [number.strip() for number in gpu.split(",")]
    if not all(n.isascii() and n.isdecimal() for n in numbers) or len(set(map(int, numbers))) < len(numbers):
        raise ValueError(f"train.specific_gpu_num must be the number of a GPU, or several as in '0, 1', got {gpu!r}")
    return [int(number) for number in numbers]


def under_torchrun() -> bool:
    """Tell whether this is one of several processes that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def start_process_per_gpu(gpu: str) -> None:
    """Where several GPUs are named, start over as one process for each of them, through torchrun; else do nothing."""
    numbers = gpu_numbers(gpu)
    if len(numbers) == 1 or under_torchrun() or not torch.cuda.is_available():
        return
    if max(numbers) >= torch.cuda.device_count():
        raise ValueError(
            f"train.specific_gpu_num is {gpu}, but this machine has {torch.cuda.device_count()} GPU(s), numbered from 0"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # numbers count within these
    names = visible.split(",") if visible else [str(number) for number in range(max(numbers) + 1)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[number] for number in numbers)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={len(numbers)}"]
    os.execv(sys.executable, [*torchrun, *sys.argv])


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, NCCL between GPUs, Gloo between CPUs; alone, do nothing."""
    if not under_torchrun():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL works
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process; 0 is the one that writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """Add a tensor up over all processes, in place."""
    if processes() > 1:
        distributed.all_reduce(value)
    return value


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the average of a tensor over all processes."""
    return sum_over_processes(value.clone()) / processes()


def gather(value: Any) -> list[Any]:
    """Return what each of the processes has, in order; all must ask at the same point."""
    values = [value] * processes()
    if processes() > 1:
        distributed.all_gather_object(values, value)
    return values


def any_process(value: bool, device: torch.device) -> bool:
    """Tell whether something holds in any of the processes; all must ask at the same point."""
    return value if processes() == 1 else bool(sum_over_processes(torch.tensor(float(value), device=device)))


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Make a network share its gradients with the other processes' (and, on GPUs, batch norm's statistics)."""
    if processes() == 1:
        return network
    if device.type == "cuda":
        return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(network), device_ids=[device.index])
    return DistributedDataParallel(network)


def sharing_gradients(network: nn.Module, *, now: bool) -> AbstractContextManager:
    """Share gradients in the backward passes inside; not `now`: gather them for a later one."""
    return nullcontext() if now or not isinstance(network, DistributedDataParallel) else network.no_sync()


def choose_precision(setting: str, device: torch.device) -> str:
    """Resolve "auto": bf16 on a GPU that computes in it, fp16 on an older one, fp32 on a CPU; "off": fp32."""
    if setting == "auto" and device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32" if setting in ("auto", "off") else setting


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute in "bf16" or "fp16" what bears it; "fp32": all as it is."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Keep fp16's small gradients from vanishing, and skip steps that overflow; disabled in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def describe(device: torch.device) -> str:
    """Name the device for a log."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"CPU, {torch.get_num_threads()} threads (no CUDA device found)"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, each process differently (augmentations: see `dataset.segmentation`)."""
    seed = (seed + rank()) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Return the state of all random generators, as plain values and tensors."""
    state = np.random.get_state(legacy=False)
    keys = torch.from_numpy(state["state"]["key"].astype(np.int64))
    numpy_state = [state["bit_generator"], keys, state["state"]["pos"], state["has_gauss"], state["gauss"]]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what `random_state` returned in process 0; the others seed anew, each differently."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if rank() > 0:
        seed_everything(int(torch.randint(2**31, ())))


def loader_workers(setting: int | None, device: torch.device, *, training: bool) -> int:
    """Choose the number of loader processes: the setting, else by this process's part of the cores it may use.

    For evaluation on a CPU there are none: the network leaves them no core, see `utils.io.pipeline.in_rounds`.
    """
    if setting is not None:
        return setting
    if device.type != "cuda" and not training:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's, of this machine's processes
    return min(cores, 8) if device.type == "cuda" else min(cores // 2, 2)  # on a CPU the network needs the cores
