"""Training in several processes, connected by Gloo, equals training in one; what processes do together."""

import importlib
import json
import os
import sys
import time
from datetime import timedelta

import pytest
import torch
from PIL import Image

from utils import distributed


def start_processes(script, *arguments, store, count=2):
    """Run train.py or evaluate.py in forked processes, which meet at a file instead of a port."""
    torch.multiprocessing.start_processes(run, (script, arguments, count, store), nprocs=count, start_method="fork")


def run(rank, script, arguments, count, store):
    sys.argv = [f"{script}.py", *map(str, arguments)]
    if count > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        init = torch.distributed.init_process_group
        torch.distributed.init_process_group = lambda backend: init(
            backend, init_method=f"file://{store}", rank=rank, world_size=count
        )
    importlib.import_module(script).main()


def test_two_processes_train_and_validate_as_one(folder_data, tmp_path):
    folder_data.values["train"]["train_batch_size"] = 4
    folder_data.write()
    (folder_data.root / "val" / "2.png").write_bytes((folder_data.root / "val" / "0.png").read_bytes())
    for number in range(3):  # each image of another class, so that a lost one changes the mIoU
        Image.new("L", (64, 48), number).save(folder_data.root / "val_mask" / f"{number}.png")
    # Statistics of unsynchronised batch norms would depend on the number of processes
    arguments = ["--config", folder_data.config, "train.epochs=2", "train.freeze_bn=true"]
    arguments += ["optimizer.init_lr=0.001"]
    results = []
    for name, count in (("one", 1), ("two", 2)):
        given = [*arguments, f"train.ckpt_dir={tmp_path / name}"]
        start_processes("train", *given, store=tmp_path / "store", count=count)
        results.append([json.loads(line) for line in (tmp_path / name / "train.jsonl").read_text().splitlines()])
    for one, two in zip(*results, strict=True):
        for key in ("loss", "loss_out", "loss_aux_8", "loss_aux_16"):
            assert two[key] == pytest.approx(one[key], rel=1e-4), key
        assert two["miou"] == pytest.approx(one["miou"], abs=2e-3)  # single pixels may differ
    assert (tmp_path / "two" / "train.log").read_text().count("epoch   1/2") == 1


def test_a_batch_size_that_the_processes_cannot_share_is_refused(folder_data, run_script, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "gather", lambda value: [value] * 2)
    result = run_script("train", "--config", folder_data.config, "train.train_batch_size=3")
    assert result.code == 2
    assert "train.train_batch_size (3) must be a multiple of the 2 processes" in result.err


def test_folders_that_differ_between_machines_are_refused(folder_data, run_script, monkeypatch):
    """Only the first process writes the state to resume from."""
    monkeypatch.setattr(distributed, "gather", lambda value: [40, value])
    result = run_script("train", "--config", folder_data.config, "train.resume=auto")
    assert result.code == 2 and "differs between machines; use a shared folder" in result.err


def share(rank, folder):
    """One of two processes: meet at a file, download in order, and share buffers and gradients."""
    os.environ |= {"LOCAL_RANK": str(rank)}
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    with distributed.main_process_first(), (folder / "order").open("a") as file:
        time.sleep(0.3 * (rank == 0))
        file.write(f"{rank} ")
    norm = torch.nn.BatchNorm2d(2)
    norm.running_mean.fill_(rank + 1)
    distributed.broadcast_buffers(norm)
    assert norm.running_mean.tolist() == [1, 1]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1, bias=False))
    for now in (False, True):  # two micro-batches, whose gradients are 1 here and 2 there
        with distributed.sharing_gradients(model, now=now):
            model(torch.full((1, 1), rank + 1.0)).sum().backward()
    assert model.module.weight.grad.item() == 3
    torch.distributed.destroy_process_group()


def test_the_main_process_comes_first_and_buffers_and_gradients_are_shared(tmp_path):
    torch.multiprocessing.start_processes(share, (tmp_path,), nprocs=2, start_method="fork")
    assert (tmp_path / "order").read_text() == "0 1 "


def test_batch_norms_are_synchronised_on_gpus(monkeypatch):
    wrapped = []

    def wrap(network, **options):
        wrapped.append((network, options))

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "DistributedDataParallel", wrap)
    distributed.parallel(torch.nn.Sequential(torch.nn.BatchNorm2d(2)), torch.device("cuda", 1))
    ((network, options),) = wrapped
    assert isinstance(network[0], torch.nn.SyncBatchNorm)
    assert options == {"device_ids": [1], "broadcast_buffers": False}


def test_the_process_group_is_not_left_after_an_error(monkeypatch):
    """NCCL would wait for the other processes before the error is printed."""
    calls = []

    def init(backend, **options):
        calls.append((backend, options))

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.dist, "init_process_group", init)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: calls.append("left"))
    gpu = torch.device("cuda", 1)
    with pytest.raises(KeyError), distributed.process_group(gpu):
        raise KeyError
    with distributed.process_group(torch.device("cpu")):
        pass
    assert calls == [("nccl", {"device_id": gpu, "timeout": timedelta(hours=1)}), ("gloo", {}), "left"]
