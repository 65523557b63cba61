"""Weights of Caffe networks, `.caffemodel` files, read without Caffe.

Such a file is a NetParameter of caffe.proto in the wire format of Protocol Buffers
(https://protobuf.dev/programming-guides/encoding/). Its field 100 is a layer, with its name (1) and its blobs (7). A
blob has values (5, in double precision 8) and a shape (7, whose field 1 lists the sides; in old files fields 1 to 4).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.transforms import IMAGENET_STD

MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)  # of RGB images, subtracted from the release's input
NORM = ("weight", "bias", "running_mean", "running_var")  # the blobs of the release's BN layers; eps 1e-5, as PyTorch's
EPS = 1e-5


def read_layers(path: Path) -> dict[str, list[Tensor]]:
    """Return the blobs of each layer that has any, by its name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; correct the path (test.ckpt_path, model.weights)")
    layers: dict[str, list[Tensor]] = {}
    try:
        for number, layer in _fields(memoryview(path.read_bytes())):
            if number == 100:
                parts = list(_fields(layer))
                name = next(bytes(value).decode() for part, value in parts if part == 1)
                layers[name] = [_blob(value) for part, value in parts if part == 7]
    except (ValueError, TypeError, IndexError, StopIteration) as error:
        raise ValueError(f"{path} is truncated, damaged or no .caffemodel: {error or 'a layer has no name'}") from None
    return {name: blobs for name, blobs in layers.items() if blobs}


def as_state(layers: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Name the blobs of the paper's network `{layer}.{kind}`, and bring them into the form that `models.ICNet` has.

    The release's first convolutions take BGR images from 0 to 255, times a learned factor for each channel (the layer
    `data_sub1`); all that goes into their weights, which then take RGB images normalised with `MEAN` and the standard
    deviation of ImageNet. A batch norm merged into its convolution becomes one that only adds the bias.

    Raises:
        ValueError: blobs that no layer of the release has.
    """
    state: dict[str, Tensor] = {}
    factor = layers.get("data_sub1", [torch.ones(3)])[0].reshape(-1)
    for name, (weight, *others) in layers.items():
        kinds = NORM if name.endswith("/bn") else NORM[:2]
        if len(others) >= len(kinds) or (name == "data_sub1" and len(factor) != 3):
            raise ValueError(f"the layer {name} has the wrong number of values")
        if kinds is NORM or weight.ndim < 4:
            weight = weight.reshape(-1)
        elif weight.shape[1] == 3:
            weight = (weight * factor.view(3, 1, 1)).flip(1) * 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1)
        state |= {f"{name}.{kind}": blob.reshape(-1) for kind, blob in zip(kinds[1:], others, strict=False)}
        state[f"{name}.weight"] = weight
        if kinds is not NORM and others and name != "conv6_cls":
            bias = state.pop(f"{name}.bias")
            ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
            state |= {f"{name}/bn.{kind}": x for kind, x in zip(NORM, (ones, bias, zeros, ones - EPS), strict=True)}
    state.pop("data_sub1.weight", None)
    return state


def _blob(message: memoryview) -> Tensor:
    values, shape, sides = [], [], []
    for number, value in _fields(message):
        if number in (5, 8):
            values.append(np.frombuffer(value, "<f4" if number == 5 else "<f8").astype(np.float32))
        elif number == 7:
            parts = [part for field, part in _fields(value) if field == 1]
            shape = [side for part in parts for side in ([part] if isinstance(part, int) else _varints(part))]
        elif number <= 4:
            sides.append(value)
    return torch.from_numpy(np.concatenate(values).reshape(shape or sides))


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field: an int, or the bytes of anything else."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind, size = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
        if kind not in (0, 1, 2, 5):
            raise ValueError(f"a field of the unknown kind {kind}")
        value = 0
        if kind in (0, 2):
            value, position = _varint(message, position)
        if kind == 0:
            yield key >> 3, value
            continue
        end = position + (value if kind == 2 else size)
        if end > len(message):
            raise ValueError(f"it ends {end - len(message)} bytes too early")
        yield key >> 3, message[position:end]
        position = end


def _varints(message: memoryview) -> Iterator[int]:
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, lowest first; return it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends within a number")
        byte = message[position]
        value, position = value | (byte & 127) << shift, position + 1
        if byte < 128:
            return value, position
    raise ValueError("a number of more than 64 bits")
