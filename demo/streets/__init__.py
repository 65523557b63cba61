"""Generated street scenes: a data set in the Cityscapes layout that costs no licence and no download.

It is made to train and test on within minutes, not to stand in for photographs. All 19 classes occur often;
colours overlap between classes and the light varies, so that shape, texture and place must be learned.
"""

from demo.streets.files import generate
from demo.streets.scene import render

__all__ = ["generate", "render"]
