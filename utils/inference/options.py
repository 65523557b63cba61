"""The command line of inference.py, beyond what all scripts take."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what inference.py alone takes."""
    add = parser.add_argument
    add(
        "--input",
        required=True,
        help="an image, a video, a folder, a quoted glob pattern, a text file of paths, the number of a camera, "
        "the address of a stream, or - for an image on standard input",
    )
    add("--recursive", action="store_true", help="look into a folder's folders too")
    add("--output", metavar="FOLDER", help="where to write (default: inference_output in train.ckpt_dir)")
    add("--overwrite", action="store_true", help="segment again what has outputs already")
    add(
        "--save",
        default="pred,overlay",
        metavar="KINDS",
        help="of pred (class indices), color, overlay, labelids (of Cityscapes), side (image beside colours); or none",
    )
    add("--alpha", type=float, default=0.5, help="share of the colours in an overlay (default: 0.5)")
    add("--legend", action="store_true", help="draw names, colours and shares of the classes present")
    add("--classes", default="", metavar="NAMES", help="show only these, as in person,car (pred and labelids: all)")
    add("--json", action="store_true", help="write the share of each class per image or frame")
    add("--every", type=int, default=1, metavar="N", help="take every Nth frame of a video")
    add("--start", type=float, default=0.0, metavar="SECONDS", help="where to begin in a video")
    add("--end", type=float, metavar="SECONDS", help="where to end in it")
    add("--frames", action="store_true", help="write a video as single pictures")
    add("--smooth", type=float, default=0.0, metavar="A", help="weight of the frames before, against flicker, as 0.7")
    add("--show", action="store_true", help="show overlays in a window; a key goes on to the next picture, q ends")
    add("--quiet", action="store_true", help="print errors only")
