"""Train every trial of tools/ablating/trials.py on CamVid: python tools/ablations.py dataset.root=FOLDER

Each trial is a run of train.py with configs/camvid.yaml in a folder of its own. What is complete is not run again, what
was interrupted goes on, so the tool can be started at any time, also twice beside itself. At the end it prints the
table of docs/camvid.md and draws its plot.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository, of which this is a script

from tools.ablating.trials import BASELINE, TRIALS, Trial
from utils import cli
from utils.io.files import replacing
from utils.training.records import read_json_lines

REPOSITORY = Path(__file__).parent.parent


def main() -> None:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of every trial: dataset.root=FOLDER and what the machine wants")
    parser.add_argument("--out", type=Path, default=Path("ckpt/ablations"), help="folder (default: ckpt/ablations)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="default: 0 1")
    parser.add_argument("--only", nargs="+", choices=[trial.name for trial in TRIALS], help="default: all")
    parser.add_argument("--plot", type=Path, help="PNG or SVG to draw (default: ablations.svg in --out)")
    parser.add_argument("--report", action="store_true", help="run nothing, report what there is")
    args = parser.parse_args()
    trials = [trial for trial in TRIALS if args.only is None or trial.name in args.only]
    if not args.report:
        for seed in args.seeds:
            for trial in trials:
                run_trial(trial, seed, out=args.out, overrides=args.overrides)
    results = {trial: read_results(trial, out=args.out, seeds=args.seeds) for trial in trials}
    results = {trial: values for trial, values in results.items() if values}
    print(format_results(results))
    draw_results(results, args.plot or args.out / "ablations.svg")


def run_trial(trial: Trial, seed: int, *, out: Path, overrides: list[str]) -> None:
    """Train one trial from one seed, unless it is complete or another process is at it.

    Raises:
        ValueError: the training ended with an error; the line says where its own message is.
    """
    folder = out.resolve() / f"{trial.name}-{seed}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    claim = folder.with_suffix(".running")
    if final_miou(folder) is not None:
        return
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        print(f"{folder.name}: left to another process; delete {claim} if there is none")
        return
    own = [f"train.seed={seed}", f"train.ckpt_dir={folder}", "train.resume=auto"]
    command = [trial.script, "--config", "configs/camvid.yaml", *BASELINE, *trial.overrides, *overrides, *own]
    print(f"{folder.name}: python {' '.join(command)}", flush=True)
    try:
        code = subprocess.run([sys.executable, *command], cwd=REPOSITORY).returncode
    finally:
        claim.unlink()
    if code != 0:
        raise ValueError(f"{folder.name} ended with exit code {code}; its message stands above")


def final_miou(folder: Path) -> float | None:
    """The mIoU (0 to 1) after the last epoch of a run; None if it has not come so far."""
    path = folder / "train.jsonl"
    records = read_json_lines(path) if path.exists() else []
    return records[-1].get("miou") if records else None


def read_results(trial: Trial, *, out: Path, seeds: list[int]) -> list[float]:
    """The mIoU in per cent of each seed that is complete."""
    found = [final_miou(out / f"{trial.name}-{seed}") for seed in seeds]
    return [100 * value for value in found if value is not None]


def format_results(results: dict[Trial, list[float]]) -> str:
    """A Markdown table of mean and spread, with the difference from the baseline."""
    lines = [
        "| question | trial | mIoU % of each seed | mean | from the baseline |",
        "|---|---|---|---|---|",
    ]
    baseline = next((mean(values) for trial, values in results.items() if trial.name == "baseline"), None)
    for trial, values in results.items():
        difference = "" if baseline is None or trial.name == "baseline" else f"{mean(values) - baseline:+.1f}"
        seeds = ", ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {trial.question} | {trial.label} | {seeds} | {mean(values):.1f} | {difference} |")
    return "\n".join(lines)


def draw_results(results: dict[Trial, list[float]], path: Path) -> None:
    """Draw a bar for each trial's mean and a point for each seed."""
    from matplotlib.figure import Figure  # takes a second to import

    trials = list(results)
    figure = Figure(figsize=(9, 0.4 * len(trials) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh([trial.name for trial in trials], [mean(results[trial]) for trial in trials], color="lightsteelblue")
    for row, trial in enumerate(trials):
        axes.plot(results[trial], [row] * len(results[trial]), "o", color="midnightblue", markersize=4)
    axes.invert_yaxis()
    axes.set_xlabel("mIoU % on val; bar: mean, points: seeds")
    axes.grid(axis="x", alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


if __name__ == "__main__":
    cli.run(main)
