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

from dataset.transforms import IMAGENET

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
    layers = dict(layers)
    factor, *rest = layers.pop("data_sub1", [torch.ones(3)])
    if rest or factor.numel() != 3:
        raise ValueError("the layer data_sub1 has the wrong number of values")
    for name, (weight, *others) in layers.items():
        kinds = NORM if name.endswith("/bn") else NORM[:2]
        if len(others) >= len(kinds):
            raise ValueError(f"the layer {name} has the wrong number of values")
        if kinds is NORM or weight.ndim < 4:
            weight = weight.reshape(-1)
        elif weight.shape[1] == 3:
            weight = (weight * factor.view(3, 1, 1)).flip(1) * 255 * torch.tensor(IMAGENET.std).view(3, 1, 1)
        state |= {f"{name}.{kind}": blob.reshape(-1) for kind, blob in zip(kinds[1:], others, strict=False)}
        state[f"{name}.weight"] = weight
        if kinds is not NORM and others and name != "conv6_cls":
            bias = state.pop(f"{name}.bias")
            ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
            state |= {f"{name}/bn.{kind}": x for kind, x in zip(NORM, (ones, bias, zeros, ones - EPS), strict=True)}
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
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = {1: 8, 5: 4}[kind]
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        end = position + size
        if end > len(message):
            raise ValueError(f"it ends {end - len(message)} bytes too early")
        yield number, message[position:end]
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
