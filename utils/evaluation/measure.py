"""One pass of a segmenter over a split: counted, timed, and handed to what writes files."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.segmentation import SegmentationDataset
from utils import runtime
from utils.cli import progress
from utils.data import eval_loader, read_batches
from utils.engine import evaluate
from utils.inference.segmenter import Segments
from utils.io.pipeline import WriteBehind
from utils.metrics import ConfusionMatrix

Output = Callable[[int, np.ndarray], None]  # takes an image's index and its class indices (H, W) uint8
WARM_UP = 5  # calls left out: they choose algorithms, compile and fill caches


def measure(
    segment: Segments,
    data: SegmentationDataset,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    outputs: Sequence[Output] = (),
    title: str = "evaluation",
) -> tuple[ConfusionMatrix, dict[str, Any]]:
    """Predict every image of a split once; of several processes each takes its part, and all get the same counts.

    Images are read as `utils.data.read_batches` says, and the outputs work behind the network. What is in memory does
    not depend on how many images there are, but for the counts of each.

    Args:
        batch_size: images that the network is given at a time, where they are of one size.
        workers: loader processes.
        outputs: called with every prediction, in threads.

    Returns:
        the counts (none for a split without labels), and time and memory, see `Meter`.
    """
    meter, timed = Meter(device), Timed(segment, device)
    confusion = ConfusionMatrix(len(data.classes), device)
    batches = eval_loader(data, batch_size=batch_size, workers=workers)
    with WriteBehind() as behind:

        def hand_on(index: int, pred: Tensor) -> None:
            labels = pred.cpu().numpy() if outputs else None
            for output in outputs:
                behind.submit(output, index, labels)

        with progress(read_batches(batches, device), title, total=len(batches)) as bar:
            evaluate(timed, bar, confusion=confusion, on_image=hand_on)
    speed = meter.summary(timed.seconds, images=len(data), batch_size=batch_size)
    confusion.merge()
    return confusion, speed


class Timed:
    """Call a segmenter and keep how long each call took, waiting for the device before and after it.

    Attributes:
        seconds: of each call.
    """

    def __init__(self, segment: Segments, device: torch.device) -> None:
        self.segment = segment
        self.device = device
        self.seconds: list[float] = []

    def __call__(self, image: Tensor) -> Tensor:
        """Return the segmenter's label maps (B, H, W) of images (B, 3, H, W)."""
        runtime.synchronize(self.device)
        start = time.perf_counter()
        labels = self.segment(image)
        runtime.synchronize(self.device)
        self.seconds.append(time.perf_counter() - start)
        return labels


class Meter:
    """Measure a whole evaluation, from its making to `summary`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def summary(self, calls: list[float], *, images: int, batch_size: int) -> dict[str, Any]:
        """Return the figures, each with `…_of`, what it is a figure of; all processes must ask.

        Args:
            calls: seconds of each call of the network in this process.
            images: how many there were, in all processes together.
        """
        elapsed = time.perf_counter() - self.start
        parts = runtime.gather((elapsed, peak_memory(self.device), calls[warm_up(len(calls)) :]))
        seconds, memory, kept = max(p[0] for p in parts), max(p[1] for p in parts), [s for p in parts for s in p[2]]
        gpu = self.device.type == "cuda"
        return {
            "latency_median_ms": 1000 * float(np.median(kept)),
            "latency_p95_ms": 1000 * float(np.percentile(kept, 95)),
            "latency_of": f"one call with up to {batch_size} image(s): copy to the device, normalisation, network, "
            f"label map at full size; device synchronised before and after; {len(kept)} calls, the first "
            f"{warm_up(len(calls))} left out",
            "images_per_second": images / seconds,
            "seconds": seconds,
            "images_per_second_of": f"the whole run over {images} images in {len(parts)} process(es): starting the "
            "loaders, reading, decoding, network, counting, writing",
            "peak_memory_mib": memory / 2**20,
            "peak_memory_of": "tensors on the GPU, by PyTorch's allocator, while evaluating"
            if gpu
            else "resident memory of the (largest) process since its start, without loader processes",
        }


def warm_up(calls: int) -> int:
    """Return how many of so many calls are left out; of a few, all but the last."""
    return max(0, min(WARM_UP, calls - 1))


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that tensors took on a GPU, or that this process took; 0 where nobody says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def speed_lines(speed: dict[str, Any]) -> str:
    """Write the figures of `Meter.summary` for people."""
    return "\n".join(
        [
            f"latency {speed['latency_median_ms']:.1f} ms median, {speed['latency_p95_ms']:.1f} ms p95 "
            f"({speed['latency_of']})",
            f"throughput {speed['images_per_second']:.2f} images/s ({speed['images_per_second_of']})",
            f"peak memory {speed['peak_memory_mib']:.0f} MiB ({speed['peak_memory_of']})",
        ]
    )
