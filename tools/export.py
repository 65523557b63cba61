"""Write a checkpoint as an ONNX file: python tools/export.py --ckpt ckpt/last.pth --format onnx"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository, of which this is a script

from utils import cli
from utils.inference.onnx_export import OUTPUTS, PRECISIONS, export_onnx
from utils.io.files import check_folder
from utils.weights.checkpoint import read_checkpoint


def main() -> None:
    """Export one file, and say how far its output is from PyTorch's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--ckpt", required=True, metavar="FILE", help="a checkpoint of this project, or the published one"
    )
    parser.add_argument("--format", default="onnx", choices=("onnx",))
    parser.add_argument("--target", metavar="FILE", help="the file to write (default: the checkpoint's name, *.onnx)")
    parser.add_argument("--output", default="logits", choices=OUTPUTS, help="logits (default), or the label map")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument(
        "--normalize", action="store_true", help="take uint8 RGB images and normalise them inside the file"
    )
    args = parser.parse_args()
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
    print(f"input: image (B, 3, H, W), {kind}; output: {args.output}; {args.precision}; batch and size as you like")
    if args.output == "labels":
        print(
            f"checked against PyTorch in fp32: {100 * (1 - found['different']):.3f} % of the pixels have the same label"
        )
    else:
        print(f"checked against PyTorch in fp32: the logits differ by {found['difference']:.1e} of the largest")


if __name__ == "__main__":
    cli.run(main)
