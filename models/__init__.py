"""ICNet and its parts; independent of datasets, devices and configuration files."""

from models.icnet import POOLINGS, SUB4_INPUTS, VARIANTS, ICNet
from models.resnet import BACKBONES
from models.timm_backbone import TIMM, TimmBackbone

__all__ = ["BACKBONES", "POOLINGS", "SUB4_INPUTS", "TIMM", "VARIANTS", "ICNet", "TimmBackbone"]
