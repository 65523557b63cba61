"""ResNet backbone with dilation instead of stride in its last two layers."""

from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from models.layers import BatchNorm2d, scaled

LAYERS = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}
_DEEP_STEMS = {"_v1s": (64, 128), "_v1c": (32, 64)}  # channels of the first two convs, and of the third

BACKBONES = tuple(name + stem for stem in ("", *_DEEP_STEMS) for name in LAYERS)


class DilatedResNet(ResNet):
    """ResNet whose layers 3 and 4 keep the resolution of layer 2 (output stride 8) by dilations 2 and 4.

    Parameter names are torchvision's, so its ImageNet weights fit. Two suffixes denote a deep stem, three 3x3 convs
    instead of one 7x7: `{name}_v1s` as in the published checkpoint (64, 64 and 128 channels), `{name}_v1c` as in
    mmsegmentation (32, 32 and 64 channels), which also sets `ceil_mode` in max pooling.

    Args:
        name: one of `BACKBONES`.
        width: share of the channels of every layer.
        paper: the form of the paper's own network: max pooling with `ceil_mode`, `shallow` ends after the first block
            of layer2, and bottlenecks have their stride in the first 1x1 conv; see `stride_early` for layer2's.

    Attributes:
        shallow_channels, deep_channels: output channels of `shallow` and `deep`.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, name: str, *, width: float = 1.0, paper: bool = False) -> None:
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone {name!r}; available: {', '.join(BACKBONES)}")
        plain = name.partition("_")[0]
        block, layers = LAYERS[plain]
        stem = _DEEP_STEMS.get(name.removeprefix(plain))
        super().__init__(block, layers, norm_layer=BatchNorm2d)
        if stem is not None or width != 1:
            self._rebuild(block, layers, stem=stem, width=width)
        self.maxpool.ceil_mode = name.endswith("_v1c") or paper
        if paper and block is Bottleneck:
            stride_early(self.layer1, self.layer2, self.layer3, self.layer4)
        dilate(self.layer3, 2)
        dilate(self.layer4, 4)
        del self.avgpool, self.fc
        self.paper = paper
        self.shallow_channels = scaled(128, width) * block.expansion
        self.deep_channels = scaled(512, width) * block.expansion

    def _rebuild(
        self, block: type[BasicBlock | Bottleneck], layers: list[int], *, stem: tuple[int, int] | None, width: float
    ) -> None:
        """Build the stem, and the layers whose channels differ from torchvision's."""
        channels, out_channels = (scaled(count, width) for count in stem or (64, 64))
        plain = nn.Conv2d(3, out_channels, 7, stride=2, padding=3, bias=False)
        self.conv1 = plain if stem is None else deep_stem(channels, out_channels)
        self.bn1 = BatchNorm2d(out_channels)
        self.inplanes = out_channels  # input channels of `_make_layer`
        names = ("layer1",) if width == 1 else ("layer1", "layer2", "layer3", "layer4")
        for index, (name, blocks) in enumerate(zip(names, layers, strict=False)):
            layer = self._make_layer(block, scaled(64 * 2**index, width), blocks, stride=min(2, index + 1))
            self.set_submodule(name, layer)
        initialize(self.conv1, *map(self.get_submodule, names))

    def shallow(self, image: Tensor) -> Tensor:
        """Run stem, layer1 and layer2 (or its first block): (B, 3, H, W) -> (B, shallow_channels, H/8, W/8)."""
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.layer1(self.maxpool(x))
        return self.layer2[0](x) if self.paper else self.layer2(x)

    def deep(self, x: Tensor) -> Tensor:
        """Run the other layers: (B, shallow_channels, H/8, W/8) -> (B, deep_channels, H/8, W/8)."""
        x = self.layer2[1:](x) if self.paper else x
        return self.layer4(self.layer3(x))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, deep_channels, H/8, W/8)."""
        return self.deep(self.shallow(image))


def initialize(*modules: nn.Module) -> None:
    """Initialise convolutions as torchvision's ResNet does."""
    for conv in (m for module in modules for m in module.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")


def deep_stem(channels: int, out_channels: int) -> nn.Sequential:
    """Build three 3x3 convs, the first with stride 2; the ResNet's `bn1` and `relu` follow the last."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
        BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
    )


def stride_early(layer1: Any, *layers: Any) -> None:  # an nn.Sequential's items have no type
    """Move the stride of bottleneck layers from their 3x3 conv to the 1x1 conv before it.

    A 1x1 conv of stride 2 reads every second pixel, so the preceding block need not compute the rest. layer2's stride
    therefore moves further, into the 3x3 conv of layer1's last block; those of layers 3 and 4 are removed by `dilate`.
    """
    for layer in layers:
        layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, (1, 1)
    last, first = layer1[-1], layers[0][0]
    last.conv2.stride = first.conv1.stride
    if last.downsample is None:
        last.downsample = nn.MaxPool2d(1, stride=first.conv1.stride)
    else:  # layer1 has a single block
        last.downsample[0].stride = first.conv1.stride
    first.conv1.stride = first.downsample[0].stride = (1, 1)


def dilate(layer: nn.Sequential, dilation: int) -> None:
    """Remove the stride of a ResNet layer and dilate its 3x3 convs, the strided one by half.

    torchvision's `replace_stride_with_dilation` does the same, but only for bottleneck blocks.
    """
    for conv in (m for m in layer.modules() if isinstance(m, nn.Conv2d)):
        if conv.kernel_size == (3, 3):
            rate = dilation // 2 if conv.stride == (2, 2) else dilation
            conv.dilation = conv.padding = (rate, rate)
        conv.stride = (1, 1)
