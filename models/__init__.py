"""ICNet and its parts; independent of datasets, devices and configuration files."""

from models.icnet import POOLINGS, SUB4_INPUTS, VARIANTS, WIDTHS, ICNet
from models.resnet import BACKBONES

__all__ = ["BACKBONES", "POOLINGS", "SUB4_INPUTS", "VARIANTS", "WIDTHS", "ICNet"]
