"""Evaluate a checkpoint or an exported network on a dataset split: python evaluate.py test.ckpt_path=ckpt/last.pth"""

import platform
from pathlib import Path
from typing import Any

from utils.cli import DEFAULT_CONFIG, parse_arguments

if __name__ == "__main__":  # --help and wrong options are answered before the slow import of torch
    parse_arguments(__doc__)

import numpy as np
import torch
import torchvision

from dataset.segmentation import SegmentationDataset
from utils import cli, distributed, runtime
from utils.config import Config, load_config
from utils.data import build_dataset, check_classes
from utils.evaluation.measure import measure
from utils.evaluation.results import Results
from utils.inference.opening import describe_network, open_network, with_checkpoint_data, with_checkpoint_input
from utils.inference.segmenter import Segmenter
from utils.weights.checkpoint import Checkpoint
from utils.weights.run_folder import choose_checkpoint


def main() -> None:
    """Run the network on every image of the split; write metrics, tables and images."""
    args = parse_arguments(__doc__)
    config = load_config(args.config or DEFAULT_CONFIG, args.overrides)
    distributed.start_process_per_gpu(config.train.specific_gpu_num)
    device = runtime.select_device(config.train.specific_gpu_num)
    with distributed.process_group(device):
        with distributed.main_process_first():
            path, note = choose_checkpoint(config, args.config)
            checkpoint, segmenter = open_network(path, device, config.test)
        if args.config is None:
            config = with_checkpoint_data(checkpoint, DEFAULT_CONFIG, args.overrides)
        data = open_data(config, checkpoint)
        results = Results(Path(config.train.ckpt_dir) / "evaluate_output", data, config.test)
        log = cli.open_log(quiet=distributed.rank() > 0)
        if note:
            log.info(note)
        log.info(f"checkpoint: {describe_network(checkpoint, segmenter, config.test)}")
        log.info(f"data: {len(data)} images of the split {config.test.split!r}")
        log.info(f"device: {runtime.describe(segmenter.device)}")

        branches = measure_branches(path, data, config, device) if config.test.branches else {}
        confusion, metrics = measure(segmenter, data, config.train, on_prediction=results.add)
        if branches:
            metrics |= {"branches": branches | {"sub4 + sub2 + sub1": metrics.copy()}}
        results.write(confusion, metrics | run_details(checkpoint, segmenter, config), segmenter, log)


def open_data(config: Config, checkpoint: Checkpoint) -> SegmentationDataset:
    """Find the split and check its files up front; only a submission can do without labels."""
    root, labelled = config.train.cityscapes_root, config.test.submission is None
    cache = config.dataset.cache and config.test.branches  # else each image is evaluated only once
    dataset = config.dataset.model_copy(update={"cache": cache})
    data = build_dataset(dataset, config.test.split, cityscapes_root=root, labelled=labelled)
    check_classes(data, checkpoint)
    data.check_headers(part=slice(distributed.rank(), None, distributed.world_size()))
    distributed.gather(None)  # no process goes on, and deletes earlier results, before all of them have checked
    return data


def measure_branches(
    path: Path, data: SegmentationDataset, config: Config, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Return the metrics of the network cut off after its first and after its second branch."""
    metrics = {}
    for name, branches in {"sub4": 1, "sub4 + sub2": 2}.items():
        _, segmenter = open_network(path, device, config.test, branches=branches)
        _, metrics[name] = measure(segmenter, data, config.train, title=name)
    return metrics


def run_details(checkpoint: Checkpoint, segmenter: Segmenter, config: Config) -> dict[str, Any]:
    """Return the settings and the environment that the metrics depend on."""
    own = with_checkpoint_input(checkpoint, config.test)
    return {
        "checkpoint": str(checkpoint.source),
        "short_side": own.short_side or None,
        "input_size": own.input_size,
        "resize_probabilities": bool(own.resize_probabilities),
        "split": config.test.split,
        "device": runtime.describe(segmenter.device),
        "processes": distributed.world_size(),
        "runtime": segmenter.runtime,
        "precision": segmenter.precision,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
            "cuda": torch.version.cuda or "none",
        },
        "config": config.as_dict(),
    }


if __name__ == "__main__":
    cli.run(main)
