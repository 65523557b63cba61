"""Plot accuracy against speed for several networks, in each runtime and precision that this machine has:

    python tools/tradeoff.py --ckpt FILE FILE --config FILE section.key=value … --calibrate IMAGES --out FOLDER

Each point of the plot is a run of evaluate.py, which measures mIoU and time per image on the same frames. Complete runs
are skipped, so after an interruption the same command continues.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from tools.runs import changed_since, plotting, run_evaluation, run_script
from utils import cli, runtime
from utils.io.files import check_folder
from utils.io.sources import find_sources
from utils.weights.checkpoint import read_checkpoint


class Point(NamedTuple):
    """One network in one runtime and precision."""

    network: str
    execution: str  # runtime and precision
    milliseconds: float  # from image to label map, median
    miou: float  # 0 to 1


def main() -> None:
    """Run the missing evaluations, print the table and draw the plot."""
    args = parse_arguments()
    check_folder(args.out, "--out")
    for ckpt in args.ckpt:
        read_checkpoint(ckpt)  # a wrong file, like wrong images, ends the run here, not after some of the evaluations
    if args.calibrate is not None:
        find_sources(args.calibrate, recursive=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [f"{name} {precision}" for name, own in runtime.available_runtimes(device).items() for precision in own]
    if args.calibrate is not None:
        if not ("openvino fp32" in names and runtime.installed("nncf")):
            raise ValueError("--calibrate needs OpenVINO and NNCF: pip install -r requirements-openvino.txt")
        names.append("openvino int8")
    points = [measure_point(ckpt, name, args) for ckpt in args.ckpt for name in names]
    rows = [(p.network, p.execution, p.milliseconds, 1000 / p.milliseconds, 100 * p.miou) for p in points]
    headings = ("network", "runtime and precision", "ms per image", "images/s", "mIoU %")
    print(tabulate(rows, headings, tablefmt="github", floatfmt=("", "", ".1f", ".1f", ".2f")))
    plot(points, args.out / "tradeoff.svg")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--ckpt", required=True, nargs="+", type=cli.path, metavar="FILE", help="checkpoints to compare"
    )
    parser.add_argument(
        "--config", required=True, type=os.path.expanduser, metavar="FILE", help="configuration with the data"
    )
    parser.add_argument(
        "--calibrate", type=os.path.expanduser, metavar="IMAGES", help="training images for int8 (default: no int8)"
    )
    parser.add_argument("--out", type=cli.path, default=Path("ckpt/tradeoff"), help="folder of the runs and the plot")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of --config")
    args = parser.parse_intermixed_args()
    if len({path.stem for path in args.ckpt}) < len(args.ckpt):
        parser.error(
            "--ckpt: two files have the same name, by which the table and the plot distinguish them; rename one"
        )
    return args


def measure_point(ckpt: Path, execution: str, args: argparse.Namespace) -> Point:
    """Evaluate a checkpoint in one runtime and precision, unless that has been done."""
    engine, precision = execution.split()
    folder, path = args.out / f"{ckpt.stem}-{engine}-{precision}", ckpt
    if precision == "int8":
        path = folder / f"{ckpt.stem}.xml"
        precision = runtime.choose_precision("auto", torch.device("cpu"))  # of the other layers
        note, images = folder / "calibrated_with.txt", os.fsencode(args.calibrate)
        if not (path.exists() and note.exists() and note.read_bytes() == images) or changed_since(path, ckpt):
            path.unlink(missing_ok=True)
            export = ["--format", "openvino", "--precision", "int8", "--normalize", "--calibrate", args.calibrate]
            run_script(folder, "tools/export.py", "--ckpt", str(ckpt), "--target", str(path), *export)
            note.write_bytes(images)
    options = [f"test.runtime={engine}", f"test.precision={precision}"]
    metrics = run_evaluation(path, folder, args.config, [*args.overrides, *options, "train.valid_batch_size=1"])
    gpu = ", GPU" if metrics["device"].startswith("cuda") else ""
    return Point(ckpt.stem, execution + gpu, metrics["speed"]["latency_median_ms"], metrics["miou"])


def plot(points: list[Point], path: Path) -> None:
    """Draw a line for each network, from its slowest to its fastest execution; the time axis is logarithmic."""
    with plotting(path, (9, 5)) as axes:
        for network in dict.fromkeys(point.network for point in points):
            own = sorted((p for p in points if p.network == network), key=lambda point: -point.milliseconds)
            axes.plot([1000 / p.milliseconds for p in own], [100 * p.miou for p in own], "o-", label=network)
            for number, point in enumerate(own):
                at = 1000 / point.milliseconds, 100 * point.miou
                near = number and own[number - 1].milliseconds < 1.04 * point.milliseconds  # the labels would overlap
                style = {"xytext": (0, -8), "va": "top", "ha": "right"} if near else {"xytext": (0, 8)}
                axes.annotate(point.execution, at, textcoords="offset points", rotation=60, fontsize=8, **style)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("images per second")
        axes.set_ylabel("mIoU %")
        axes.margins(0.12, 0.4)
        axes.grid(which="both", alpha=0.3)
        axes.legend(loc="lower left")


if __name__ == "__main__":
    cli.run(main)
