"""Write weights in another layout as a checkpoint of this project: python tools/convert.py SOURCE TARGET"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository, of which this is a script

from utils import cli
from utils.weights.checkpoint import read_checkpoint, save_checkpoint


def main() -> None:
    """Convert one file, and say what becomes of its tensors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="a bare state dict in the published layout, or a file of mmsegmentation")
    parser.add_argument("target", help="the checkpoint to write, *.pth")
    args = parser.parse_args()
    if Path(args.target).exists():
        raise ValueError(f"{args.target} exists already; name another file, or delete it")
    checkpoint = read_checkpoint(args.source)
    checkpoint.build()  # an error where a tensor is missing, left over or misshapen
    save_checkpoint(args.target, replace(checkpoint, training=None))
    classes, tensors = len(checkpoint.classes), len(checkpoint.state_dict)
    print(f"{args.target}: {checkpoint.backbone}, {classes} classes, {tensors} tensors")
    print(f"left out, since nothing uses them: {', '.join(checkpoint.dropped) or 'none'}")


if __name__ == "__main__":
    cli.run(main)
