"""Which channels are pruned, and that nothing else changes."""

import pytest
import torch
from torch import nn

from models import ICNet
from models.layers import Classifier
from models.prune import observe_sources, prune, unite
from tests.networks import with_statistics
from tests.published import training_outputs

NETWORKS = [
    ("resnet18", {}),
    ("resnet50", {"ppm": "concat", "sub4_input": "sub2", "dropout": 0.9}),
    ("resnet50_v1s", {}),
    ("resnet18_v1c", {"variant": "psp", "dropout": 0.1}),
    ("resnet50_v1s", {"variant": "paper", "width": 1.0}),
    ("resnet18", {"variant": "paper", "width": 1.0, "ppm": "none"}),
    ("resnet34_v1c", {"variant": "psp", "ppm": "none", "sub4_input": "image"}),
]


@pytest.mark.parametrize(("backbone", "options"), NETWORKS)
@torch.no_grad()
def test_removing_kernels_that_are_zero_changes_no_output(backbone, options):
    """Layers with equally many channels lose the same ones, so it need not be known which are added up."""
    wide = with_statistics(ICNet(5, backbone, **options))
    narrow = ICNet(5, backbone, **options | {"width": 0.3})
    leaves = [(name, module) for name, module in wide.named_modules() if not list(module.children())]
    for name, module in leaves:
        kept = narrow.get_submodule(name).weight.shape[0] if hasattr(module, "weight") else 0
        if kept and not isinstance(module, Classifier):
            count = len(module.weight)
            dropped = torch.randperm(count, generator=torch.Generator().manual_seed(count))[kept:]
            module.weight[dropped] = 0
            if module.bias is not None:
                module.bias[dropped] = 0
    narrow.load_state_dict(prune(wide, narrow))
    image = torch.randn(2, 3, 65, 97)
    for module in (*wide.modules(), *narrow.modules()):
        if isinstance(module, Classifier):
            module.dropout = 0.0
    before, after = training_outputs(wide, image), training_outputs(narrow, image)
    assert list(after) == ["out", "aux_8", "aux_16"]
    for name, logits in before.items():
        assert (after[name] - logits).abs().max() < 1e-4 * logits.abs().max(), name


class Residual(nn.Module):
    """Two convolutions whose outputs are added up, a concatenation with a third, and an output of two channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.other = (nn.Conv2d(3, channels, 1) for _ in range(2))
        self.second = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.out = nn.Conv2d(2 * channels, 2, 1)

    def forward(self, image):
        first = self.first(image)
        return self.out(torch.cat([self.other(image), first + self.norm(self.second(first)).relu()], 1))


@torch.no_grad()
def test_the_largest_sums_of_absolute_weights_are_kept_in_step_by_hand():
    wide, narrow = Residual(4), Residual(2)
    for module, sums in ((wide.first, (1, 2, 3, 4)), (wide.second, (8, 0, -2, 0)), (wide.other, (1, -9, 0, 5))):
        module.weight.copy_((torch.tensor(sums) / module.weight.shape[1])[:, None, None, None].expand_as(module.weight))
    wide.norm.running_mean.copy_(torch.arange(4.0))
    assert observe_sources(wide) == {
        "second": {0: {"first"}},
        "norm": {0: {"second"}},
        "out": {0: {"other"}, 4: {"first", "second"}},
    }
    state = prune(wide, narrow)  # the sums of first and second are 9, 2, 5 and 4: channels 0 and 2; of other: 1 and 3
    narrow.load_state_dict(state)
    assert torch.equal(state["first.bias"], wide.first.bias[[0, 2]])
    assert torch.equal(state["second.weight"], wide.second.weight[[0, 2]][:, [0, 2]])
    assert torch.equal(state["other.weight"], wide.other.weight[[1, 3]])
    assert state["norm.running_mean"].tolist() == [0, 2] and state["norm.num_batches_tracked"] == 0
    assert torch.equal(state["out.weight"], wide.out.weight[:, [1, 3, 4, 6]])
    assert torch.equal(state["out.bias"], wide.out.bias)


def test_the_network_that_is_observed_stays_as_it_is():
    network = with_statistics(ICNet(3, "resnet18"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    observe_sources(network)
    assert not network.training and not network.backbone.bn1._forward_pre_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_sets_with_common_elements_are_united():
    assert unite([{"a"}, {"b"}, {"c", "d"}, {"a", "d"}, {"e"}]) == [{"b"}, {"a", "c", "d"}, {"e"}]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50_v1s", "resnet18_v1c"])
@pytest.mark.parametrize("variant", ["published", "psp"])
def test_half_the_width_has_a_quarter_of_the_weights(backbone, variant):
    with torch.device("meta"):
        wide, half = (ICNet(19, backbone, variant=variant, width=width) for width in (None, 0.5))
    assert wide.structure["width"] == 1 and half.structure["width"] == 0.5
    shapes = dict(half.named_parameters())
    for name, module in wide.named_modules():
        if isinstance(module, nn.Conv2d):
            out_channels, in_channels = shapes[f"{name}.weight"].shape[:2]
            assert out_channels == (19 if isinstance(module, Classifier) else module.out_channels / 2), name
            assert in_channels == (3 if module.in_channels == 3 else module.in_channels / 2), name


@pytest.mark.parametrize("width", [0, -0.5, 1.5])
def test_width_out_of_range_is_an_error(width):
    with pytest.raises(ValueError, match=f"width must be above 0 and at most 1, got {width}"):
        ICNet(3, "resnet18", width=width)
