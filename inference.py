"""Segment pictures and videos: python inference.py --input IMAGE_OR_VIDEO"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from utils import program, runtime
from utils.checkpoint import find_checkpoint, read_checkpoint
from utils.cli import DEFAULT_CONFIG, parse_arguments
from utils.config import load_config, run_name
from utils.files import check_folder
from utils.logger import open_log, progress
from utils.media import VideoReader, find_inputs, is_video, output_names, read_image, writing_video
from utils.predictor import Predictor
from utils.visualize import save_image, save_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this script takes."""
    parser.add_argument("--input", required=True, help="an image, a video, a folder or a quoted glob pattern")
    parser.add_argument(
        "--output", metavar="FOLDER", help="where to write (default: inference_output in train.ckpt_dir)"
    )


def main() -> int:
    """Segment every input; a broken one among several is reported and skipped, and the exit code is then 1."""
    args = parse_arguments(__doc__, add_arguments)
    config = load_config(args.config or DEFAULT_CONFIG, args.overrides)
    inputs = find_inputs(args.input)
    path = find_checkpoint(config.test.ckpt_path, config.train.ckpt_dir, name=run_name(config.model))
    device = runtime.select_device(config.train.specific_gpu_num)
    checkpoint = read_checkpoint(path)
    predictor = Predictor(checkpoint, device)
    output = Path(args.output) if args.output else Path(config.train.ckpt_dir) / "inference_output"
    check_folder(output, "--output" if args.output else "train.ckpt_dir")
    log = open_log()
    log.info(f"checkpoint: {checkpoint.describe()}")
    log.info(f"device: {runtime.describe(device)}")

    skipped = 0
    for source, name in progress(list(zip(inputs, output_names(inputs), strict=True)), "inputs"):
        try:
            segment = segment_video if is_video(source) else segment_image
            log.info(f"{source}: {segment(predictor, source, output / name)}")
        except (ValueError, FileNotFoundError) as error:
            if Path(args.input).is_file():
                raise
            skipped += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    log.info(f"{len(inputs) - skipped} of {len(inputs)} inputs done; results in {output}")
    return 1 if skipped else 0


def segment_image(predictor: Predictor, source: Path, output: Path) -> str:
    """Write `{output}_pred.png` (class indices) and `{output}_overlay.png`; say what was found."""
    image = read_image(source)
    labels = predictor.predict(image)
    save_labels(f"{output}_pred.png", labels, predictor.classes)
    save_image(f"{output}_overlay.png", predictor.overlay(image, labels))
    shares = predictor.shares(labels)
    return f"{image.shape[1]}x{image.shape[0]}, " + ", ".join(
        f"{n} {100 * s:.0f} %" for n, s in shares.items() if s >= 0.005
    )


def segment_video(predictor: Predictor, source: Path, output: Path) -> str:
    """Write `{output}_overlay.mp4`, of the same size and frame rate; say how many frames."""
    video = VideoReader(source)
    frames = 0
    with writing_video(Path(f"{output}_overlay.mp4"), video.fps) as writer:
        for frame in progress(video, source.name, total=video.frames or None, unit="frame"):
            writer.write(predictor.overlay(frame, predictor.predict(frame)))
            frames += 1
    short = f", though it says {video.frames}: it is cut short or damaged" if frames < 0.95 * video.frames else ""
    return f"{frames} frames at {video.fps:g} frames/s{short}"


if __name__ == "__main__":
    program.run(main)
