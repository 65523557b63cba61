"""The contenders of the benchmark: ways to predict label maps from uint8 images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3_resnet50

from dataset.labels import cityscapes_classes
from dataset.transforms import Normalize
from demo.streets import render
from models import ICNet
from models.fusion import CascadeFeatureFusion
from models.layers import resize
from utils import runtime
from utils.inference.export import export_onnx, export_openvino
from utils.inference.onnx import OnnxSegmenter
from utils.inference.openvino import OpenVinoSegmenter, has_bf16
from utils.inference.segmenter import build_segmenter
from utils.weights.checkpoint import Checkpoint, read_checkpoint


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The network and the input that all contenders share."""

    folder: Path  # temporary, for files such as an exported network
    ckpt: str | None  # None: `backbone` with random weights and the Cityscapes classes
    backbone: str
    size: tuple[int, int]  # height and width
    batch: int
    device: torch.device
    precision: str  # of the PyTorch contenders, see `runtime.autocast`
    variant: str = "published"  # without `ckpt`, like `backbone`

    def checkpoint(self) -> Checkpoint:
        """Read the checkpoint, or make one with random weights and the batch norm statistics of a rendered street."""
        if self.ckpt is not None:
            return read_checkpoint(self.ckpt)
        torch.manual_seed(0)
        classes = cityscapes_classes()
        network = ICNet(len(classes), self.backbone, variant=self.variant)
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = None  # cumulative average: one forward pass sets the statistics
        with torch.no_grad():
            network.train()(Normalize()(self.image((256, 512)).cpu()))
        return Checkpoint(
            state_dict=network.state_dict(), backbone=self.backbone, classes=classes, structure=network.structure
        )

    def image(self, size: tuple[int, int] | None = None) -> Tensor:
        """Render a street as a batch (B, 3, H, W) uint8 on the device."""
        height, width = size or self.size
        street, _, _ = render(np.random.default_rng(0), height=height, width=width)
        return torch.from_numpy(street).permute(2, 0, 1).contiguous().expand(self.batch, -1, -1, -1).to(self.device)


@dataclass(frozen=True)
class Contender:
    """One way to predict label maps."""

    predict: Callable[[Tensor], Tensor]  # (B, 3, H, W) uint8 -> (B, H, W)
    network: Callable[[Tensor], object] | None = None  # to count FLOPs of; None: the network as inference.py runs it
    same_network: bool = True  # whether it runs the workload's network, so that its labels can be compared
    precision: str = "fp32"  # of its arithmetic
    on_cpu: bool = False  # even if the workload is on a GPU
    memory: bool = True  # whether `peak_memory` sees the prediction's memory, and nothing else


def published(workload: Workload) -> Contender:
    """Execute the network the way the published code does."""
    checkpoint = workload.checkpoint()
    variant = checkpoint.structure["variant"]
    if variant != "published" or checkpoint.structure["sub4_input"] != "image":
        name = f"the variant {variant}" if variant != "published" else "a network with another input of sub4"
        raise ValueError(f"{name} cannot be run as in the published code; remove 'published' from --only")
    return _plain(PublishedExecution(checkpoint.build()), Normalize(checkpoint.normalization), workload)


def eager(workload: Workload, *, precision: str | None = None) -> Contender:
    """Execute the network the way `evaluate.py` and `inference.py` do, by default in the workload's precision."""
    if precision == "bf16" and runtime.emulates_bf16(workload.device):
        raise ValueError("bf16 is emulated on this device, several times slower than fp32")
    precision = precision or workload.precision
    segmenter = build_segmenter(workload.checkpoint(), workload.device, precision=precision)
    return Contender(segmenter, precision=precision)


def compiled(workload: Workload) -> Contender:
    """Execute the same through torch.compile, on a GPU with CUDA graphs."""
    mode = "cuda_graphs" if workload.device.type == "cuda" else "default"
    checkpoint, precision = workload.checkpoint(), workload.precision
    segmenter = build_segmenter(checkpoint, workload.device, precision=precision, compiled=mode)
    return Contender(segmenter, precision=precision, memory=False)  # the measured call compiles for its image size


def onnx(workload: Workload, *, int8: bool = False) -> Contender:
    """Export the network, unless the folder has it already, and run it in ONNX Runtime.

    Args:
        int8: quantised, and calibrated on the image itself.
    """
    file = workload.folder / ("int8.onnx" if int8 else "network.onnx")
    if not file.exists():
        export_onnx(workload.checkpoint(), file, calibration=_calibration(workload, int8))
    segmenter = OnnxSegmenter(file, workload.device)
    on_cpu = segmenter.device.type == "cpu"
    seen = workload.device.type == "cpu"  # on a GPU, PyTorch's allocator is measured, not ONNX Runtime's
    return Contender(segmenter, precision="int8" if int8 else "fp32", on_cpu=on_cpu, memory=seen)


