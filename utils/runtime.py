"""Where and how the program runs: device, seed, loader processes, and what becomes of an error. Decided here alone."""

import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch


def select_device(gpu: str, *, one_size: bool = False) -> torch.device:
    """Choose the CUDA device of that number, or the CPU where there is no CUDA.

    Args:
        one_size: all images will have one size, so it pays to try which convolution algorithm is fastest.

    Raises:
        ValueError: no number, several, or one that this machine does not have.
    """
    numbers = [number.strip() for number in gpu.split(",")]
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ValueError(f"train.specific_gpu_num must be the number of a GPU, got {gpu!r}")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if len(numbers) > 1:
        raise ValueError(f"train.specific_gpu_num names {len(numbers)} GPUs ({gpu}), but one is used; name that")
    if int(numbers[0]) >= torch.cuda.device_count():
        raise ValueError(
            f"train.specific_gpu_num is {gpu}, but this machine has {torch.cuda.device_count()} GPU(s), numbered from 0"
        )
    torch.backends.cudnn.benchmark = one_size
    return torch.device("cuda", int(numbers[0]))


def describe(device: torch.device) -> str:
    """Name the device for a log."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"CPU, {torch.get_num_threads()} threads (no CUDA device found)"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (the augmentations have their own, see `dataset.segmentation`)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Return the state of all random generators, as plain values and tensors."""
    kind, keys, *rest = np.random.get_state()
    numpy_state = [kind, torch.from_numpy(keys.astype(np.int64)), *rest]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what `random_state` returned."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class Interruption(Exception):
    """A signal asked the program to end, and it did so in good order; the message says how to go on."""


@contextmanager
def catching_signals() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM in place of ending at once; give a function that tells whether one came.

    A second signal ends the program at once.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def loader_workers(setting: int | None, device: torch.device) -> int:
    """Choose the number of loader processes: the setting, else by the cores that this process may use."""
    if setting is not None:
        return setting
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8) if device.type == "cuda" else min(cores // 2, 2)  # on a CPU the network needs the cores


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: its own code, or 2 with one line on stderr for what the user can mend.

    `python -X dev train.py …` shows the traceback of such an error.
    """
    try:
        code = main()
    except (ValueError, OSError) as error:
        if sys.flags.dev_mode:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = 2
    except torch.cuda.OutOfMemoryError:
        print("error: the GPU's memory is full; lower train.train_batch_size or model.crop_size", file=sys.stderr)
        code = 2
    except Interruption as interruption:
        print(interruption, file=sys.stderr)
        code = 130
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def one_line(error: BaseException) -> str:
    """Say an error in one line; of one from a loader process, what was raised there."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = re.split(r"^[\w.]+(?:Error|Exception): ", text, flags=re.MULTILINE)[-1]
    return " ".join(text.split("\n")) or type(error).__name__
