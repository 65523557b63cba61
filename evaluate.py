"""Measure a checkpoint or an ONNX file on a split: python evaluate.py test.ckpt_path=ckpt/last.pth"""

from pathlib import Path
from typing import Any

from utils.cli import DEFAULT_CONFIG, parse_arguments

if __name__ == "__main__":  # --help, and a mistake in the command line, need not wait seconds for torch's import
    parse_arguments(__doc__)

import torch

from dataset.segmentation import SegmentationDataset
from utils import cli, runtime
from utils.cli import open_log
from utils.config import Config, load_config
from utils.data import build_dataset, check_classes
from utils.evaluation.measure import measure
from utils.evaluation.results import Results, versions
from utils.inference.opening import config_with_own_data, describe, open_network, short_side
from utils.metrics import ConfusionMatrix
from utils.weights.checkpoint import Checkpoint
from utils.weights.run_folder import find_checkpoint, run_name

PARTS = {"sub4": 1, "sub4 + sub2": 2}  # of the cascade: how many of its branches
WHOLE = "sub4 + sub2 + sub1"


def main() -> None:
    """Open network and data, predict every image, compare with the labels, write figures and pictures."""
    args = parse_arguments(__doc__)
    config = load_config(args.config or DEFAULT_CONFIG, args.overrides)
    runtime.start_process_per_gpu(config.train.specific_gpu_num)
    path = find_checkpoint(config.test.ckpt_path, config.train.ckpt_dir, name=run_name(config.model))
    device = runtime.select_device(config.train.specific_gpu_num)
    with runtime.process_group(device):
        if args.config is None:
            config = config_with_own_data(path, DEFAULT_CONFIG, args.overrides)
        network, segment = open_network(path, device, config.test)
        data = open_data(config, network)
        submission = None if config.test.submission is None else Path(config.test.submission)
        folder = Path(config.train.ckpt_dir) / "evaluate_output"
        results = Results(folder, data, save=config.test.save, submission=submission)
        log = open_log(quiet=runtime.rank() > 0)
        log.info(f"checkpoint: {describe(network, config.test)}")
        log.info(f"data: {len(data)} images of the split {config.test.split!r}; device: {runtime.describe(device)}")

        parts = measure_parts(path, data, config, device) if config.test.branches else {}
        confusion, speed = measure(segment, data, **loading(config, device), outputs=results.outputs)
        results.merge()
        if runtime.rank() == 0:
            figures = results.figures(confusion) | {"speed": speed}
            if parts:
                figures["branches"] = parts | {WHOLE: quality(confusion, data) | {"speed": speed}}
            results.write(confusion, figures | circumstances(network, config, device), segment, log)


def open_data(config: Config, network: Checkpoint) -> SegmentationDataset:
    """Find the split, and look at its files before the run begins; only a submission does without labels."""
    root, labelled = config.train.cityscapes_root, config.test.submission is None
    data = build_dataset(config.dataset, config.test.split, cityscapes_root=root, labelled=labelled)
    check_classes(data, network)
    data.check_headers()
    return data


def measure_parts(
    path: Path, data: SegmentationDataset, config: Config, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Measure the lower branches of the cascade by themselves; return the figures of each, by name."""
    figures = {}
    for name, branches in PARTS.items():
        _, segment = open_network(path, device, config.test, branches=branches)
        confusion, speed = measure(segment, data, **loading(config, device), title=name)
        figures[name] = quality(confusion, data) | {"speed": speed}
    return figures


def quality(confusion: ConfusionMatrix, data: SegmentationDataset) -> dict[str, Any]:
    """Return the figures of what was counted, none of a split without labels."""
    return confusion.summary(data.classes.names) if confusion.images else {}


def loading(config: Config, device: torch.device) -> dict[str, Any]:
    """How images are brought to the network."""
    workers = runtime.loader_workers(config.train.num_workers, device, training=False)
    return {"batch_size": config.train.valid_batch_size, "workers": workers, "device": device}


def circumstances(network: Checkpoint, config: Config, device: torch.device) -> dict[str, Any]:
    """What the figures are figures of."""
    return {
        "checkpoint": str(network.source),
        "short_side": short_side(network, config.test),
        "split": config.test.split,
        "device": runtime.describe(device),
        "processes": runtime.processes(),
        "precision": runtime.choose_precision(config.test.precision, device),
        "versions": versions(),
        "config": config.as_dict(),
    }


if __name__ == "__main__":
    cli.run(main)
