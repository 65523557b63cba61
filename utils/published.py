"""The layout of the published checkpoint (`icnet_resnet50_197_0.710_best_model.pth`)."""

from utils.layout import Layout

PUBLISHED = Layout(
    beginnings=("pretrained.", "conv_sub1.", "head."),
    renamed=(
        ("head.cff_12.conv_low_cls.", "cff_12.aux_classifier."),
        ("head.cff_24.conv_low_cls.", "cff_24.aux_classifier."),
        ("head.conv_cls.", "classifier."),
        ("head.cff_", "cff_"),
        ("pretrained.", "backbone."),
        ("conv_sub1.", "sub1."),
    ),
    classifier="classifier.weight",
    structure={"variant": "published"},
    deep_stem="_v1s",
    unused=("pretrained.fc.",),  # the classifier of the ImageNet weights, carried along
)
