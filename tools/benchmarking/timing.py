"""Measurement of latency, FLOPs and peak memory."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from utils import runtime

Job = Callable[[], object]
CPU = torch.device("cpu")


def time_in_turns(
    jobs: Mapping[str, Job], *, repeats: int, warm_up: int = 2, device: torch.device = CPU
) -> dict[str, list[float]]:
    """Return the seconds of each job's `repeats` runs, after the warm-up and with the device synchronised.

    The jobs take turns, so that drifts of the machine's speed affect all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(-warm_up, repeats):
        for name, job in jobs.items():
            runtime.synchronize(device)
            start = time.perf_counter()
            job()
            runtime.synchronize(device)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@torch.inference_mode()
def count_flops(network: Callable[[Tensor], object], image: Tensor) -> float:
    """Return the floating-point operations of convolutions and matrix products; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops())


@torch.inference_mode()
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large convolution or matrix product, the faster one, as the practical peak of the device.

    Libraries differ: on AMD CPUs, the convolution may be twice as fast, for lack of AVX-512 in the matrix product.
    """
    image = torch.randn(1, 256, 128, 128, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    matrix = torch.randn(4096, 4096, device=device, dtype=dtype)
    launches = range(20 if device.type == "cuda" else 1)  # a GPU takes about as long for one as to be synchronised
    jobs: dict[str, Job] = {
        "conv": lambda: [F.conv2d(image, weight, padding=1) for _ in launches],
        "matmul": lambda: [matrix @ matrix for _ in launches],
    }
    flops = {"conv": count_flops(lambda x: F.conv2d(x, weight, padding=1), image), "matmul": 2 * 4096**3}
    seconds = time_in_turns(jobs, repeats=5, warm_up=1, device=device)
    return max(len(launches) * flops[name] / min(seconds[name]) for name in jobs)


def peak_memory(make_job: Callable[[], Job], device: torch.device) -> int | None:
    """Return the bytes that a job needs at its peak beyond what is allocated before it, in a fresh process.

    On a GPU this is memory of PyTorch's allocator, on a CPU resident memory of the process. None: a CPU measurement
    outside Linux, or the process was killed for lack of memory.

    Args:
        make_job: builds the job with everything it needs already loaded; picklable.
    """
    if device.type == "cpu" and not Path("/proc/self/clear_refs").exists():
        return None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure_peak, make_job, device, torch.get_num_threads()).result()
        except BrokenProcessPool:  # killed, as it needed more memory than there is
            return None


def _measure_peak(make_job: Callable[[], Job], device: torch.device, threads: int) -> int:
    torch.set_num_threads(threads)
    job = make_job()
    if device.type == "cuda":
        runtime.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        job()
        runtime.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    before = _process_memory("VmRSS")
    job()
    return _process_memory("VmHWM") - before


def _process_memory(field: str) -> int:
    """Read a memory field of /proc/self/status, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])
