"""Who takes part in the benchmark, each from a uint8 image tensor to the label map."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dataset.labels import cityscapes_classes
from dataset.transforms import Normalize
from demo.streets import render
from models import ICNet
from tools.benchmarking.yardsticks import PublishedWay, deeplab
from utils import runtime
from utils.inference.onnx import OnnxSegmenter
from utils.inference.segmenter import build_segmenter
from utils.weights.checkpoint import Checkpoint, read_checkpoint


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured.

    Attributes:
        ckpt: whose network; None: one of `backbone` with random weights and Cityscapes' classes.
        onnx: the network as an ONNX file, where ONNX Runtime takes part.
        size: height and width.
        precision: of all but ONNX Runtime, which has that of the file.
    """

    ckpt: str | None = None
    onnx: str | None = None
    backbone: str = "resnet50_v1s"
    size: tuple[int, int] = (1024, 2048)
    batch: int = 1
    device: str = "cpu"
    precision: str = "fp32"

    def checkpoint(self) -> Checkpoint:
        """Read or make the network; a random one's batch norms have seen a street, so that values are ordinary."""
        if self.ckpt is not None:
            return read_checkpoint(self.ckpt)
        torch.manual_seed(0)
        network = ICNet(len(cityscapes_classes()), self.backbone)
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = None  # statistics are plain means
        with torch.no_grad():
            network.train()(self.tensor(size=(256, 512)).cpu())
        return Checkpoint(state_dict=network.state_dict(), backbone=self.backbone, classes=cityscapes_classes())

    def image(self, size: tuple[int, int] | None = None) -> Tensor:
        """Render a street (B, 3, H, W) uint8."""
        height, width = size or self.size
        street, _, _ = render(np.random.default_rng(0), height=height, width=width)
        return torch.from_numpy(street).permute(2, 0, 1).contiguous().expand(self.batch, -1, -1, -1).to(self.device)

    def tensor(self, size: tuple[int, int] | None = None) -> Tensor:
        """Return the same, normalised."""
        return Normalize()(self.image(size))

    def describe(self) -> str:
        """Say in a line what it is."""
        whose = self.ckpt or f"{self.backbone}, random weights, 19 classes"
        return f"{whose}; {self.size[1]}x{self.size[0]}, batch {self.batch}, {self.precision}"


@dataclass(frozen=True)
class Contender:
    """Something that labels images.

    Attributes:
        network: from normalised images to logits; what its arithmetic is counted by.
        predict: (B, 3, H, W) uint8 -> (B, H, W).
    """

    network: Callable[[Tensor], object]
    predict: Callable[[Tensor], Tensor]


def published(setting: Setting) -> Contender:
    """Build the network executed the published way: contiguous memory, batch norms, logits at full size."""
    checkpoint = setting.checkpoint()
    if checkpoint.structure.get("variant", "published") != "published":
        raise ValueError(f"{setting.ckpt} has no published way of execution; leave it out: --only eager onnx deeplabv3")
    return _plain(PublishedWay(checkpoint.build()), Normalize(checkpoint.mean, checkpoint.std), setting)


def eager(setting: Setting) -> Contender:
    """Build what evaluation and inference use."""
    segmenter = build_segmenter(setting.checkpoint(), setting.device, precision=setting.precision)
    return Contender(segmenter.logits, segmenter)


def compiled(setting: Setting) -> Contender:
    """Build the same through torch.compile, on a GPU with CUDA graphs."""
    mode = "cuda_graphs" if setting.device.startswith("cuda") else "default"
    checkpoint = setting.checkpoint()
    segmenter = build_segmenter(checkpoint, setting.device, precision=setting.precision, compiled=mode)
    return Contender(eager(setting).network, segmenter)


def onnx(setting: Setting) -> Contender:
    """Open the exported network in ONNX Runtime."""
    assert setting.onnx is not None, "export the network first"
    return Contender(eager(setting).network, OnnxSegmenter(setting.onnx, setting.device))


def deeplabv3(setting: Setting) -> Contender:
    """Build torchvision's network, which anyone can measure for themselves."""
    return _plain(deeplab(len(cityscapes_classes())), Normalize(), setting)


def _plain(network: nn.Module, normalize: Normalize, setting: Setting) -> Contender:
    device = torch.device(setting.device)
    network = network.to(device).eval()

    @torch.inference_mode()
    def predict(image: Tensor) -> Tensor:
        with runtime.autocast(device, setting.precision):
            return network(normalize(image))["out"].argmax(1)

    return Contender(network, predict)


CONTENDERS = {
    "published": published,
    "eager": eager,
    "compiled": compiled,
    "onnx": onnx,
    "deeplabv3": deeplabv3,
}
