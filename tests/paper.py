"""Weights and figures of the paper's own network, which the tests hold the variant "paper" against.

`data/paper_layers.json` lists the layers of the release, hszhao/ICNet's `icnet_cityscapes.prototxt`. `make_weights`
fills them with numbers that depend on the seed alone, and `data/paper.npz` holds a sample of what two other programs
that read this file computed from those and from `image`, both of seed 0.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"


def numbers() -> dict[str, np.ndarray]:
    """Return what the release's network gives; its maps are sampled as in `test_paper.py`."""
    with np.load(DATA / "paper.npz") as file:
        return dict(file)


def image(seed: int = 0) -> np.ndarray:
    """Return an RGB image (3, 1025, 2049) uint8 of noisy squares."""
    rng = np.random.default_rng(1000 + seed)
    squares = rng.integers(0, 256, (3, 65, 129)).repeat(16, 1).repeat(16, 2)[:, :1025, :2049]
    noise = rng.integers(-20, 21, (3, 1025, 2049))
    return np.clip(squares + noise, 0, 255)[::-1].astype(np.uint8)


def make_weights(seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Return weight and bias of each layer that has them, by its name."""
    rng = np.random.default_rng(seed)
    channels, blobs = {"data": 3}, {}
    for layer in json.loads((DATA / "paper_layers.json").read_text()):
        inputs = outputs = channels[layer["bottom"][0]]
        if layer["type"] == "Convolution":
            outputs, side = layer["num_output"], layer["kernel_size"]
            gain = 0.5 if layer["name"].endswith("increase") else 2.0
            deviation = np.float32(np.sqrt(gain / (inputs * side * side)))
            weight = rng.standard_normal((outputs, inputs, side, side)).astype(np.float32) * deviation
            blobs[layer["name"]] = [weight, rng.standard_normal(outputs).astype(np.float32) * np.float32(0.1)]
        elif layer["type"] == "Scale":
            blobs[layer["name"]] = [np.full(inputs, 1 / 64, np.float32)]
        channels[layer["top"]] = outputs
    return blobs


def encode(layers: Mapping[str, Sequence[np.ndarray]], *, legacy: bool = False) -> bytes:
    """Return a .caffemodel; `legacy`: with blobs of four sides, each a field, instead of a list of sides."""
    parts = [_field(1, b"icnet")]
    for name, blobs in layers.items():
        body = _field(1, name.encode()) + _field(2, b"Convolution") + _field(10, b"\x08\x01")
        for blob in blobs:
            sides = (*(1,) * (4 - blob.ndim), *blob.shape)
            old = b"".join(_varint(number << 3) + _varint(side) for number, side in enumerate(sides, start=1))
            shape = old if legacy else _field(7, _field(1, b"".join(map(_varint, blob.shape))))
            body += _field(7, shape + _field(5, blob.astype("<f4").tobytes()))
        parts.append(_field(100, body))
    return b"".join(parts)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Write a number of seven bits a byte, lowest first."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)
