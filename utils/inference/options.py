"""Command-line options of inference.py."""

import argparse
import os

from utils import cli


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that only inference.py has."""
    add = parser.add_argument
    add(
        "--input",
        required=True,
        type=os.path.expanduser,  # shells leave the ~ of --input=~/photos
        help="an image, a video, a folder, a quoted glob pattern, a text file of paths, a camera index, a stream URL, "
        "or - for an image on standard input",
    )
    add("--recursive", action="store_true", help="include subfolders of a folder")
    where = "where to write (default: inference_output in train.ckpt_dir)"
    add("--output", type=cli.path, metavar="FOLDER", help=where)
    add("--overwrite", action="store_true", help="replace existing outputs instead of skipping their inputs")
    add(
        "--save",
        type=_kinds,
        default="pred,overlay",
        metavar="KINDS",
        help="comma-separated: pred (class indices), color, overlay, labelids (Cityscapes only), side (image beside "
        "colours), or none (default: %(default)s)",
    )
    add("--alpha", type=float, default=0.5, help="opacity of the colours in an overlay (default: %(default)s)")
    add("--legend", action="store_true", help="draw a legend with the names, colours and shares of the classes present")
    add("--classes", type=_names, default="", metavar="NAMES", help="show only these classes, e.g. person,car")
    add("--json", action="store_true", help="also write the share of each class, per image or frame, as JSON")
    add("--every", type=int, default=1, metavar="N", help="use every Nth frame of a video")
    add("--start", type=float, default=0.0, metavar="SECONDS", help="skip the beginning of a video")
    add("--end", type=float, metavar="SECONDS", help="stop at this time in a video")
    add("--frames", action="store_true", help="write each frame of a video as an image")
    add("--smooth", type=float, default=0.0, metavar="A", help="reduce video flicker: weight of past frames, e.g. 0.7")
    add("--show", action="store_true", help="show overlays in a window: any key for the next image, q to quit")
    add("--quiet", action="store_true", help="print errors only")


def _kinds(text: str) -> tuple[str, ...]:
    if names := _names(text):
        return names
    raise argparse.ArgumentTypeError("names no kind of output; to write nothing, use none")  # say, an unset $KINDS


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
