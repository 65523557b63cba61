"""Backbones from timm (https://github.com/huggingface/pytorch-image-models), an optional package."""

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fold import foldable_batch_norms

TIMM = "timm/"  # prefix of these backbones' names
SUITABLE = "timm/tf_efficientnet_lite0, timm/mobilenetv3_large_100, timm/resnet18d"  # examples, for error messages


class TimmBackbone(nn.ModuleDict):
    """A convolutional network from timm with output stride 8 and random weights, split where the stride reaches 8.

    It consists of the layers of timm's feature extractor (`features_only`), which run one after the other. Their names
    are timm's, except that `blocks.2`, a layer of a sequence, is `blocks_2`.

    Args:
        name: "timm/" and timm's name of the network, without a tag.

    Attributes:
        timm_name: timm's name of the network.
        shallow_channels, deep_channels: output channels of `shallow` and `deep`.

    Raises:
        ValueError: timm is not installed, has no such network, or cannot give it an output stride of 8.
    """

    def __init__(self, name: str) -> None:
        short = name.removeprefix(TIMM)
        if "." in short or not import_timm().is_model(short):
            raise ValueError(f"timm has no network {short!r}; it has, for example, {SUITABLE}")
        try:
            layers, features = _extractor(short)
            super().__init__(layers)
            self._split(features)
            self._try()
        except Exception as error:  # the error's type depends on timm's model family
            raise ValueError(
                f"{name} cannot serve as a backbone: ICNet needs a sequence of layers with output stride 8, as "
                f"timm has for {SUITABLE}"
            ) from error
        self.timm_name = short

    def shallow(self, image: Tensor) -> Tensor:
        """Run the layers up to stride 8: (B, 3, H, W) -> (B, shallow_channels, H/8, W/8)."""
        return self._run(image, slice(self._depth))

    def deep(self, x: Tensor) -> Tensor:
        """Run the other layers: (B, shallow_channels, H/8, W/8) -> (B, deep_channels, H/8, W/8)."""
        return self._run(x, slice(self._depth, None))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, deep_channels, H/8, W/8)."""
        return self.deep(self.shallow(image))

    def rename_timm_tensors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of timm's whole network; those of layers that the backbone does not have are left out."""
        both = ((here, tensor) for name, tensor in state.items() for here in (name, name.replace(".", "_", 1)))
        return {here: tensor for here, tensor in both if here.partition(".")[0] in self}

    def _run(self, x: Tensor, layers: slice) -> Tensor:
        for layer in list(self.values())[layers]:
            x = layer(x)
        return x

    def _split(self, features: list[dict]) -> None:
        """Find the last shallow layer and the channels in timm's description of the feature maps."""
        shallow = next(feature for feature in features if feature["reduction"] == 8)
        self._depth = 1 + list(self).index(shallow["module"].replace(".", "_"))
        self.shallow_channels, self.deep_channels = shallow["num_chs"], features[-1]["num_chs"]

    @torch.no_grad()
    def _try(self) -> None:
        """Run images through, to check the described shapes and the order that `fold_batch_norms` relies on."""
        given: dict[nn.Module, Tensor] = {}
        taken: dict[nn.Module, Tensor] = {}
        pairs = [(conv, norm) for (_, conv), (_, norm) in foldable_batch_norms(self)]
        hooks = [conv.register_forward_hook(lambda conv, _, output: given.update({conv: output})) for conv, _ in pairs]
        hooks += [norm.register_forward_pre_hook(lambda norm, x: taken.update({norm: x[0]})) for _, norm in pairs]
        self.eval()
        for height, width in ((8, 8), (9, 13)):  # some networks need multiples of 64
            x = self.shallow(torch.zeros(1, 3, 8 * height, 8 * width))
            shapes = [tuple(x.shape), tuple(self.deep(x).shape)]
            channels = self.shallow_channels, self.deep_channels
            assert shapes == [(1, count, height, width) for count in channels], shapes
        assert all(given[conv] is taken[norm] for conv, norm in pairs), "batch norms of other layers"
        self.train()
        for hook in hooks:
            hook.remove()


class SamePaddingConv2d(nn.Conv2d):
    """TensorFlow's convolution with "SAME" padding, which depends on the input size: `timm.layers.Conv2dSame`.

    timm's own formula, with a maximum and true divisions, makes the export of symbolic sizes take minutes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H / stride, W / stride), rounded up."""
        pads: list[int] = []
        for side, excess, stride in zip(x.shape[-2:], _excess(self), self.stride, strict=True):
            total = excess + -side % stride
            pads = [total // 2, total - total // 2, *pads]  # the last dimension comes first
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _excess(conv: nn.Conv2d) -> list[int]:
    """Return by how much the (dilated) kernel is larger than the stride, on both axes."""
    sides = zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)
    return [(size - 1) * dilation + 1 - stride for size, dilation, stride in sides]


def _extractor(network: str) -> tuple[dict[str, nn.Module], list[dict]]:
    """Return the layers of timm's feature extractor, in the order in which they run, and the features that it gives."""
    extractor = import_timm().create_model(network, features_only=True, output_stride=8)
    feature_list = import_timm().models.FeatureListNet
    if not isinstance(extractor, feature_list):
        extractor = feature_list(extractor, out_indices=extractor.feature_info.out_indices, flatten_sequential=True)
    for conv in extractor.modules():
        if isinstance(conv, import_timm().layers.Conv2dSame) and min(_excess(conv)) >= 0:
            conv.__class__ = SamePaddingConv2d  # the same arguments and parameters
    return dict(extractor.items()), extractor.feature_info.get_dicts()


def import_timm() -> ModuleType:
    """Import timm.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ValueError("timm is not installed: pip install -r requirements-timm.txt") from None
    return timm
