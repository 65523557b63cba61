"""Benchmark jobs: the stages of data loading and prediction, and the training step."""

import itertools
from functools import partial

import numpy as np
import torch
from PIL import Image

from dataset.labels import cityscapes_classes, cityscapes_train_ids
from dataset.pairs import Sample
from dataset.segmentation import SegmentationDataset
from dataset.transforms import Normalize
from demo.streets import render
from tools.benchmarking.contenders import Workload
from tools.benchmarking.timing import Job
from utils import runtime
from utils.config import AugmentConfig, ModelConfig, OptimizerConfig
from utils.data import build_transform
from utils.engine import train_one_epoch
from utils.inference.label_map import label_map
from utils.inference.segmenter import build_segmenter
from utils.io.drawing import colorize, overlay
from utils.io.files import save_image
from utils.io.sources import read_image
from utils.loss import CascadeLoss
from utils.optim import build_optimizer, build_scheduler


def prediction_stages(workload: Workload) -> dict[str, Job]:
    """Return a job per stage of data loading and prediction, on PNG files of the workload's size."""
    height, width = workload.size
    street, ids, _ = render(np.random.default_rng(0), height=height, width=width)
    image_file, mask_file = workload.folder / "image.png", workload.folder / "labels.png"
    Image.fromarray(street).save(image_file)
    Image.fromarray(ids).save(mask_file)
    classes = cityscapes_classes()
    transform = build_transform(ModelConfig(base_size=height, crop_size=min(960, height)), AugmentConfig())
    data = SegmentationDataset([Sample(image_file, mask_file)], classes, cityscapes_train_ids(), transform=transform)
    epochs = itertools.count()  # so that each repeat is augmented differently
    segmenter = build_segmenter(workload.checkpoint(), workload.device, precision=workload.precision)
    image = torch.from_numpy(street).permute(2, 0, 1)[None].to(workload.device)
    scores = segmenter.scores(image)
    labels = label_map(scores, workload.size, align_corners=segmenter.align_corners)[0].cpu().numpy()
    return {
        "decode image and labels": lambda: (read_image(image_file), Image.open(mask_file).load()),
        "training sample: decode, scale, crop, mirror, blur": lambda: data[next(epochs), 0, 0],
        "network": lambda: segmenter.scores(image),
        "label map": lambda: label_map(scores, workload.size, align_corners=segmenter.align_corners),
        "overlay": lambda: overlay(street, labels, classes),
        "encode as PNG": lambda: save_image(workload.folder / "out.png", colorize(labels, classes)),
    }


def training_step(workload: Workload, *, crop: int) -> Job:
    """Return a training step of `train.py`, on a batch in memory."""
    checkpoint, image = workload.checkpoint(), workload.image((crop, crop))
    target = torch.randint(0, len(checkpoint.classes), (workload.batch, crop, crop), dtype=torch.uint8)
    network = checkpoint.build()
    network.to(workload.device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, OptimizerConfig())
    step = partial(
        train_one_epoch,
        network,
        [{"image": image, "target": target}],
        criterion=CascadeLoss(),
        normalize=Normalize(),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, OptimizerConfig(), iterations=10**6),
        device=workload.device,
        scaler=runtime.gradient_scaler(workload.device, workload.precision),
        precision=workload.precision,
    )
    return runtime.fastest_convolutions()(step)
