"""Weights of Caffe networks, `.caffemodel` files, read without Caffe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.transforms import IMAGENET

MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)  # of RGB images, subtracted from the release's input
NORM = ("weight", "bias", "running_mean", "running_var")  # the blobs of the release's BN layers; eps 1e-5, as PyTorch's
EPS = 1e-5
# The part of caffe.proto that is needed (https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto). In old
# files, a blob has four separate dimensions instead of a shape.
SCHEMA = """
name: "caffe.proto"
message_type {
  name: "Net"
  field { name: "layer" number: 100 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Layer" }
}
message_type {
  name: "Layer"
  field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_BYTES }
  field { name: "blobs" number: 7 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Blob" }
}
message_type {
  name: "Blob"
  field { name: "num" number: 1 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "channels" number: 2 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "height" number: 3 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "width" number: 4 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "data" number: 5 label: LABEL_REPEATED type: TYPE_FLOAT }
  field { name: "double_data" number: 8 label: LABEL_REPEATED type: TYPE_DOUBLE }
  field { name: "shape" number: 7 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Shape" }
}
message_type {
  name: "Shape"
  field { name: "dim" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
"""


def read_layers(path: Path) -> dict[str, list[Tensor]]:
    """Return the blobs of each layer that has any, by its name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; correct the path (test.ckpt_path, model.weights)")
    from google.protobuf.message import DecodeError  # few need it

    try:
        net = _net_class().FromString(path.read_bytes())
        layers = {layer.name.decode(): [_tensor(blob) for blob in layer.blobs] for layer in net.layer}
    except (DecodeError, ValueError) as error:
        raise ValueError(f"{path} is truncated, damaged or not a .caffemodel: {error}") from None
    return {name: blobs for name, blobs in layers.items() if blobs}


def as_state(layers: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Name the blobs of the paper's network `{layer}.{kind}`, and bring them into the form that `models.ICNet` has.

    The release's first convolutions take BGR images from 0 to 255, times a learned factor for each channel (the layer
    `data_sub1`). Channel order, range and factors are folded into their weights, which then take RGB images normalised
    with `MEAN` and ImageNet's standard deviation. A batch norm merged into its convolution becomes one that only adds
    the bias.

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


def _net_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Net"))


def _tensor(blob: Any) -> Tensor:
    values = np.array(blob.data or blob.double_data, np.float32)
    sides = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    if min(sides, default=0) < 0:
        raise ValueError(f"a blob has the shape {sides}")
    return torch.from_numpy(values.reshape(sides))
