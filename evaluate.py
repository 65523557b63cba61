"""Measure a checkpoint on a labelled split: python evaluate.py test.ckpt_path=ckpt/last.pth"""

from pathlib import Path

import torch
from torch import Tensor

from utils import program, runtime
from utils.checkpoint import find_checkpoint, read_checkpoint
from utils.cli import DEFAULT_CONFIG, parse_arguments
from utils.config import data_of, load_config, run_name
from utils.data import build_dataset, check_classes, eval_loader
from utils.engine import evaluate
from utils.files import check_folder, write_json
from utils.logger import open_log, progress
from utils.media import output_names
from utils.metrics import ConfusionMatrix, format_table
from utils.segmenter import Segmenter
from utils.visualize import colorize, save_image


def main() -> None:
    """Predict every image of the split, compare with the labels, write figures and coloured predictions."""
    args = parse_arguments(__doc__)
    config = load_config(args.config or DEFAULT_CONFIG, args.overrides)
    path = find_checkpoint(config.test.ckpt_path, config.train.ckpt_dir, name=run_name(config.model))
    checkpoint = read_checkpoint(path)
    if args.config is None and checkpoint.config:
        config = load_config(data_of(checkpoint.config), args.overrides, name=str(path))
    device = runtime.select_device(config.train.specific_gpu_num)
    workers = runtime.loader_workers(config.train.num_workers, device)

    data = build_dataset(config.dataset, config.test.split, cityscapes_root=config.train.cityscapes_root)
    check_classes(data, checkpoint)
    batches = eval_loader(data, batch_size=config.train.valid_batch_size, workers=workers)
    network = checkpoint.build().to(device, memory_format=torch.channels_last)
    folder = Path(config.train.ckpt_dir) / "evaluate_output"
    check_folder(folder, "train.ckpt_dir")
    (folder / "metrics.json").unlink(missing_ok=True)  # of an earlier run; this one's comes last
    log = open_log()
    log.info(f"checkpoint: {checkpoint.describe()}")
    log.info(f"data: {len(data)} images of the split {config.test.split!r}; device: {runtime.describe(device)}")
    names = output_names([sample.image for sample in data.samples])

    def save(index: int, pred: Tensor) -> None:
        save_image(folder / f"{names[index]}_color.png", colorize(pred.cpu().numpy(), data.classes))

    confusion = ConfusionMatrix(len(data.classes), device)
    segment = Segmenter(network, device=device, mean=checkpoint.mean, std=checkpoint.std)
    evaluate(segment, progress(batches, "evaluation"), confusion=confusion, on_image=save)
    summary = confusion.summary(data.classes.names)
    write_json(folder / "metrics.json", summary | {"checkpoint": str(path), "split": config.test.split})
    log.info(format_table(summary))
    log.info(f"figures: {folder / 'metrics.json'}, coloured predictions beside it")


if __name__ == "__main__":
    program.run(main)
