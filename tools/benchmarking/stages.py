"""Where the time of an image goes, from the file to the file."""

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from dataset.labels import cityscapes_classes, cityscapes_train_ids
from dataset.segmentation import Sample, SegmentationDataset
from demo.streets import render
from tools.benchmarking.contenders import Setting
from tools.benchmarking.timing import time_in_turns
from utils.config import AugmentConfig, ModelConfig
from utils.data import build_transform
from utils.inference.label_map import label_map
from utils.inference.segmenter import build_segmenter
from utils.io.drawing import colorize, overlay, save_image
from utils.io.sources import read_image


def time_stages(setting: Setting, *, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each stage of training data, and of a prediction, for PNG files of the setting's size."""
    height, width = setting.size
    street, ids, _ = render(np.random.default_rng(0), height=height, width=width)
    segmenter = build_segmenter(setting.checkpoint(), setting.device, precision=setting.precision)
    image = torch.from_numpy(street).permute(2, 0, 1)[None].to(setting.device)
    scores = segmenter.scores(image)
    labels = label_map(scores, setting.size)[0].cpu().numpy()
    classes = cityscapes_classes()
    with TemporaryDirectory() as folder:
        image_file, mask_file = Path(folder, "image.png"), Path(folder, "labels.png")
        Image.fromarray(street).save(image_file)
        Image.fromarray(ids).save(mask_file)
        sizes = ModelConfig(base_size=height, crop_size=min(960, height))
        transform = build_transform(sizes, AugmentConfig())
        data = SegmentationDataset(
            [Sample(image_file, mask_file)], classes, cityscapes_train_ids(), transform=transform
        )
        epochs = itertools.count()
        jobs = {
            "decode image and labels": lambda: (read_image(image_file), Image.open(mask_file).load()),
            "training sample: decode, scale, crop, mirror, blur": lambda: data[next(epochs), 0],
            "network": lambda: segmenter.scores(image),
            "label map": lambda: label_map(scores, setting.size),
            "overlay": lambda: overlay(street, labels, classes),
            "encode as PNG": lambda: save_image(Path(folder, "out.png"), colorize(labels, classes)),
        }
        return time_in_turns(jobs, repeats=repeats, device=setting.device)
