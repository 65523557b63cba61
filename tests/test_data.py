import atexit
import multiprocessing
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dataset.labels import class_table, lookup_table
from dataset.pairs import Sample
from dataset.segmentation import EpochSampler, SegmentationDataset, repeat_factors
from utils import distributed
from utils.config import AugmentConfig, ModelConfig, load_config
from utils.data import EvalLoader, build_dataset, build_transform, check_classes, eval_loader, train_loader
from utils.weights.checkpoint import Checkpoint

CLASSES = class_table(["road", "sky", "car"], ())
TRAIN_IDS = lookup_table({0: 0, 1: 1, 2: 2, 255: 255})


def augmented(folder_data, *, seed: int = 0) -> SegmentationDataset:
    config = load_config(folder_data.values)
    transform = build_transform(config.model, config.augment)
    return build_dataset(config.dataset, "train", cityscapes_root="", transform=transform, seed=seed)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in a)


# --- datasets


def test_sample_is_a_function_of_seed_epoch_and_index(folder_data):
    data = augmented(folder_data)
    before = data[(3, 1, 0)]
    for key in ((0, 0), (3, 0), (2, 1)):  # in any order
        data[key]
    np.random.seed(7)
    torch.manual_seed(7)
    assert same(data[(3, 1, 0)], before)
    assert same(augmented(folder_data)[(3, 1, 0)], before)
    assert not same(data[(4, 1, 0)], before)
    assert not same(augmented(folder_data, seed=1)[(3, 1, 0)], before)
    assert same(data[1], data[(0, 1, 0)])
    assert not same(data[(3, 1, 1)], before)  # drawn repeatedly in an epoch


def test_two_samples_of_one_image_get_different_crops(folder_data):
    for folder in ("train", "train_mask"):
        (folder_data.root / folder / "1.png").write_bytes((folder_data.root / folder / "0.png").read_bytes())
    data = augmented(folder_data)
    assert any(not torch.equal(data[(epoch, 0, 0)]["image"], data[(epoch, 1, 0)]["image"]) for epoch in (1, 2, 3))


def test_cache_holds_the_decoded_sample_and_not_the_augmented_one(folder_data):
    plain = augmented(folder_data)
    folder_data.values["dataset"]["cache"] = True
    cached = augmented(folder_data)
    for epoch in (0, 1, 1):
        assert same(cached[(epoch, 0, 0)], plain[(epoch, 0, 0)])
    (folder_data.root / "train" / "0.png").unlink()
    assert "target" in cached[(2, 0, 0)]


def test_every_augmentation_setting_reaches_its_transform():
    model = ModelConfig(base_size=50, crop_size=32)
    settings = {
        "scale_min": 0.5,
        "scale_max": 3,
        "mirror": 0.1,
        "blur": 0.2,
        "max_class_share": 0.7,
        "class_uniform": 0.3,
        "photometric": 0.4,
        "photometric_strength": 2,
    }
    crop, mirror, blur, distortion = build_transform(model, AugmentConfig(**settings)).transforms
    assert (crop.short_sides, crop.crop_size, crop.max_class_share, crop.class_uniform) == ((25, 150), 32, 0.7, 0.3)
    assert (mirror.p, blur.p, distortion.p, distortion.hue) == (0.1, 0.2, 0.4, 72)


def test_generated_streets_have_no_test_split(tmp_path):
    config = load_config({"dataset": {"name": "streets", "root": str(tmp_path / "streets")}}).dataset
    with pytest.raises(ValueError, match="have no split 'test'"):
        build_dataset(config, "test", cityscapes_root="")
    assert not (tmp_path / "streets").exists()


def test_the_first_process_generates_streets_before_the_others(tmp_path, monkeypatch):
    streets = {"train": 1, "val": 1, "height": 64, "width": 128}
    root = str(tmp_path / "streets")
    config = load_config({"dataset": {"name": "streets", "root": root, "streets": streets}}).dataset
    existed = []

    @contextmanager
    def main_process_first():
        existed.append((tmp_path / "streets").exists())
        yield
        existed.append((tmp_path / "streets").exists())

    monkeypatch.setattr(distributed, "main_process_first", main_process_first)
    build_dataset(config, "train", cityscapes_root="")
    assert existed == [False, True]


# --- training loader


def keys(sampler: EpochSampler, epoch: int, skip: int = 0) -> list[tuple[int, ...]]:
    sampler.epoch, sampler.skip = epoch, skip
    return list(sampler)


