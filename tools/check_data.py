"""Check a dataset before training on it: python tools/check_data.py --config FILE section.key=value …

Decodes every image and mask of the training and validation splits, prints their statistics and every problem, and draws
augmented training samples. The exit code is 2 if there are problems.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from dataset.images import open_rgb, read_mask
from dataset.labels import IGNORE_INDEX, UNKNOWN
from dataset.pairs import Pairs, Sample, check_sizes
from dataset.segmentation import EpochSampler, SegmentationDataset
from utils import cli, runtime
from utils.config import load_config
from utils.data import build_transform, find_pairs, unlabelled_error
from utils.io.drawing import class_shares, colorize, grid
from utils.io.files import check_folder, save_image
from utils.loss import balanced_weights

SHEET_SAMPLES = 12


def main() -> int:
    """Check both splits, print the report, and draw training samples."""
    args = cli.parse_arguments(__doc__)
    config = load_config(args.config or cli.DEFAULT_CONFIG, args.overrides)
    sheet = Path(config.train.ckpt_dir) / "check_data.png"
    check_folder(sheet.parent, "train.ckpt_dir")
    transform = build_transform(config.model, config.augment)
    found = {}
    for split in dict.fromkeys((config.train.split, config.test.split)):
        found[split] = find_pairs(config.dataset, split, cityscapes_root=config.train.cityscapes_root)
        if any(sample.mask is None for sample in found[split][0].samples):
            raise unlabelled_error(config.dataset, split)
    checks: dict[str, SplitCheck] = {}
    for split, (pairs, classes, train_ids) in found.items():
        dataset = SegmentationDataset(pairs.samples, classes, train_ids, transform=transform, seed=config.train.seed)
        checks[split] = check_split(dataset, pairs, name=split)
        print_split(split, checks[split])
    train = checks[config.train.split]
    print_shared(checks)
    print_classes(checks, train, config.loss.balance_offset)
    if train.valid:
        save_image(sheet, draw_samples(train))
        print(f"augmented samples with their labels: {sheet}")
    problems = sum(len(check.problems) for check in checks.values())
    print(f"problems: {problems}; fix them before training" if problems else "no problems")
    return 2 if problems else 0


@dataclass
class SplitCheck:
    """Statistics and problems of a split."""

    dataset: SegmentationDataset
    unused_masks: int = 0  # masks without an image, such as those of other splits in a common folder
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # of the images (width, height)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # per class; 255 ignored, 254 unknown
    problems: list[str] = field(default_factory=list)
    valid: list[int] = field(default_factory=list)  # indices of the samples without problems


def check_split(dataset: SegmentationDataset, pairs: Pairs, *, name: str) -> SplitCheck:
    """Decode every file of a split; `name` labels the progress bar."""
    check = SplitCheck(dataset, unused_masks=len(pairs.unpaired_masks))
    check.problems += [f"{path}: this image has no mask" for path in pairs.unpaired_images]
    with ThreadPoolExecutor(min(runtime.available_cores(), 16)) as pool:  # decoding releases the GIL
        results = pool.map(partial(check_sample, train_ids=dataset.train_ids), dataset.samples)
        for index, (sizes, pixels, problems) in enumerate(cli.progress(results, name, total=len(dataset))):
            check.sizes.update(sizes)
            check.pixels += pixels
            check.problems += problems
            check.valid += [] if problems else [index]
    if not check.pixels[: len(dataset.classes)].any():
        check.problems.append(f"{name}: not a single labelled pixel")
    return check


def check_sample(sample: Sample, *, train_ids: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray, list[str]]:
    """Decode an image and its mask; return the image's size (if readable), pixels per class (256,) and problems."""
    pixels, problems = np.zeros(256, np.int64), list[str]()
    image, mask = _attempt(problems, open_rgb, sample.image), _attempt(problems, read_mask, sample.mask)
    if mask is not None:
        counts = np.bincount(mask.ravel(), minlength=256)
        np.add.at(pixels, train_ids, counts)
        unknown = np.flatnonzero((counts > 0) & (train_ids == UNKNOWN))
        if unknown.size:
            values = ", ".join(f"{value} ({counts[value]} pixels)" for value in unknown)
            problems.append(f"{sample.mask}: unknown label values: {values}")
    if image is not None and mask is not None:
        _attempt(problems, check_sizes, sample, image.size, mask.shape[::-1])
    return [] if image is None else [image.size], pixels, problems


def _attempt(problems: list[str], function: Callable, *args: object) -> Any:
    """Call a function that reads or checks a file; on an error add it to the problems and return None."""
    try:
        return function(*args)
    except (OSError, ValueError) as error:
        problems.append(str(error))
        return None


def print_split(name: str, check: SplitCheck) -> None:
    """Print image sizes, the share of ignored pixels, and every problem."""
    sizes = ", ".join(f"{width}x{height} ({count})" for (width, height), count in check.sizes.most_common(5))
    more = f" and {len(check.sizes) - 5} more sizes" if len(check.sizes) > 5 else ""
    ignored = check.pixels[IGNORE_INDEX] / max(1, check.pixels.sum())
    print(f"{name}: {check.sizes.total()} readable images: {sizes or 'none'}{more}")
    print(f"  {100 * ignored:.2f}% of the pixels are ignored, {len(check.problems)} problems")
    if check.unused_masks:
        print(f"  masks without an image, which are not used: {check.unused_masks}")
    for problem in check.problems:
        print(f"  problem: {problem}")


def print_shared(checks: Mapping[str, SplitCheck]) -> None:
    """Print how many images the splits have in common, if any."""
    images = [{sample.image for sample in check.dataset.samples} for check in checks.values()]
    if len(images) == 2 and (shared := images[0] & images[1]):
        print(f"images in both splits: {len(shared)}, such as {min(shared)}; they make the mIoU too high")


def print_classes(checks: Mapping[str, SplitCheck], train: SplitCheck, offset: float) -> None:
    """Print each class's share (%) of the labelled pixels of every split, and its weight in the loss."""
    names = train.dataset.classes.names
    columns: dict[str, Iterable] = {"class": names}
    for split, check in checks.items():
        counts = check.pixels[: len(names)]
        columns[f"{split} %"] = [100 * count / counts.sum() if count else None for count in counts]
    columns["loss.balance=log"] = balanced_weights(torch.from_numpy(train.pixels[: len(names)]), offset).tolist()
    print(f"\n{tabulate(columns, headers='keys', tablefmt='github', floatfmt='.3f', missingval='none')}\n")
    absent = [name for name, count in zip(names, train.pixels, strict=False) if not count]
    if absent:
        print(f"not in the training masks: {', '.join(absent)}; check their values, and dataset.ignore_index\n")


def draw_samples(check: SplitCheck) -> np.ndarray:
    """Draw the first valid samples of epoch 1, augmented, each beside its label map."""
    dataset, valid = check.dataset, set(check.valid)
    order = EpochSampler(len(dataset), batch_size=1, seed=dataset.seed).batches(1)[:, 0].tolist()
    images, captions = [], []
    for key in [key for key in order if key[1] in valid][:SHEET_SAMPLES]:
        sample = dataset[tuple(key)]
        label = sample["target"].numpy()
        images += [sample["image"].permute(1, 2, 0).numpy(), colorize(label, dataset.classes)]
        largest = islice(class_shares(label, dataset.classes).items(), 3)
        captions += [dataset.samples[key[1]].image.name, ", ".join(f"{name} {share:.0%}" for name, share in largest)]
    return grid(images, columns=4, captions=captions, width=360)


if __name__ == "__main__":
    cli.run(main)
