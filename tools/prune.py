"""Prune a trained network to a share of its channels, after section 5 of the paper.

One step, which writes a smaller checkpoint to be retrained:
    python tools/prune.py --ckpt FILE --keep 0.5
All steps, each followed by retraining; what is complete is skipped, so the same command continues after a stop:
    python tools/prune.py --ckpt FILE --config FILE --steps 0.75,0.5 --output FOLDER section.key=value …
"""

import argparse
import os
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from dataset.transforms import Normalize
from demo.streets import render
from models import ICNet, TimmBackbone
from models.prune import prune
from tools.benchmark import image_size
from tools.benchmarking.timing import count_flops, time_in_turns
from tools.runs import finished_checkpoint, run_evaluation, run_script
from utils import cli, runtime
from utils.config import Config, load_config
from utils.inference.opening import with_checkpoint_input
from utils.inference.segmenter import build_segmenter
from utils.io.files import check_folder, check_new_file
from utils.settings import setting
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from utils.weights.run_folder import find_checkpoint
from utils.weights.tensors import load_state


@dataclass(frozen=True)
class Stage:
    """A row of the table: a checkpoint and its mIoU (0 to 1) before retraining, None for the original, and after."""

    path: Path
    before: float | None
    after: float


def main() -> None:
    """Prune one checkpoint, or run all steps and print the table."""
    args = parse_arguments()
    source = args.ckpt
    if args.keep is not None:
        target = args.target or source.with_name(f"{source.stem}_width{args.keep:g}.pth")
        check_new_file(target, ".pth", "--target")
        checkpoint = read_checkpoint(source)
        pruned = prune_checkpoint(checkpoint, args.keep)
        save_checkpoint(target, pruned)
        print(f"{target}: {parameters(pruned) / 1e6:.2f} of {parameters(checkpoint) / 1e6:.2f} million parameters")
        print(f"next: python train.py --config FILE {shlex.quote(setting('model.weights', target.as_posix()))}")
        return
    config = load_config(args.config, args.overrides)
    check_folder(args.output, "--output")
    stages = list(compress(args, config))
    device = runtime.select_device(config.train.specific_gpu_num.split(",")[0])
    print(format_table(stages, args.size or (1024, 2048), device))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--ckpt", required=True, type=cli.path, metavar="FILE", help="checkpoint to prune")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--keep", type=_share, help="share of the original network's channels that remain in each layer")
    what.add_argument("--steps", type=_steps, help="several such shares, in descending order, with training after each")
    parser.add_argument("--target", type=cli.path, metavar="FILE", help="with --keep: *.pth (default: beside --ckpt)")
    parser.add_argument(
        "--config", type=os.path.expanduser, metavar="FILE", help="with --steps: configuration of the training"
    )
    parser.add_argument(
        "--output",
        type=cli.path,
        metavar="FOLDER",
        help="with --steps: folder of the runs, of this --ckpt only",
    )
    parser.add_argument(
        "--size", type=image_size, metavar="WxH", help="with --steps: for GFLOP and ms (default: 2048x1024)"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="with --steps: train.epochs=10")
    args = parser.parse_intermixed_args()
    if args.steps and not (args.config and args.output):
        parser.error("--steps needs --config and --output")
    if args.steps and args.target:
        parser.error("--target goes with --keep; --steps writes to --output")
    if args.keep and (args.config or args.output or args.size or args.overrides):
        parser.error("--config, --output, --size and overrides go with --steps, not with --keep")
    return args


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return share


def _steps(text: str) -> list[float]:
    steps = [_share(part) for part in text.split(",")]
    if steps != sorted(set(steps), reverse=True):
        raise argparse.ArgumentTypeError(f"{text!r} is not in descending order, as 0.75,0.5 is")
    return steps


def prune_checkpoint(checkpoint: Checkpoint, keep: float) -> Checkpoint:
    """Return a checkpoint with the share `keep` of the channels of the original, unpruned network.

    Raises:
        ValueError: the network has been pruned that far already, or has a backbone from timm.
    """
    wide = checkpoint.build()
    if keep >= wide.structure["width"]:
        raise ValueError(
            f"{checkpoint.source} has a width of {wide.structure['width']:g} already; choose a smaller share than that"
        )
    if isinstance(wide.backbone, TimmBackbone):
        raise ValueError(f"{checkpoint.source} has the backbone {checkpoint.backbone}; those of timm cannot be pruned")
    structure = wide.structure | {"width": keep}
    narrow = ICNet(len(checkpoint.classes), checkpoint.backbone, **structure)
    load_state(narrow, prune(wide, narrow))
    pruned = replace(checkpoint, state_dict=narrow.state_dict(), structure=structure)
    return replace(pruned, epoch=0, iteration=0, metrics={}, training=None, source=None)