def test_order_is_a_permutation_by_seed_and_epoch():
    sampler = EpochSampler(20, batch_size=4, seed=5)
    first, second = keys(sampler, 1), keys(sampler, 2)
    assert len(sampler) == 20
    assert sorted(first) == [(1, index, 0) for index in range(20)]
    assert sorted(second) == [(2, index, 0) for index in range(20)]
    assert [i for _, i, _ in first] != [i for _, i, _ in second]
    assert keys(sampler, 1) == first
    assert keys(EpochSampler(20, batch_size=4, seed=6), 1) != first


def test_incomplete_batch_is_dropped_and_batches_can_be_skipped():
    sampler = EpochSampler(11, batch_size=3, seed=0)
    assert len(sampler) == len(keys(sampler, 1)) == 9
    assert keys(sampler, 1, skip=2) == keys(sampler, 1)[6:]
    assert keys(sampler, 1) == [tuple(key) for key in sampler.batches(1).reshape(-1, 3).tolist()]


def test_repeat_factors_by_hand():
    counts = np.array([[5, 0, 1], [9, 0, 0], [2, 0, 0], [1, 7, 0]])  # classes 1 and 2: 1 image of 4
    assert repeat_factors(counts, 1.0).tolist() == [2, 1, 1, 2]
    assert repeat_factors(counts, 0.5).tolist() == pytest.approx([2**0.5, 1, 1, 2**0.5])
    assert repeat_factors(counts, 0.25).tolist() == 4 * [1]
    assert repeat_factors(np.zeros((2, 3)), 1.0).tolist() == [1, 1]  # no labels at all


def test_samples_are_drawn_in_proportion_to_their_factors():
    factors = np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    sampler = EpochSampler(6, batch_size=2, seed=0, factors=factors)
    epochs = [keys(sampler, epoch) for epoch in range(400)]
    assert all(len(epoch) == len(set(epoch)) == 6 for epoch in epochs)  # a repeated sample is augmented differently
    assert all({r for _, i, r in epoch if i == 0} in ({0, 1}, {0, 1, 2}) for epoch in epochs)  # 6 · 3/8 = 2.25 times
    drawn = np.bincount([index for epoch in epochs for _, index, _ in epoch], minlength=6) / 400
    assert drawn.tolist() == pytest.approx([2.25] + 5 * [0.75], abs=0.07)
    assert keys(sampler, 3) == epochs[3]
    even = EpochSampler(6, batch_size=2, seed=0, factors=np.ones(6))
    assert sorted(keys(even, 1)) == [(1, index, 0) for index in range(6)]


def test_processes_share_every_batch():
    alone = EpochSampler(11, batch_size=4, seed=0)
    shares = [EpochSampler(11, batch_size=4, seed=0, rank=rank, processes=2) for rank in (0, 1)]
    assert [len(share) for share in shares] == [4, 4]
    whole, (a, b) = keys(alone, 3), [keys(share, 3) for share in shares]
    assert whole == a[:2] + b[:2] + a[2:] + b[2:] and len(a) == len(b) == 4
    assert [keys(share, 3, skip=1) for share in shares] == [a[2:], b[2:]]


def test_batches_do_not_depend_on_the_number_of_workers(folder_data):
    def epochs(workers: int) -> list[dict]:
        loader = train_loader(augmented(folder_data), batch_size=2, workers=workers, seed=0)
        seen = []
        for epoch in (0, 1):  # with persistent workers
            loader.sampler.epoch = epoch
            seen += list(loader)
        return seen

    alone = epochs(0)
    assert len(alone) == 4
    assert not torch.equal(alone[0]["image"], alone[2]["image"])
    for workers in (1, 2):
        assert all(same(a, b) for a, b in zip(alone, epochs(workers), strict=True)), f"{workers} workers"


def test_training_batches_are_complete(folder_data):
    loader = train_loader(augmented(folder_data), batch_size=3, workers=0, seed=0)
    assert isinstance(loader, DataLoader)
    (batch,) = loader
    assert batch["image"].shape == (3, 3, 64, 64) and batch["target"].shape == (3, 64, 64)
    with pytest.raises(ValueError, match=r"4 images, fewer than train\.train_batch_size \(5\)"):
        train_loader(augmented(folder_data), batch_size=5, workers=0, seed=0)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_ignore_signals(folder_data, start):
    """The main process finishes its iteration and saves, for which it needs its workers."""
    batches = train_loader(augmented(folder_data), batch_size=2, workers=1, seed=0)
    batches.multiprocessing_context = start
    others = set(multiprocessing.active_children())  # of earlier tests
    iterator = iter(batches)
    next(iterator)
    (worker,) = set(multiprocessing.active_children()) - others
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker.pid, number)
    time.sleep(0.3)
    assert next(iterator)["image"].shape[0] == 2
    assert worker.is_alive()


