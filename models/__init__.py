"""ICNet and its parts; independent of datasets, devices and configuration files."""

from models.icnet import ICNet
from models.resnet import BACKBONES
from models.timm_backbone import TIMM, TimmBackbone
from models.variants import POOLINGS, SUB4_INPUTS, VARIANTS

__all__ = ["BACKBONES", "POOLINGS", "SUB4_INPUTS", "TIMM", "VARIANTS", "ICNet", "TimmBackbone"]
