"""Export a checkpoint to ONNX or OpenVINO: python tools/export.py --ckpt ckpt/last.pth --format onnx"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

import numpy as np
import torch
from PIL import Image

from dataset.segmentation import SegmentationDataset
from utils import cli
from utils.config import Config, TestConfig, load_config
from utils.data import build_dataset, check_classes
from utils.evaluation.measure import measure
from utils.inference.export import OUTPUTS, PRECISIONS, check_packages, export_onnx, export_openvino
from utils.inference.exported import SUFFIXES, runtime_of
from utils.inference.opening import check_exported, open_network, with_checkpoint_input
from utils.inference.predictor import Predictor
from utils.io.files import check_folder
from utils.io.sources import find_sources, read_image
from utils.weights.checkpoint import read_checkpoint

CALIBRATION_IMAGES = 200  # at most


def main() -> None:
    """Export one file, and report how much its output differs from PyTorch's."""
    args = parse_arguments()
    suffix = SUFFIXES[args.format]
    target = args.target or args.ckpt.with_suffix(suffix)
    if target.suffix != suffix:
        raise ValueError(f"--target {target} must end in {suffix}")
    check_folder(target.parent, "--target")
    if args.format == "openvino" and args.ckpt.resolve() == target.with_suffix(".bin").resolve():
        raise ValueError(f"--ckpt {args.ckpt} would be overwritten; set --target to a file of another name")
    check_packages(args.format, calibrating=args.calibrate is not None)
    checkpoint = read_checkpoint(args.ckpt)
    config = None if args.config is None else load_config(args.config, args.overrides)
    if config is not None:
        data = build_dataset(config.dataset, config.test.split, cityscapes_root=config.train.cityscapes_root)
        check_classes(data, checkpoint)
        check_exported(target, _test_of(target, config))
    own = with_checkpoint_input(checkpoint, TestConfig() if config is None else config.test)
    images = [] if args.calibrate is None else read_calibration(args.calibrate, own)
    settings: dict[str, Any] = {"output": args.output, "normalized_inside": args.normalize, "calibration": images}
    if args.format == "openvino":
        difference = export_openvino(checkpoint, target, **settings)
    else:
        difference = export_onnx(checkpoint, target, precision="fp32" if images else args.precision, **settings)
    size = target.with_suffix(".bin" if args.format == "openvino" else suffix).stat().st_size
    print(f"{target}: {checkpoint.backbone}, {len(checkpoint.classes)} classes, {size / 1e6:.1f} MB")
    kind = "uint8 RGB" if args.normalize else "normalised RGB"
    print(f"input: image (B, 3, H, W), {kind}, any B, H and W; output: {args.output}; {args.precision}")
    if images:
        share = label_agreement(args.ckpt, target, images)
        print(f"compared with PyTorch in fp32: {100 * share:.2f}% of the labels of the calibration images agree")
    elif args.output == "labels":
        print(f"compared with PyTorch in fp32: {100 * (1 - difference):.3f}% of the labels agree")
    else:
        print(f"compared with PyTorch in fp32: largest difference {difference:.1e} of the largest logit")
    if config is not None:
        here, there = (miou(path, data, config) for path in (target, args.ckpt))
        print(f"mIoU on the {len(data)} images of {config.test.split}: {here:.2%} (PyTorch in fp32: {there:.2%})")


def read_calibration(text: str, test: TestConfig) -> list[np.ndarray]:
    """Read up to 200 images, evenly spread over those that `text` stands for, at the network's input size."""
    sources = [source for source in find_sources(text, recursive=True) if source.kind == "image"]
    if not sources:
        raise ValueError(f"--calibrate {text} has no images; name a folder of images like those to be segmented")
    chosen = np.linspace(0, len(sources) - 1, min(CALIBRATION_IMAGES, len(sources))).round().astype(int)
    return [_at_input_size(Image.fromarray(read_image(str(sources[index].location))), test) for index in chosen]


def _at_input_size(image: Image.Image, test: TestConfig) -> np.ndarray:
    """Resize an image to the size that `utils.inference.views.MultiView` resizes it to."""
    scale = test.short_side / min(image.size) if test.short_side else 1
    height, width = test.input_size or (round(image.height * scale), round(image.width * scale))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def miou(path: Path, data: SegmentationDataset, config: Config) -> float:
    """Return the mIoU, 0 to 1, of a checkpoint in PyTorch in fp32, or of an exported file."""
    _, segmenter = open_network(path, torch.device("cpu"), _test_of(path, config))
    return measure(segmenter, data, config.train, title=path.name)[1]["miou"]


def _test_of(path: Path, config: Config) -> TestConfig:
    """Return the settings for evaluating a checkpoint in PyTorch, or an exported file in its own runtime."""
    return config.test.model_copy(update={"runtime": runtime_of(path), "precision": "fp32"})


def label_agreement(ckpt: Path, target: Path, images: list[np.ndarray]) -> float:
    """Return the share of pixels to which an exported network and its checkpoint in PyTorch give the same label."""
    test = TestConfig(short_side=0, resize_probabilities=False)  # the images have the right size
    reference = Predictor(ckpt, "cpu", test=test.model_copy(update={"runtime": "pytorch"}))
    exported = Predictor(target, "cpu", test=test)
    return float(np.mean([(exported.predict(image) == reference.predict(image)).mean() for image in images]))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    add(
        "--ckpt",
        required=True,
        type=cli.path,
        metavar="FILE",
        help="a checkpoint of this project, of mmsegmentation, the published one, or a .caffemodel",
    )
    add("--format", default="onnx", choices=SUFFIXES, help="format of the file (default: onnx)")
    add(
        "--target",
        type=cli.path,
        metavar="FILE",
        help="the file to write (default: the checkpoint's name, *.onnx or *.xml)",
    )
    add("--output", default="logits", choices=OUTPUTS, help="logits (default), or label maps")
    add("--precision", default="fp32", choices=PRECISIONS, help="fp16: ONNX only; int8: --calibrate (default: fp32)")
    add("--normalize", action="store_true", help="take uint8 RGB images and normalise them inside the file")
    add(
        "--calibrate",
        type=os.path.expanduser,
        metavar="IMAGES",
        help="for int8: images like those to be segmented, as for inference.py --input",
    )
    add(
        "--config",
        type=os.path.expanduser,
        metavar="FILE",
        help="also measure the mIoU on the data of this configuration, split test.split",
    )
    add("overrides", nargs="*", metavar="section.key=value", help="override keys of --config")
    args = parser.parse_intermixed_args()
    if (args.precision == "int8") != (args.calibrate is not None):
        parser.error("--precision int8 and --calibrate IMAGES go together")
    if (args.format, args.precision) == ("openvino", "fp16"):
        parser.error("--format openvino cannot be combined with --precision fp16")
    if args.overrides and args.config is None:
        parser.error(f"{args.overrides[0]} overrides a key of --config, which is missing")
    return args


if __name__ == "__main__":
    cli.run(main)