class BlockedSignals:
    """A dataset of the signals that the process blocks which reads it."""

    def __getitem__(self, index):
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_start_with_signals_blocked():
    """A signal between their start and `_prepare_worker`, which takes seconds with spawn, would end them."""
    before = BlockedSignals()[0]
    (batch,) = EvalLoader(BlockedSignals(), batch_sampler=[[0]], collate_fn=list, num_workers=1)
    assert batch[0] >= {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    assert BlockedSignals()[0] == before


def test_workers_leave_opencvs_threads_to_the_others(folder_data, monkeypatch):
    """There may be many workers, and OpenCV would start a thread per core in each."""
    before = cv2.getNumThreads()
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    train_loader(augmented(folder_data), batch_size=2, workers=1, seed=0).worker_init_fn(0)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(before)
    assert threads == 1


def test_remaining_workers_are_killed_at_exit(folder_data, monkeypatch):
    """Multiprocessing would terminate them by SIGTERM, which they ignore, and wait for them forever."""
    at_exit, handler = [], signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(atexit, "register", at_exit.append)
    iterator = iter(train_loader(augmented(folder_data), batch_size=2, workers=1, seed=0))
    next(iterator)
    workers = multiprocessing.active_children()
    for function in at_exit:
        function()
    for process in workers:
        process.join(timeout=10)
        assert process.exitcode == -signal.SIGKILL
    del iterator
    signal.signal(signal.SIGCHLD, handler)


# --- evaluation loader


@pytest.mark.parametrize(("length", "batch_size", "processes"), [(7, 2, 2), (5, 1, 2), (5, 2, 4), (1, 1, 3), (6, 3, 2)])
def test_processes_evaluate_every_image_once(monkeypatch, length, batch_size, processes):
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    seen = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        batches = list(eval_loader(list(range(length)), batch_size=batch_size, workers=0))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        seen += [index for batch in batches for index in batch]
    assert sorted(seen) == list(range(length))


def test_evaluation_batches_keep_the_order_and_may_mix_image_sizes(tmp_path):
    samples = []
    for index, size in enumerate([(40, 32), (64, 48), (40, 32)]):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
        Image.new("L", size).save(tmp_path / f"{index}_mask.png")
        samples.append(Sample(tmp_path / f"{index}.png", tmp_path / f"{index}_mask.png"))
    data = SegmentationDataset(samples, CLASSES, TRAIN_IDS)
    for workers in (0, 1):
        batches = list(eval_loader(data, batch_size=2, workers=workers))
        assert [[sample["index"] for sample in batch] for batch in batches] == [[0, 1], [2]]
        assert batches[0][1]["image"].shape == (3, 48, 64)


def test_workers_hand_over_evaluation_batches_in_shared_memory(folder_data):
    """A lack of it is then an error of the worker, rather than a batch that never arrives."""
    loader = eval_loader(augmented(folder_data), batch_size=2, workers=1)
    (sample, *_), *_ = list(loader)
    assert sample["image"].is_shared() and sample["target"].is_shared()
    assert loader.collate_fn is not list and not loader.collate_fn([{"image": torch.zeros(1)}])[0]["image"].is_shared()


def test_folder_data_without_the_name_is_not_taken_for_cityscapes(tmp_path):
    config = load_config({"dataset": {"root": str(tmp_path), "classes": ["a", "b"], "train": {"images": "*.png"}}})
    with pytest.raises(ValueError, match=r"dataset\.name is not set, .* set dataset\.name=folder"):
        build_dataset(config.dataset, "train", cityscapes_root="")


def test_root_of_other_data_is_refused_for_cityscapes():
    config = load_config({"dataset": {"root": "streets"}}).dataset
    with pytest.raises(ValueError, match=r"dataset\.root=streets is not used for .* train\.cityscapes_root"):
        build_dataset(config, "train", cityscapes_root="data")


def test_oversampling_draws_images_of_rare_classes_more_often(folder_data):
    for index in (1, 2, 3):
        Image.new("L", (64, 48), 0).save(folder_data.root / "train_mask" / f"{index}.png")
    load = partial(train_loader, augmented(folder_data), batch_size=2, workers=0, seed=0)
    assert load().sampler.probabilities is None
    assert load(oversample=1.0).sampler.probabilities == pytest.approx([0.4, 0.2, 0.2, 0.2])


def test_assumed_class_names_are_not_compared():
    assumed = replace(CLASSES, names=("class 0", "class 1", "class 2"))
    checkpoint = Checkpoint(state_dict={}, backbone="resnet18", classes=assumed, named=False)
    check_classes(SimpleNamespace(classes=CLASSES), checkpoint)
