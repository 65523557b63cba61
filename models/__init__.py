"""ICNet and its parts; nothing here knows of datasets, devices or configuration files."""

from models.icnet import POOLINGS, SUB4_INPUTS, VARIANTS, ICNet
from models.resnet import BACKBONES

__all__ = ["BACKBONES", "POOLINGS", "SUB4_INPUTS", "VARIANTS", "ICNet"]
