"""Segment images and videos: python inference.py --input IMAGE_OR_VIDEO"""

from argparse import Namespace
from pathlib import Path

from utils.cli import DEFAULT_CONFIG, parse_arguments
from utils.inference.options import add_arguments

if __name__ == "__main__":  # --help and wrong options are answered before the slow import of torch
    parse_arguments(__doc__, add_arguments)

from dataset.labels import ClassTable
from utils import cli, runtime
from utils.config import load_config
from utils.inference.predictor import Predictor, Smoother
from utils.inference.run import Inference
from utils.io.drawing import Painter
from utils.io.files import check_folder
from utils.io.outputs import Outputs
from utils.io.sources import find_sources
from utils.io.video import Span
from utils.io.window import open_window
from utils.weights.run_folder import choose_checkpoint


def main() -> int:
    """Segment every input; return 1 if some could not be read to their end."""
    args = parse_arguments(__doc__, add_arguments)
    config = load_config(args.config or DEFAULT_CONFIG, args.overrides)
    span = Span(start=args.start, end=args.end, every=args.every)
    Smoother(args.smooth)  # rejects a wrong weight before the network is loaded
    sources = find_sources(args.input, recursive=args.recursive)
    if (args.smooth or args.frames or span != Span()) and all(source.kind == "image" for source in sources):
        raise ValueError(f"--smooth, --frames, --every, --start and --end are for videos, but {args.input} has none")
    path, note = choose_checkpoint(config, args.config)
    device = runtime.select_device(config.train.specific_gpu_num)
    folder = output_folder(args, config.train.ckpt_dir)
    predictor = Predictor(path, device, test=config.test)
    outputs = build_outputs(args, folder, predictor.classes)
    predictor.check_smoothing(args.smooth)
    if args.show:
        open_window()

    log = cli.open_log(quiet=args.quiet)
    if note:
        log.info(note)
    log.info(f"checkpoint: {predictor.description}")
    log.info(f"device: {runtime.describe(predictor.segmenter.device)}")
    with cli.catching_signals() as stopping:
        inference = Inference(
            sources=sources,
            predictor=predictor,
            outputs=outputs,
            log=log,
            stopping=stopping,
            span=span,
            smooth=args.smooth,
            quiet=args.quiet,
            show=args.show,
        )
        inference.run()
    return 1 if inference.skipped or inference.truncated else 0


def output_folder(args: Namespace, ckpt_dir: str) -> Path:
    """Return the folder for the results; raise ValueError if it is not writable."""
    folder = args.output or Path(ckpt_dir) / "inference_output"
    check_folder(folder, "--output" if args.output else "train.ckpt_dir")
    return folder


def build_outputs(args: Namespace, folder: Path, classes: ClassTable) -> Outputs:
    """Build the writer for the files that the options request; raise ValueError for options that do not fit."""
    return Outputs(
        folder=folder,
        painter=Painter(classes=classes, alpha=args.alpha, shown=args.classes, legend=args.legend),
        kinds=() if args.save == ("none",) else args.save,
        with_shares=args.json,
        frames=args.frames,
        overwrite=args.overwrite,
    )


if __name__ == "__main__":
    cli.run(main)
