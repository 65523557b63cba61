"""ICNet and its parts; nothing here knows of datasets, devices or configuration files."""

from models.icnet import ICNet
from models.resnet import BACKBONES

__all__ = ["BACKBONES", "ICNet"]
