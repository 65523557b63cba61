"""Measure speed and memory, by default against the published code: python tools/benchmark.py --ckpt ckpt/last.pth"""

import argparse
import os
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from dataset.transforms import Normalize
from models import VARIANTS
from models.icnet import MIN_SIZE
from tools.benchmarking.contenders import CONTENDERS, DEFAULT, RUNTIMES, Contender, Workload, prediction_job, usable
from tools.benchmarking.stages import prediction_stages, training_step
from tools.benchmarking.timing import Job, count_flops, peak_flops, peak_memory, time_in_turns
from utils import cli, runtime
from utils.inference.segmenter import build_segmenter
from utils.io.files import check_folder, write_json

CPU_FEATURES = ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16")  # they decide the speed of fp32, int8 and bf16
HEADINGS = ("median ms", "p95 ms", "images/s", "speedup", "GFLOP", "of peak FLOP/s", "peak MB", "same labels")
FORMATS = (".1f", ".1f", ".2f", ".2f", ".0f", ".0%", ".0f", ".4%")


def main() -> None:
    """Run the requested measurements and print them as Markdown tables."""
    args = parse_arguments()
    device = args.device
    if args.json:
        check_folder(Path(args.json).parent, "--json")
        if Path(args.json).is_dir():
            raise ValueError(f"--json {args.json} is a folder; name a file")
    results: dict[str, Any] = {"machine": describe_machine(device), "arguments": vars(args) | {"device": str(device)}}
    network, (height, width) = args.ckpt or f"{args.variant}, {args.backbone}, random weights, 19 classes", args.size
    print(results["machine"])
    print(f"{network}; {width}x{height}, batch {args.batch}, {args.precision}, {args.repeats} repeats after warm-up\n")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        workload = Workload(
            folder=Path(folder),
            ckpt=args.ckpt,
            backbone=args.backbone,
            variant=args.variant,
            size=args.size,
            batch=args.batch,
            device=device,
            precision=args.precision,
        )
        workload.checkpoint().build()  # an unusable file ends the run here, not after some of the measurements
        if "predict" in args.what:
            chosen = {name: CONTENDERS[name](workload) for name in args.only or ()} or usable(DEFAULT, workload)
            results["predict"] = compare(workload, chosen, args.repeats)
        if "runtimes" in args.what:
            results["runtimes"] = compare(workload, usable(RUNTIMES, workload), args.repeats)
        if "stages" in args.what:
            jobs = prediction_stages(workload)
            results["stages"] = time_jobs(jobs, "stage, one image", args.repeats, device)
        if "train" in args.what:
            jobs = {"train.py": training_step(workload, crop=args.crop)}
            results["train"] = time_jobs(jobs, "training step", args.repeats, device)
    if args.json:
        write_json(args.json, results)


def compare(workload: Workload, contenders: dict[str, Contender], repeats: int) -> dict[str, dict[str, Any]]:
    """Measure the contenders from image tensor to label map; speedup and labels are relative to the first."""
    device, image, first = workload.device, workload.image(), next(iter(contenders))
    labels = {name: contender.predict(image).cpu() for name, contender in contenders.items()}
    jobs = {name: partial(contender.predict, image) for name, contender in contenders.items()}
    seconds = time_in_turns(jobs, repeats=repeats, device=device)
    measured = set(runtime.DTYPES) - ({"bf16"} if runtime.emulates_bf16(device) else set())  # emulation takes minutes
    here = {name for name, contender in contenders.items() if device.type == "cpu" or not contender.on_cpu}
    precisions = sorted(measured & {contenders[name].precision for name in here})
    peaks = {precision: peak_flops(device, runtime.DTYPES[precision]) for precision in precisions}
    network = build_segmenter(workload.checkpoint(), device).run
    rows: dict[str, dict[str, Any]] = {}
    for name, contender in contenders.items():
        median = statistics.median(seconds[name])
        flops = count_flops(contender.network or network, Normalize()(image))
        measurable = name in here and contender.memory
        memory = peak_memory(partial(prediction_job, workload, name), device) if measurable else None
        peak = peaks.get(contender.precision) if name in here else None
        same = (labels[name] == labels[first]).double().mean().item()
        rows[name] = {
            "median_ms": 1000 * median,
            "p95_ms": 1000 * float(np.percentile(seconds[name], 95)),
            "images_per_second": workload.batch / median,
            "ratio": statistics.median(a / b for a, b in zip(seconds[first], seconds[name], strict=True)),
            "gflop": flops / 1e9,
            "share_of_peak": flops / median / peak if peak else None,
            "memory_mb": None if memory is None else memory / 1e6,
            "same_labels": same if contender.same_network and contenders[first].same_network else None,
        }
    print_table("from image tensor to label map", HEADINGS, FORMATS, {name: row.values() for name, row in rows.items()})
    print(f"speedup, same labels: compared with {first}; peak MB: beyond the loaded model")
    if elsewhere := [name for name in contenders if name not in here]:
        print(f"on the CPU: {', '.join(elsewhere)}")
    listed = ", ".join(f"{peak / 1e9:.0f} G in {precision}" for precision, peak in peaks.items())
    print(f"peak FLOP/s, of a large convolution or matrix product in PyTorch: {listed}\n")
    return rows


