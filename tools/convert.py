"""Convert another project's weights to a checkpoint of this one or, with --half, shrink a checkpoint for sharing.

python tools/convert.py SOURCE TARGET
python tools/convert.py --half ckpt/last.pth shared.pth
"""

import copy
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from utils import cli
from utils.config import Config, load_config
from utils.io.files import check_new_file
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

LOCAL = (  # keys of files and folders on the machine that trained it
    *(("model", "weights"), ("model", "backbone_weights"), ("loss", "distill"), ("dataset", "root")),
    *(("train", "cityscapes_root"), ("train", "ckpt_dir"), ("train", "resume")),
    *(("test", "ckpt_path"), ("test", "submission")),
)


def main() -> None:
    """Convert one file, and report unused tensors."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "source",
        help="a checkpoint of this project or of mmsegmentation, the published state dict, or the paper's .caffemodel",
    )
    parser.add_argument("target", help="the checkpoint to write, *.pth")
    parser.add_argument(
        "--half", action="store_true", help="store weights in half precision, and leave out local paths"
    )
    args = parser.parse_args()
    check_new_file(Path(args.target), ".pth", "target")
    checkpoint = read_checkpoint(args.source)
    checkpoint.build()  # raises for missing, unknown or misshapen tensors
    if args.half:
        checkpoint = to_half_precision(checkpoint)
    save_checkpoint(args.target, replace(checkpoint, training=None))
    classes, tensors = len(checkpoint.classes), len(checkpoint.state_dict)
    print(f"{args.target}: {checkpoint.backbone}, {classes} classes, {tensors} tensors")
    print(f"unused tensors left out: {', '.join(checkpoint.unused) or 'none'}")


def to_half_precision(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with weights in float16, and with the default folders and files in its configuration."""
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in checkpoint.state_dict.items()
    }
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{checkpoint.source}: {name} has values beyond half precision (65504); leave out --half")
    if not checkpoint.config:
        return replace(checkpoint, state_dict=weights)
    load_config(checkpoint.config, name=str(checkpoint.source))  # raises for a damaged one
    config, default = copy.deepcopy(checkpoint.config), Config().as_dict()
    for section, key in LOCAL:
        if key in config.get(section, {}):
            config[section][key] = default[section][key]
    return replace(checkpoint, state_dict=weights, config=config)


if __name__ == "__main__":
    cli.run(main)