def parameters(checkpoint: Checkpoint) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in checkpoint.build().parameters())


def compress(args: argparse.Namespace, config: Config) -> Iterator[Stage]:
    """Prune and retrain step by step; yield the original network and that of each step."""
    folder, source = args.output, args.ckpt
    original = read_checkpoint(source)
    ensure_pruned(source, args.steps[0], pruned_path(folder, args.steps[0]))  # now, so that a mistake shows at once
    overrides = [*args.overrides, *input_settings(original, config)]

    def miou_of(path: Path, run: Path) -> float:
        return run_evaluation(path, run, args.config, overrides)["miou"]

    yield Stage(source, None, miou_of(source, folder / "original"))
    for keep in args.steps:
        pruned, run = pruned_path(folder, keep), folder / f"retrained-{keep:g}"
        ensure_pruned(source, keep, pruned)
        before = miou_of(pruned, pruned.parent)
        settings = [*overrides, *training_settings(pruned), setting("train.ckpt_dir", run), "train.resume=auto"]
        if finished_checkpoint(run, load_config(args.config, settings)) is None:
            run_script(run, "train.py", "--config", args.config, *settings)
        source = find_checkpoint(None, run)
        yield Stage(source, before, miou_of(source, run))


def pruned_path(folder: Path, keep: float) -> Path:
    return folder / f"pruned-{keep:g}" / "pruned.pth"


def input_settings(original: Checkpoint, config: Config) -> list[str]:
    """Return the overrides with which all networks of the table are validated at the original one's input size."""
    test = with_checkpoint_input(original, config.test)
    size = f"input_size={list(test.input_size)}" if test.input_size else f"short_side={test.short_side or 0}"
    return [f"test.{size}", f"test.resize_probabilities={bool(test.resize_probabilities)}"]


def ensure_pruned(source: Path, keep: float, target: Path) -> None:
    """Prune a checkpoint, unless that has been done; raise ValueError if it was done with another checkpoint."""
    pruned = prune_checkpoint(read_checkpoint(source), keep)
    if not target.exists():
        save_checkpoint(target, pruned)
    state = read_checkpoint(target).state_dict
    same = state.keys() == pruned.state_dict.keys()
    if not (same and all(torch.equal(state[name], tensor) for name, tensor in pruned.state_dict.items())):
        raise ValueError(f"{target} was not made from {source}; set --output to another folder, or delete it")


def training_settings(pruned: Path) -> list[str]:
    """Return the overrides with which train.py starts from a pruned network."""
    checkpoint = read_checkpoint(pruned)
    model = {"backbone": checkpoint.backbone, **checkpoint.structure}
    own = [f"model.{key}={value}" for key, value in model.items() if key != "dropout"]
    return [*own, setting("model.weights", pruned)]


def format_table(stages: Sequence[Stage], size: tuple[int, int], device: torch.device) -> str:
    """Measure all networks on a street of that height and width, and format a Markdown table."""
    height, width = size
    street, _, _ = render(np.random.default_rng(0), height=height, width=width)
    image = torch.from_numpy(street).permute(2, 0, 1)[None].to(device)
    checkpoints = [read_checkpoint(stage.path) for stage in stages]
    segmenters = [build_segmenter(checkpoint, device) for checkpoint in checkpoints]
    jobs = {str(number): partial(segmenter, image) for number, segmenter in enumerate(segmenters)}
    seconds = time_in_turns(jobs, repeats=5, device=device).values()
    rows = []
    for stage, checkpoint, segmenter, times in zip(stages, checkpoints, segmenters, seconds, strict=True):
        gflop = count_flops(segmenter.run, Normalize()(image)) / 1e9
        mious = [None if miou is None else 100 * miou for miou in (stage.before, stage.after)]
        share = checkpoint.structure["width"]
        rows.append([share, parameters(checkpoint) / 1e6, gflop, 1000 * statistics.median(times), *mious])
    headings = ["width", "million parameters", f"GFLOP at {width}x{height}", "ms", "mIoU % before retraining", "mIoU %"]
    formats = ["g", ".2f", ".1f", ".1f", ".2f", ".2f"]
    return tabulate(rows, headings, tablefmt="github", floatfmt=formats, missingval="-")


if __name__ == "__main__":
    cli.run(main)