def time_jobs(jobs: dict[str, Job], title: str, repeats: int, device: torch.device) -> dict[str, float]:
    """Print how long each job takes; return the medians in milliseconds."""
    seconds = time_in_turns(jobs, repeats=repeats, device=device)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    rows = {name: (medians[name], 1000 * np.percentile(values, 95)) for name, values in seconds.items()}
    print_table(title, HEADINGS[:2], FORMATS[:2], rows)
    return medians


def print_table(title: str, headings: Sequence[str], formats: Sequence[str], rows: dict[str, Any]) -> None:
    """Print rows of numbers by name as a Markdown table."""
    table = [[name, *values] for name, values in rows.items()]
    print(tabulate(table, [title, *headings], tablefmt="github", floatfmt=["", *formats], missingval="-") + "\n")


def describe_machine(device: torch.device) -> str:
    """Name the CPU with its vector extensions, the device and the PyTorch version."""
    info = Path("/proc/cpuinfo")
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", info.read_text(), re.MULTILINE)) if info.exists() else {}
    cpu = fields.get("model name") or platform.processor() or platform.machine()
    features = [name for name in CPU_FEATURES if name in fields.get("flags", "").split()]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{cpu} ({', '.join([capability, *features])}), {runtime.describe(device)}, PyTorch {torch.__version__}"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    kinds = ("predict", "runtimes", "stages", "train")
    add("--what", nargs="+", default=["predict"], choices=kinds, help="what to measure (default: predict)")
    default = f"(default: {' '.join(DEFAULT)}, if usable)"
    add("--only", nargs="+", choices=CONTENDERS, help=f"with --what predict: contenders to compare {default}")
    add("--ckpt", type=os.path.expanduser, metavar="FILE", help="checkpoint (default: --backbone with random weights)")
    parser.add_argument("--backbone", default="resnet50_v1s", help="backbone without --ckpt (default: resnet50_v1s)")
    parser.add_argument(
        "--variant", default="published", choices=VARIANTS, help="variant without --ckpt (default: published)"
    )
    add("--size", type=image_size, default=(1024, 2048), metavar="WxH", help="image size (default: 2048x1024)")
    add("--batch", type=whole_number, default=1, help="batch size (default: 1)")
    side = partial(whole_number, least=MIN_SIZE)
    add("--crop", type=side, default=352, metavar="SIDE", help="training crop in pixels (default: 352)")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", type=usable_device, default=device, help=f"cpu, cuda or cuda:N (default: {device})")
    add("--precision", default="fp32", choices=runtime.DTYPES, help="precision of what runs in PyTorch (default: fp32)")
    add("--repeats", type=whole_number, default=10, help="timed runs of each, after warm-up (default: 10)")
    parser.add_argument("--json", type=os.path.expanduser, metavar="FILE", help="also write the results to this file")
    args = parser.parse_args()
    if args.only and "predict" not in args.what:
        parser.error("--only selects contenders of --what predict, which is missing")
    return args


def whole_number(text: str, *, least: int = 1) -> int:
    """Parse a whole number."""
    if not (text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def usable_device(text: str) -> torch.device:
    """Parse "cpu", "cuda" or "cuda:1"."""
    kind, colon, index = text.partition(":")
    found = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(kind, 0)
    index = index if colon else "0"
    if not (index.isdecimal() and int(index) < found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device of this machine; use cpu, cuda or cuda:N")
    return torch.device(text)


def image_size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT; return height and width."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= MIN_SIZE):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, at least {MIN_SIZE}x{MIN_SIZE}")
    return int(height), int(width)


if __name__ == "__main__":
    cli.run(main)
