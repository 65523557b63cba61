"""Convert other projects' weights to a checkpoint of this one: python tools/convert.py SOURCE TARGET"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from utils import cli
from utils.weights.checkpoint import read_checkpoint, save_checkpoint


def main() -> None:
    """Convert one file, and report unused tensors."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "source",
        help="a state dict in the published layout, a checkpoint of mmsegmentation, or the paper's .caffemodel",
    )
    parser.add_argument("target", help="the checkpoint to write, *.pth")
    args = parser.parse_args()
    if Path(args.target).exists():
        raise ValueError(f"{args.target} exists already; name another file, or delete it")
    checkpoint = read_checkpoint(args.source)
    checkpoint.build()  # raises for missing, unknown or misshapen tensors
    save_checkpoint(args.target, replace(checkpoint, training=None))
    classes, tensors = len(checkpoint.classes), len(checkpoint.state_dict)
    print(f"{args.target}: {checkpoint.backbone}, {classes} classes, {tensors} tensors")
    print(f"unused tensors left out: {', '.join(checkpoint.unused) or 'none'}")


if __name__ == "__main__":
    cli.run(main)
