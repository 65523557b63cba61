"""Synthetic street scenes: a dataset in the Cityscapes layout, generated within minutes, free of third-party licences.

It is meant for trying out training and for tests, not as a substitute for photographs. All 19 classes occur often;
colours overlap between classes and the light varies, so that shape, texture and position have to be learned.
"""

from demo.streets.files import generate
from demo.streets.scene import render

__all__ = ["generate", "render"]
