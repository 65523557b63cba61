"""One pass of a segmenter over a dataset split, counted and timed."""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.segmentation import SegmentationDataset
from utils import distributed, runtime
from utils.cli import progress
from utils.config import TrainConfig
from utils.data import eval_loader, read_batches
from utils.engine import evaluate
from utils.inference.segmenter import Segmenter
from utils.io.pipeline import WriteBehind
from utils.metrics import ConfusionMatrix

WARM_UP = 5  # calls excluded from the latency: they select algorithms, compile and fill caches


def measure(
    segmenter: Segmenter,
    data: SegmentationDataset,
    train: TrainConfig,
    *,
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
    title: str = "evaluation",
) -> tuple[ConfusionMatrix, dict[str, Any]]:
    """Predict every image of a split once; several processes share the images, and all get the same metrics.

    Images are read ahead of the network and predictions consumed behind it, so that memory use does not grow with the
    number of images, apart from the counts of each.

    Args:
        train: batch size and number of loader processes.
        on_prediction: called in background threads with the index and the label map (H, W) uint8 of each image.

    Returns:
        the confusion matrix; and `ConfusionMatrix.summary` (only for labelled data) with `speed`, see `Timer.summary`.
    """
    device = segmenter.device
    timer = Timer(segmenter, device)
    workers = runtime.loader_workers(train.num_workers, device, training=False)
    batches = eval_loader(data, batch_size=train.valid_batch_size, workers=workers)
    confusion = ConfusionMatrix(len(data.classes), device)
    with WriteBehind() as background:

        def on_image(index: int, pred: Tensor) -> None:
            if on_prediction is not None:
                background.submit(on_prediction, index, pred.cpu().numpy())

        with progress(read_batches(batches, device), title, total=len(batches)) as bar:
            evaluate(timer, bar, confusion=confusion, on_image=on_image)
    speed = timer.summary(images=len(data), batch_size=train.valid_batch_size)
    confusion.merge()
    metrics = confusion.summary(data.classes.names) if confusion.by_image else {}
    return confusion, metrics | {"speed": speed}


class Timer:
    """A segmenter that records the duration of each call, synchronising the device before and after.

    Attributes:
        seconds: duration of each call.
    """

    def __init__(self, segment: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.segment = segment
        self.device = device
        self.seconds: list[float] = []
        self.start = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the label maps (B, H, W) of images (B, 3, H, W)."""
        runtime.synchronize(self.device)
        start = time.perf_counter()
        labels = self.segment(image)
        runtime.synchronize(self.device)
        self.seconds.append(time.perf_counter() - start)
        return labels

    def summary(self, *, images: int, batch_size: int) -> dict[str, Any]:
        """Return latency, throughput and peak memory, each with an `…_of` that says what was measured.

        Every process must call this; `images` is their total number.
        """
        elapsed = time.perf_counter() - self.start
        skipped = max(0, min(WARM_UP, len(self.seconds) - 1))  # always keep one
        parts = distributed.gather((elapsed, peak_memory(self.device), self.seconds[skipped:]))
        seconds, memory = max(part[0] for part in parts), max(part[1] for part in parts)
        calls = [call for part in parts for call in part[2]]
        return {
            "latency_median_ms": 1000 * float(np.median(calls)),
            "latency_p95_ms": 1000 * float(np.percentile(calls, 95)),
            "latency_of": f"one call with up to {batch_size} image(s): copy to the device, normalisation, network, "
            f"full-size label map; device synchronised before and after; {len(calls)} calls after {skipped} to warm up",
            "images_per_second": images / seconds,
            "seconds": seconds,
            "images_per_second_of": f"the whole run over {images} images in {len(parts)} process(es): starting the "
            "loaders, reading, decoding, network, counting, writing",
            "peak_memory_mib": memory / 2**20,
            "peak_memory_of": "GPU memory allocated by PyTorch during evaluation"
            if self.device.type == "cuda"
            else "resident memory of the (largest) process since its start, without loader processes",
        }


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of tensors on a GPU, or resident of this process (0 on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
