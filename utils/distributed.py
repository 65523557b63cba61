"""Distributed processes: one for each GPU, started by torchrun, and what they do together."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def start_process_per_gpu(gpus: str) -> None:
    """If several GPUs are given, replace this process by torchrun with one process for each; otherwise do nothing."""
    indices = cuda_indices(gpus)
    if len(indices) < 2:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # which the indices refer to
    names = visible.split(",") if visible else [str(index) for index in range(max(indices) + 1)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[index] for index in indices)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup
        os.environ.setdefault("PET_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")  # torchrun would stop at SIGHUP
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // len(indices))))  # else torchrun's 1
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={len(indices)}"]
    os.execv(sys.executable, [*torchrun, *sys.argv])


def cuda_indices(gpus: str) -> list[int]:
    """Parse "0" or "0, 1"; return the device indices that this process is to use, none without CUDA."""
    texts = [text.strip() for text in gpus.split(",")]
    if not all(text.isascii() and text.isdecimal() for text in texts) or len(set(map(int, texts))) < len(texts):
        raise ValueError(f"train.specific_gpu_num must be the number of a GPU, or several as in '0, 1', got {gpus!r}")
    if not torch.cuda.is_available():
        return []
    # LOCAL_RANK may be unset if the launcher starts one process per machine
    indices = [int(os.environ.get("LOCAL_RANK", texts[0]))] if _under_torchrun() else [int(text) for text in texts]
    if max(indices) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        if _under_torchrun():
            raise ValueError(
                f"torchrun started more processes than this machine has GPUs; set --nproc_per_node={count}"
            )
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
    if device.type == "cuda":
        # the others wait while the first process downloads weights or draws streets
        dist.init_process_group("nccl", device_id=device, timeout=timedelta(hours=1))
    else:
        dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()  # not after an error: NCCL would wait for the other processes before it is printed


def rank() -> int:
    """Return the rank of this process; process 0 writes files and logs."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """All-reduce a tensor to its sum, in place."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def mean_over_processes(value: Tensor) -> Tensor:
    """All-reduce a tensor to its mean."""
    return sum_over_processes(value.clone()) / world_size()


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank; a collective operation."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the body in the first process of each machine before the others, for example to download a file for all."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if world_size() > 1 and not first:
        dist.barrier()
    try:
        yield
    finally:
        if world_size() > 1 and first:
            dist.barrier()


def broadcast_buffers(network: nn.Module) -> None:
    """Copy process 0's buffers, such as batch norm statistics, to all processes."""
    if world_size() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """With several processes, wrap a network in DistributedDataParallel (on GPUs with synchronised batch norm)."""
    if world_size() == 1:
        return network
    if device.type == "cuda":
        network = synchronize_batch_norms(network)  # so buffers are equal everywhere
        return DistributedDataParallel(network, device_ids=[device.index], broadcast_buffers=False)
    return DistributedDataParallel(network)


def synchronize_batch_norms(network: nn.Module) -> nn.Module:
    """Convert batch norms to synchronised ones, which still run what they contain, such as the activation in timm's."""
    network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for norm in (module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)):
        norm.register_forward_hook(lambda norm, _, output: nn.Sequential(*norm.children())(output))
    return network


def sharing_gradients(network: nn.Module, *, now: bool) -> AbstractContextManager:
    """Return the context of a backward pass; unless `now`, gradients are accumulated locally, without an all-reduce."""
    return nullcontext() if now or not isinstance(network, DistributedDataParallel) else network.no_sync()
