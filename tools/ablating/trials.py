"""The trials: what each changes of the baseline."""

from dataclasses import dataclass

BASELINE = ("model.crop_size=240", "train.epochs=6", "train.val_epoch=6")


@dataclass(frozen=True)
class Trial:
    """One way to train.

    Attributes:
        name: of its folder.
        question: the trials that are compared with each other, beside the baseline.
        label: what it is, for the table.
        overrides: of configs/camvid.yaml, after `BASELINE`.
        script: what trains, from the repository's top.
    """

    name: str
    question: str
    label: str
    overrides: tuple[str, ...] = ()
    script: str = "train.py"


PUBLISHED_RATE = "optimizer.init_lr=0.01"
TENFOLD = ("optimizer.sub1_lr_factor=10", "optimizer.head_lr_factor=10")
TRIALS = (
    Trial("baseline", "baseline", "0.04 for all, crop 240, sum of pooled maps, sub4 from the image, labels by nearest"),
    Trial("rate-1x", "learning rates", "0.01 for all", (PUBLISHED_RATE,)),
    Trial("rate-10x", "learning rates", "0.01, 10 x for new layers (as published)", (PUBLISHED_RATE, *TENFOLD)),
    Trial("ppm-none", "pyramid pooling", "none", ("model.ppm=none",)),
    Trial("ppm-concat", "pyramid pooling", "concatenated, learned", ("model.ppm=concat",)),
    Trial("sub4-sub2", "sub4's input", "layer2 of sub2", ("model.sub4_input=sub2",)),
    Trial("psp", "structure", "variant psp, whole", ("model.variant=psp",)),
    Trial("crop-352", "crop", "352", ("model.crop_size=352",)),
    Trial("loss-full", "loss", "at the labels' size", ("loss.resolution=full",)),
    Trial(
        "labels-bilinear",
        "loss",
        "labels resized bilinearly (as published)",
        script="tools/ablating/train_on_bilinear_labels.py",
    ),
)
