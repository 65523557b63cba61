"""Train the trials of an ablation study and compare them: python tools/ablations.py camvid dataset.root=FOLDER

Each trial is a run of train.py in its own folder. Completed runs are skipped and interrupted ones resumed, so the tool
can be started at any time, and several times in parallel. At the end it prints a table, as in docs/camvid.md,
and draws a plot, ablations.svg in the folder of the runs.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from tools.runs import REPOSITORY, finished_checkpoint, plotting, run_script
from utils import cli
from utils.config import load_config
from utils.settings import setting


class Trial(NamedTuple):
    """A training run that differs from the baseline only in its `overrides`."""

    name: str  # of its run folders
    question: str  # what its group of trials compares: "crop", "learning rates", …
    label: str  # in the table
    overrides: tuple[str, ...] = ()


class Study(NamedTuple):
    """A configuration, shortened by the `baseline` overrides, and the trials that depart from it."""

    config: str
    baseline: tuple[str, ...]
    trials: tuple[Trial, ...]


SINGLE_RATE = ("optimizer.init_lr=0.01", "optimizer.sub1_lr_factor=1", "optimizer.head_lr_factor=1")
TENFOLD_RATE = ("optimizer.init_lr=0.01", "optimizer.sub1_lr_factor=10", "optimizer.head_lr_factor=10")
RATES = (
    Trial("rate-1x", "learning rates", "0.01 for all", SINGLE_RATE),
    Trial("rate-10x", "learning rates", "0.01, 10 x for new layers (as published)", TENFOLD_RATE),
)
BILINEAR = Trial("labels-bilinear", "loss", "labels resized bilinearly (as published)", ("loss.label_resize=bilinear",))
STUDIES = {
    "camvid": Study(
        "configs/camvid.yaml",
        ("model.crop_size=240", "train.epochs=6", "train.val_epoch=6"),
        (
            Trial(
                "baseline", "baseline", "0.04 for all, crop 240, summed pooling, sub4 from the image, nearest labels"
            ),
            *RATES,
            Trial("ppm-none", "pyramid pooling", "none", ("model.ppm=none",)),
            Trial("ppm-concat", "pyramid pooling", "concatenated, learned", ("model.ppm=concat",)),
            Trial("sub4-sub2", "sub4's input", "layer2 of sub2", ("model.sub4_input=sub2",)),
            Trial("psp", "structure", "the whole variant psp", ("model.variant=psp",)),
            Trial("crop-352", "crop", "352", ("model.crop_size=352",)),
            Trial("loss-full", "loss", "at label resolution", ("loss.resolution=full",)),
            BILINEAR,
        ),
    ),
    "cityscapes": Study(
        "configs/cityscapes_small.yaml",
        ("model.crop_size=360", "train.epochs=4", "train.val_epoch=4"),
        (
            Trial("baseline", "baseline", "0.02, 2 x for new layers, crop 360, ImageNet weights, nearest labels"),
            Trial("crop-240", "crop", "240", ("model.crop_size=240",)),
            Trial("crop-480", "crop", "480", ("model.crop_size=480",)),
            *RATES,
            Trial("scratch", "initial weights", "random", ("model.backbone_weights=null",)),
            BILINEAR,
        ),
    ),
}


def main() -> None:
    """Run the missing trials and report all results."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument("study", choices=STUDIES, help="study to run")
    parser.add_argument("overrides", nargs="*", help="section.key=value for every trial, such as dataset.root=FOLDER")
    parser.add_argument("--config", type=cli.path, help="YAML file (default: that of the study)")
    parser.add_argument("--out", type=cli.path, help="folder (default: ckpt/ablations/STUDY)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="random seeds; goes after the overrides (default: 0 1)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TRIAL", help="trials to run; goes after the overrides (default: all)"
    )
    parser.add_argument("--report", action="store_true", help="train nothing, only report existing results")
    args = parser.parse_intermixed_args()
    study = STUDIES[args.study]
    args.config = args.config or REPOSITORY / study.config
    args.out = args.out or Path("ckpt/ablations") / args.study
    names = [trial.name for trial in study.trials]
    if unknown := set(args.only or ()) - set(names):
        raise ValueError(f"--only {' '.join(sorted(unknown))}: no such trial; {args.study} has {', '.join(names)}")
    trials = [trial for trial in study.trials if args.only is None or trial.name in args.only]
    runs = [(trial, seed) for seed in args.seeds for trial in trials]
    for trial, seed in runs:  # wrong settings, or runs with others, are refused before the first training
        final_miou(trial, seed, args)
    for trial, seed in [] if args.report else runs:
        run_trial(trial, seed, args)
    results: dict[Trial, list[float]] = {}
    for trial, seed in runs:
        if (miou := final_miou(trial, seed, args)) is not None:
            results.setdefault(trial, []).append(100 * miou)
    if args.report and not results:
        raise ValueError(f"no complete run in {args.out}; leave out --report to train, or set --out")
    print(format_results(results))
    plot_results(results, args.out / "ablations.svg")


def run_trial(trial: Trial, seed: int, args: argparse.Namespace) -> None:
    """Train one trial with one seed, unless it is complete or running in another process."""
    if final_miou(trial, seed, args) is None:
        folder, settings = folder_of(trial, seed, args), settings_of(trial, seed, args)
        try:
            run_script(folder, "train.py", "--config", str(args.config), *settings, "train.resume=auto")
        except BlockingIOError as error:
            print(f"skipped: {error}")


def final_miou(trial: Trial, seed: int, args: argparse.Namespace) -> float | None:
    """Return the mIoU (0 to 1) after the last epoch of a run; None if the run is incomplete."""
    last = finished_checkpoint(folder_of(trial, seed, args), load_config(args.config, settings_of(trial, seed, args)))
    return None if last is None else last.metrics["miou"]


def folder_of(trial: Trial, seed: int, args: argparse.Namespace) -> Path:
    """Return the folder of a run."""
    return args.out / f"{trial.name}-{seed}"


def settings_of(trial: Trial, seed: int, args: argparse.Namespace) -> list[str]:
    """Return the overrides of a run; if a key occurs several times, the last value counts."""
    own = [f"train.seed={seed}", setting("train.ckpt_dir", folder_of(trial, seed, args))]
    return [*STUDIES[args.study].baseline, *args.overrides, *trial.overrides, *own]


def format_results(results: dict[Trial, list[float]]) -> str:
    """Format the mIoU (%) of each trial as a Markdown table."""
    baseline = next((mean(values) for trial, values in results.items() if trial.name == "baseline"), None)
    rows = []
    for trial, values in results.items():
        difference = "" if baseline is None or trial.name == "baseline" else f"{mean(values) - baseline:+.1f}"
        seeds = ", ".join(f"{value:.1f}" for value in values)
        rows.append([f"`{trial.name}`", trial.question, trial.label, seeds, f"{mean(values):.1f}", difference])
    headers = ["trial", "question", "setting", "mIoU % of each seed", "mean", "vs. baseline"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def plot_results(results: dict[Trial, list[float]], path: Path) -> None:
    """Draw each trial's mean as a bar and its seeds as points."""
    with plotting(path, (9, 0.4 * len(results) + 1)) as axes:
        for trial, values in results.items():
            axes.barh(trial.name, mean(values), color="lightsteelblue")
            axes.plot(values, [trial.name] * len(values), "o", color="midnightblue", markersize=4)
        axes.invert_yaxis()
        axes.set_xlabel("mIoU % on val; bar: mean, points: seeds")
        axes.grid(axis="x", alpha=0.3)


if __name__ == "__main__":
    cli.run(main)
