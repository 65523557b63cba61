"""Measure time, arithmetic and memory in a way that bears comparison."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from utils import runtime

Job = Callable[[], object]


def time_in_turns(
    jobs: Mapping[str, Job], *, repeats: int, warm_up: int = 2, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Return the seconds that each job took, `repeats` times each.

    They take turns, so that a machine whose speed drifts is as slow for one as for the other. The device is waited for
    before and after each; CUDA is timed by its events.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(-warm_up, repeats):
        for name, job in jobs.items():
            taken = _time(job, torch.device(device))
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def _time(job: Job, device: torch.device) -> float:
    runtime.synchronize(device)
    if device.type != "cuda":
        before = time.perf_counter()
        job()
        return time.perf_counter() - before
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.device(device):  # on whose stream events are recorded
        start.record()
        job()
        end.record()
    runtime.synchronize(device)
    return start.elapsed_time(end) / 1000


@torch.inference_mode()
def count_flops(network: nn.Module | Callable[[Tensor], object], image: Tensor) -> float:
    """Return the floating-point operations of convolutions and matrix products, a multiplication and addition as 2."""
    with FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops())


@torch.inference_mode()
def matmul_peak(device: torch.device | str, dtype: torch.dtype, *, side: int = 4096) -> float:
    """Return the operations a second that a large product of matrices reaches, the best of five."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    seconds = time_in_turns({"": lambda: a @ a}, repeats=5, warm_up=1, device=device)[""]
    return 2 * side**3 / min(seconds)


def memory_of(make: Callable[[], Job], device: torch.device) -> int | None:
    """Return the bytes that a job takes at its peak, beyond what there is before it, in a process of its own.

    On a GPU they are what PyTorch's allocator gave out; on a CPU the process's resident memory.

    Args:
        make: makes the job, with all that it needs loaded; picklable.

    Returns:
        None where the system does not tell (a CPU without Linux).
    """
    if device.type == "cpu" and not Path("/proc/self/clear_refs").exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (make, device, torch.get_num_threads()))


def _peak(make: Callable[[], Job], device: torch.device, threads: int) -> int:
    torch.set_num_threads(threads)
    job = make()
    if device.type == "cuda":
        runtime.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        job()
        runtime.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, see proc(5)
    before = _resident("VmRSS")
    job()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    """Read a figure of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(kilobytes)
