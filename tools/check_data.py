"""Look at a dataset before training on it: python tools/check_data.py --config FILE section.key=value …

Reads every image and mask of the splits to train and to validate on, prints what they hold and each file that is wrong,
and draws samples as training would see them. Exit code 2 if something is wrong.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository, of which this is a script

from dataset.labels import IGNORE_INDEX
from dataset.segmentation import EpochSampler, SegmentationDataset
from tools.checking.inspection import Inspection, inspect
from utils import cli
from utils.cli import DEFAULT_CONFIG, parse_arguments
from utils.config import Config, load_config
from utils.data import build_transform, find_pairs
from utils.io.drawing import colorize, grid, save_image
from utils.io.files import check_folder
from utils.loss import balanced_weights

SHEET_SAMPLES = 12


def main() -> int:
    """Inspect, report, draw."""
    args = parse_arguments(__doc__)
    config = load_config(args.config or DEFAULT_CONFIG, args.overrides)
    folder = Path(config.train.ckpt_dir)
    check_folder(folder, "train.ckpt_dir")
    train, val = config.train.split, config.test.split
    splits = {split: inspect_split(config, split) for split in dict.fromkeys((train, val))}
    dataset, found = splits[train]
    report({split: one for split, (_, one) in splits.items()}, dataset.classes.names, counts=found.pixels)
    if found.sound:
        save_image(folder / "check_data.png", draw_samples(dataset, found.sound))
        print(f"augmented samples with their labels: {folder / 'check_data.png'}")
    faults = sum(len(one.faults) for _, one in splits.values())
    print(f"{faults} faults; mend them before training" if faults else "no faults")
    return 2 if faults else 0


def inspect_split(config: Config, split: str) -> tuple[SegmentationDataset, Inspection]:
    """Find the files of a split and read them all."""
    pairs, classes, train_ids = find_pairs(config.dataset, split, cityscapes_root=config.train.cityscapes_root)
    if any(sample.mask is None for sample in pairs.samples):
        raise ValueError(f"the split {split!r} has no labels; choose another train.split or test.split")
    transform = build_transform(config.model, config.augment)
    dataset = SegmentationDataset(pairs.samples, classes, train_ids, transform=transform, seed=config.train.seed)
    return dataset, inspect(dataset, pairs, name=split)


def report(found: dict[str, Inspection], names: tuple[str, ...], *, counts: np.ndarray) -> None:
    """Print what the splits hold, what is wrong, and each class's shares and weight.

    Args:
        counts: of the pixels to train on (256,), see `Inspection.pixels`.
    """
    for split, one in found.items():
        sizes = ", ".join(f"{width}x{height} ({count})" for (width, height), count in one.sizes.most_common(5))
        more = f" and {len(one.sizes) - 5} more sizes" if len(one.sizes) > 5 else ""
        print(f"{split}: {sum(one.sizes.values())} readable images: {sizes or 'none'}{more}")
        print(f"  {100 * one.ignored:.2f} % of the pixels are ignored, {len(one.faults)} faults")
        for fault in one.faults:
            print(f"  fault: {fault}")
    weights = balanced_weights(torch.from_numpy(counts[: len(names)])).tolist()
    shares = [one.shares(len(names)) for one in found.values()]
    width = max(map(len, ("class", *names)))
    print(f"\n{'class':{width}}" + "".join(f"{split:>11}" for split in found) + f"{'weight':>9}  (loss.balance=log)")
    for index, name in enumerate(names):
        columns = "".join(f"{100 * share[index]:9.3f} %" if share[index] else f"{'none':>11}" for share in shares)
        print(f"{name:{width}}{columns}{weights[index]:9.3f}")
    print()


def draw_samples(dataset: SegmentationDataset, sound: list[int]) -> np.ndarray:
    """Draw the first samples of the first epoch, augmented, each beside its label."""
    order = EpochSampler(len(dataset), batch_size=1, seed=dataset.seed).batches(1).ravel().tolist()
    allowed = set(sound)
    pictures, captions = [], []
    for index in [index for index in order if index in allowed][:SHEET_SAMPLES]:
        sample = dataset[1, index]
        label = sample["target"].numpy()
        pictures += [sample["image"].permute(1, 2, 0).numpy(), colorize(label, dataset.classes)]
        captions += [dataset.samples[index].image.name, largest(label, dataset.classes.names)]
    return grid(pictures, columns=4, captions=captions, width=360)


def largest(label: np.ndarray, names: tuple[str, ...], *, most: int = 3) -> str:
    """Name the classes that cover most of a label map."""
    shares = np.bincount(label.ravel(), minlength=256) / label.size
    order = [index for index in np.argsort(-shares)[:most] if shares[index]]
    return ", ".join(f"{'ignored' if i == IGNORE_INDEX else names[i]} {100 * shares[i]:.0f} %" for i in order)


if __name__ == "__main__":
    cli.run(main)
