"""The layout of mmsegmentation's ICNet (`icnet_r50-d8_in1k-pre_832x832_160k_cityscapes_20210926_042715-ce310aea.pth`).

Such a file is a dict with the tensors in `state_dict`, and says in `meta` how they came about.
"""

from utils.layout import Layout

_BRANCHES = tuple((f"backbone.psp_modules.{n}.1.", f"pyramid_pooling.branches.{n}.") for n in range(4))
_FUSIONS = tuple(
    (f"neck.{cff}.{conv}.{theirs}.", f"{cff}.{conv}.{ours}.")
    for cff in ("cff_24", "cff_12")
    for conv in ("conv_low", "conv_high")
    for theirs, ours in (("conv", 0), ("bn", 1))
)
_HEADS = tuple(
    (f"{theirs}.{part}.", f"{ours}.{number}.")
    for theirs, ours in (
        ("decode_head", "classifier"),
        ("auxiliary_head.0", "cff_24.aux_classifier"),
        ("auxiliary_head.1", "cff_12.aux_classifier"),
    )
    for part, number in (("convs.0", 0), ("conv_seg", 1))
)
STEM = (("stem.7.", "bn1."), ("stem.", "conv1."))  # of its ResNets: (theirs, ours)

MMSEG = Layout(
    beginnings=("backbone.backbone.", "backbone.psp_", "backbone.conv_sub", "neck.", "decode_head.", "auxiliary_head."),
    renamed=(
        *((f"backbone.backbone.{theirs}", f"backbone.{ours}") for theirs, ours in STEM),
        ("backbone.backbone.", "backbone."),
        *_BRANCHES,
        ("backbone.psp_bottleneck.", "pyramid_pooling.bottleneck."),
        ("backbone.conv_sub1.", "sub1."),
        ("backbone.conv_sub2.", "conv_sub2."),
        ("backbone.conv_sub4.", "conv_sub4."),
        *_FUSIONS,
        *_HEADS,
    ),
    classifier="classifier.1.weight",
    structure={"variant": "psp"},
    deep_stem="_v1c",
)
