"""Segment pictures and videos: python inference.py --input IMAGE_OR_VIDEO"""

import argparse
from pathlib import Path

from utils.cli import DEFAULT_CONFIG, parse_arguments
from utils.inference.options import add_arguments

if __name__ == "__main__":  # --help, and a mistake in the command line, need not wait seconds for torch's import
    parse_arguments(__doc__, add_arguments)

from utils import cli, runtime
from utils.cli import open_log
from utils.config import load_config
from utils.inference.predictor import Predictor, Smoother
from utils.inference.run import Inference
from utils.io.drawing import Painter
from utils.io.files import check_folder
from utils.io.outputs import Outputs
from utils.io.sources import find_sources
from utils.io.video import Span
from utils.io.window import Window
from utils.weights.run_folder import find_checkpoint, run_name


def main() -> int:
    """Segment every input; a broken one among several is reported and skipped, and the exit code is then 1."""
    args = parse_arguments(__doc__, add_arguments)
    config = load_config(args.config or DEFAULT_CONFIG, args.overrides)
    span = Span(start=args.start, end=args.end, every=args.every)
    Smoother(args.smooth)
    sources = find_sources(args.input, recursive=args.recursive)
    path = find_checkpoint(config.test.ckpt_path, config.train.ckpt_dir, name=run_name(config.model))
    device = runtime.select_device(config.train.specific_gpu_num)
    predictor = Predictor(path, device, test=config.test)
    folder = Path(args.output or Path(config.train.ckpt_dir) / "inference_output")
    check_folder(folder, "--output" if args.output else "train.ckpt_dir")
    outputs = build_outputs(args, folder, predictor)
    window = Window() if args.show else None

    log = open_log(quiet=args.quiet)
    log.info(f"checkpoint: {predictor.about}")
    log.info(f"device: {runtime.describe(device)}")
    with cli.catching_signals() as stopping:
        inference = Inference(
            predictor=predictor,
            outputs=outputs,
            log=log,
            stopping=stopping,
            span=span,
            smooth=args.smooth,
            quiet=args.quiet,
            window=window,
        )
        inference.run(sources)
    for line in inference.report(len(sources)):
        log.info(line)
    return 1 if inference.skipped else 0


def build_outputs(args: argparse.Namespace, folder: Path, predictor: Predictor) -> Outputs:
    """Put together what to write, from the command line."""
    shown = tuple(name.strip() for name in args.classes.split(",") if name.strip())
    painter = Painter(classes=predictor.classes, alpha=args.alpha, shown=shown, legend=args.legend)
    kinds = () if args.save == "none" else tuple(dict.fromkeys(kind.strip() for kind in args.save.split(",")))
    return Outputs(
        folder=folder, painter=painter, kinds=kinds, shares=args.json, frames=args.frames, overwrite=args.overwrite
    )


if __name__ == "__main__":
    cli.run(main)
