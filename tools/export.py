"""Export a checkpoint to ONNX: python tools/export.py --ckpt ckpt/last.pth --format onnx"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from utils import cli
from utils.inference.onnx_export import OUTPUTS, PRECISIONS, export_onnx
from utils.io.files import check_folder
from utils.weights.checkpoint import read_checkpoint


def main() -> None:
    """Export one file, and report how much its output differs from PyTorch's."""
    args = parse_arguments()
    target = Path(args.target) if args.target else Path(args.ckpt).with_suffix(".onnx")
    if target.suffix != ".onnx":
        raise ValueError(f"--target {target} must end in .onnx")
    check_folder(target.parent, "--target")
    checkpoint = read_checkpoint(args.ckpt)
    found = export_onnx(
        checkpoint, target, output=args.output, precision=args.precision, normalized_inside=args.normalize
    )
    print(f"{target}: {checkpoint.backbone}, {len(checkpoint.classes)} classes, {target.stat().st_size / 1e6:.1f} MB")
    kind = "uint8 RGB" if args.normalize else "normalised RGB"
    print(f"input: image (B, 3, H, W), {kind}, any B, H and W; output: {args.output}; {args.precision}")
    if args.output == "labels":
        print(f"compared with PyTorch in fp32: {100 * (1 - found['different']):.3f} % of the labels agree")
    else:
        print(f"compared with PyTorch in fp32: largest difference {found['difference']:.1e} of the largest logit")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--ckpt", required=True, metavar="FILE", help="a checkpoint of this project, or the published one")
    add("--format", default="onnx", choices=("onnx",))
    add("--target", metavar="FILE", help="the file to write (default: the checkpoint's name, *.onnx)")
    add("--output", default="logits", choices=OUTPUTS, help="logits (default), or label maps")
    add("--precision", default="fp32", choices=PRECISIONS)
    add("--normalize", action="store_true", help="take uint8 RGB images and normalise them inside the file")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
