"""Measure speed and memory here, in turns with the published way: python tools/benchmark.py --ckpt ckpt/last.pth"""

import argparse
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository, of which this is a script

from tools.benchmarking.contenders import CONTENDERS, Setting
from tools.benchmarking.stages import time_stages
from tools.benchmarking.steps import time_steps
from tools.benchmarking.timing import count_flops, matmul_peak, memory_of, time_in_turns
from utils import cli, runtime
from utils.inference.onnx_export import export_onnx
from utils.io.files import write_json

COLUMNS = ("median ms", "p95 ms", "images/s", "ratio", "GFLOP", "of the peak", "MB beyond the model", "same labels")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    """Measure what is asked for, and print tables."""
    args = parse_arguments()
    device = torch.device(args.device)
    setting = Setting(
        ckpt=args.ckpt,
        backbone=args.backbone,
        size=args.size,
        batch=args.batch,
        device=args.device,
        precision=args.precision,
    )
    results = {"machine": machine(device), "arguments": vars(args)}
    print(f"{results['machine']}\n{setting.describe()}, {args.repeats} repeats in turns after a warm-up\n")
    if "predict" in args.what:
        with TemporaryDirectory() as folder:
            if "onnx" in args.only:
                file = f"{folder}/network.onnx"
                export_onnx(setting.checkpoint(), file)
                setting = replace(setting, onnx=file)
            results["predict"] = time_predictions(setting, args.only, args.repeats)
    if "stages" in args.what:
        results["stages"] = show(time_stages(setting, repeats=args.repeats), "stage, one image")
    if "train" in args.what:
        results["train"] = show(time_steps(setting, crop=args.crop, repeats=args.repeats), "training step")
    if args.json:
        write_json(args.json, results)


def time_predictions(setting: Setting, names: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Compare the contenders from image tensor to label map; time ratios and labels are against the first's."""
    device, image = torch.device(setting.device), setting.image()
    contenders = {name: CONTENDERS[name](setting) for name in names}
    labels = {name: contender.predict(image).cpu() for name, contender in contenders.items()}
    jobs = {name: partial(contender.predict, image) for name, contender in contenders.items()}
    seconds = time_in_turns(jobs, repeats=repeats, device=device)
    peak = matmul_peak(device, DTYPES[setting.precision])
    print(f"largest matrix product: {peak / 1e9:.0f} GFLOP/s in {setting.precision}\n")
    print(f"| from image tensor to label map | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    rows = {}
    for name, contender in contenders.items():
        median, memory = statistics.median(seconds[name]), memory_of(Predicting(setting, name), device)
        flops = count_flops(contender.network, setting.tensor())
        rows[name] = {
            "median_ms": 1000 * median,
            "p95_ms": 1000 * float(np.percentile(seconds[name], 95)),
            "images_per_second": setting.batch / median,
            "ratio": statistics.median(a / b for a, b in zip(seconds[names[0]], seconds[name], strict=True)),
            "gflop": flops / 1e9,
            "share_of_peak": flops / median / peak,
            "memory_mb": None if memory is None else memory / 1e6,
            "same_labels": (labels[name] == labels[names[0]]).double().mean().item(),
        }
        print(_line(name, rows[name]))
    print(f"\nratio: time of {names[0]} over that of the line, median over the turns; same labels: as {names[0]}'s\n")
    return rows


def _line(name: str, row: dict[str, Any]) -> str:
    cells = [
        *(f"{row[key]:.1f}" for key in ("median_ms", "p95_ms")),
        *(f"{row[key]:.2f}" for key in ("images_per_second", "ratio")),
        f"{row['gflop']:.0f}",
        f"{100 * row['share_of_peak']:.0f} %",
        "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}",
        "-" if name == "deeplabv3" else f"{100 * row['same_labels']:.4f} %",  # another network
    ]
    return f"| {name} | {' | '.join(cells)} |"


class Predicting:
    """Make the job of one prediction, in whatever process (see `tools.benchmarking.timing.memory_of`)."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting, self.name = setting, name

    def __call__(self) -> Callable[[], object]:
        """Load the contender and run it on a small image, so that libraries are loaded too."""
        predict, image = CONTENDERS[self.name](self.setting).predict, self.setting.image()
        predict(image[..., :64, :64].contiguous())
        return partial(predict, image)


def show(seconds: dict[str, list[float]], title: str) -> dict[str, float]:
    """Print medians as a table; return them in milliseconds."""
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    print(f"| {title} | median ms | p95 ms |\n|---|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {medians[name]:.1f} | {1000 * np.percentile(values, 95):.1f} |")
    print()
    return medians


def machine(device: torch.device) -> str:
    """Name what is measured on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{cpu} ({instructions}), {runtime.describe(device)}, PyTorch {torch.__version__}"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", nargs="+", default=["predict"], choices=("predict", "stages", "train"))
    parser.add_argument("--only", nargs="+", default=[n for n in CONTENDERS if n != "compiled"], choices=CONTENDERS)
    parser.add_argument("--ckpt", metavar="FILE", help="whose network; none: one of --backbone with random weights")
    parser.add_argument("--backbone", default="resnet50_v1s", help="without --ckpt (default: the published one's)")
    parser.add_argument("--size", type=_size, default=(1024, 2048), metavar="WxH", help="default: 2048x1024")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--crop", type=int, default=352, help="side of the images of the training step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32", choices=DTYPES)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT; return height and width."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT of at least 32x32")
    return int(height), int(width)


if __name__ == "__main__":
    cli.run(main)
