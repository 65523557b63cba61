"""Weights and figures of the published network, and of mmsegmentation's, which the tests hold these against.

`data/published_layout.json` lists the tensors of `icnet_resnet50_197_0.710_best_model.pth` (name, shape, dtype).
`make_weights` fills them with numbers that depend on name and seed alone, and `data/published.npz` holds what the
published code computed from them (seed 0), its running metrics and its learning rates. `data/mmseg_layout.json` and
`data/mmseg.npz` are the same for mmsegmentation's ICNet, computed from the same image `x`.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(__file__).parent / "data"


def numbers(kind: str = "published") -> dict[str, np.ndarray]:
    """Return what the "published" or "mmseg" code gave; of its `full` logits, every second row and column."""
    with np.load(DATA / f"{kind}.npz") as file:
        return dict(file)


def make_weights(seed: int = 0, kind: str = "published") -> dict[str, Tensor]:
    """Return a state dict in the "published" or the "mmseg" layout."""
    layout = json.loads((DATA / f"{kind}_layout.json").read_text())
    return {name: _fill(name, tuple(shape), seed).to(getattr(torch, kind)) for name, (shape, kind) in layout.items()}


def training_outputs(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return what the network gives in training, its batch norms as in evaluation; it stays in that mode."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network(image)


def assert_close(ours: Tensor, theirs: np.ndarray) -> None:
    """Assert that logits differ by less than 1e-4 of the largest, and labels agree where the top two differ by more."""
    expected = torch.from_numpy(theirs)
    assert ours.shape == expected.shape
    tolerance = 1e-4 * expected.abs().max()
    assert (ours - expected).abs().max() < tolerance
    best = expected.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > tolerance
    assert torch.equal(ours.argmax(1)[clear], expected.argmax(1)[clear])


def _fill(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    rng = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        value = np.zeros(shape)
    elif leaf == "running_var":
        value = 1.0 + 0.2 * rng.rand(*shape)
    elif leaf == "running_mean" or leaf == "bias":
        value = 0.1 * rng.randn(*shape)
    elif len(shape) == 4:
        value = rng.randn(*shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    elif len(shape) == 2:
        value = 0.01 * rng.randn(*shape)
    else:  # the scale of a batch norm
        value = 0.8 + 0.2 * rng.rand(*shape)
    return torch.from_numpy(np.asarray(value))
