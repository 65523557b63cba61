"""One pass of a segmenter over a split: counted, timed, and handed to what writes files."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.segmentation import SegmentationDataset
from utils.data import eval_loader
from utils.engine import evaluate
from utils.logger import progress
from utils.metrics import ConfusionMatrix
from utils.pipeline import WriteBehind, prefetch
from utils.segmenter import Segments
from utils.timing import Meter, Timed

Output = Callable[[int, np.ndarray], None]  # takes an image's index and its class indices (H, W) uint8


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

    Images are read ahead, and the outputs work behind, while the network computes. What is in memory does not depend
    on how many images there are, but for the counts of each.

    Args:
        batch_size: images that the network is given at a time, where they are of one size.
        outputs: called with every prediction, in threads.

    Returns:
        the counts (none for a split without labels), and time and memory, see `utils.timing.Meter`.
    """
    meter, timed = Meter(device), Timed(segment, device)
    confusion = ConfusionMatrix(len(data.classes), device)
    batches = eval_loader(data, batch_size=batch_size, workers=workers)
    with WriteBehind() as behind:

        def hand_on(index: int, pred: Tensor) -> None:
            labels = pred.cpu().numpy() if outputs else None
            for output in outputs:
                behind.submit(output, index, labels)

        with progress(prefetch(batches), title, total=len(batches)) as bar:
            evaluate(timed, bar, confusion=confusion, on_image=hand_on)
    speed = meter.summary(timed.seconds, images=len(data), batch_size=batch_size)
    confusion.merge()
    return confusion, speed