def openvino(workload: Workload, *, precision: str = "fp32", int8: bool = False) -> Contender:
    """Export the network, unless the folder has it already, and run it in OpenVINO.

    Args:
        int8: quantised, and calibrated on the image itself; the rest of the network is in bf16 if the CPU has it.
    """
    if int8 and has_bf16():
        precision = "bf16"
    file = workload.folder / ("int8.xml" if int8 else "network.xml")
    if not file.exists():
        export_openvino(workload.checkpoint(), file, calibration=_calibration(workload, int8))
    segmenter = OpenVinoSegmenter(file, precision=precision)
    return Contender(segmenter, precision="int8" if int8 else precision, on_cpu=True)


def _calibration(workload: Workload, int8: bool) -> list[np.ndarray]:
    return [workload.image()[0].permute(1, 2, 0).cpu().numpy()] if int8 else []


def deeplabv3(workload: Workload) -> Contender:
    """Build torchvision's DeepLabV3-ResNet50 with random weights, a reference that anyone can reproduce."""
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=len(cityscapes_classes()))
    return _plain(network, Normalize(), workload, same_network=False)


def _plain(network: nn.Module, normalize: Normalize, workload: Workload, *, same_network: bool = True) -> Contender:
    """Execute a network as it is: contiguous memory, unfused batch norms, argmax of full-size logits."""
    network = network.to(workload.device).eval()

    @torch.inference_mode()
    def predict(image: Tensor) -> Tensor:
        with runtime.autocast(workload.device, workload.precision):
            return network(normalize(image))["out"].argmax(1)

    return Contender(predict, network, same_network, workload.precision)


class PublishedExecution(nn.Module):
    """An ICNet executed as in the published code.

    The half-resolution image passes through the whole backbone, features are upsampled before their channels are mixed,
    and the logits of all three branches are computed, the main ones at full size.
    """

    def __init__(self, network: ICNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return all logits that the published code returns: (B, 3, H, W) -> (B, num_classes, H, W) and smaller."""
        network, (height, width) = self.network, image.shape[-2:]
        sub1 = network.sub1(image)
        sub2 = network.backbone.shallow(resize(image, (height // 2, width // 2)))
        network.backbone.deep(sub2)  # the published code computes this and does not use it
        sub4 = network.pyramid_pooling(network.backbone(resize(image, (height // 4, width // 4))))
        fused, aux_16 = _fuse(network.cff_24, sub4, sub2)
        fused, aux_8 = _fuse(network.cff_12, fused, sub1)
        quarter = network.classifier(resize(fused, [2 * side for side in fused.shape[-2:]]))
        return {"out": resize(quarter, (height, width)), "quarter": quarter, "aux_8": aux_8, "aux_16": aux_16}


def _fuse(cff: CascadeFeatureFusion, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    low = cff.conv_low(resize(low, high.shape[-2:]))
    return F.relu(low + cff.conv_high(high)), cff.aux_classifier(low)


CONTENDERS: dict[str, Callable[[Workload], Contender]] = {
    "published": published,
    "eager": eager,
    "eager-bf16": partial(eager, precision="bf16"),
    "compiled": compiled,
    "onnx": onnx,
    "onnx-int8": partial(onnx, int8=True),
    "openvino": openvino,
    "openvino-bf16": partial(openvino, precision="bf16"),
    "openvino-int8": partial(openvino, int8=True),
    "deeplabv3": deeplabv3,
}
DEFAULT = ("published", "eager", "onnx", "deeplabv3")
RUNTIMES = ("eager", "eager-bf16", "onnx", "onnx-int8", "openvino", "openvino-bf16", "openvino-int8")


def usable(names: Sequence[str], workload: Workload) -> dict[str, Contender]:
    """Build the contenders that can run with the machine and the packages at hand; print why others cannot."""
    found = {}
    for name in names:
        try:
            found[name] = CONTENDERS[name](workload)
        except ValueError as error:
            print(f"without {name}: {error}")
    return found


def prediction_job(workload: Workload, name: str) -> Callable[[], Tensor]:
    """Return a job that predicts one batch, with the contender warmed up on a small image."""
    predict, image = CONTENDERS[name](workload).predict, workload.image()
    predict(image[..., :64, :64].contiguous())
    return lambda: predict(image)
