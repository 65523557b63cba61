import os
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.conftest import end_loader_processes
from utils import runtime


@pytest.fixture
def gpus(monkeypatch):
    """Give a function that makes torch say it has so many CUDA devices."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # put back afterwards

    return pretend


@pytest.mark.parametrize("number", ["0", "1", "7", " 0 "])
def test_without_cuda_any_number_means_the_cpu(gpus, number):
    gpus(0)
    device = runtime.select_device(number)
    assert device == torch.device("cpu")
    assert "no CUDA" in runtime.describe(device)


def test_cuda_device_by_its_number(gpus):
    gpus(2)
    assert runtime.select_device("0") == torch.device("cuda", 0)
    assert runtime.select_device("1") == torch.device("cuda", 1)
    assert runtime.describe(torch.device("cuda", 1)) == "cuda:1 (GPU of cuda:1)"


def test_gpu_that_does_not_exist(gpus):
    gpus(2)
    with pytest.raises(ValueError, match=r"train\.specific_gpu_num is 2, but this machine has 2 GPU"):
        runtime.select_device("2")


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("number", ["-1", "0,", "", "cuda:0", "first", "1.0", "²"])
def test_what_is_no_gpu_number(gpus, count, number):
    gpus(count)
    with pytest.raises(ValueError, match=r"train\.specific_gpu_num"):
        runtime.select_device(number)


def test_several_gpus_are_refused_where_there_are_some(gpus):
    gpus(2)
    with pytest.raises(ValueError, match="names 2 GPUs"):
        runtime.select_device("0, 1")
    gpus(0)
    assert runtime.select_device("0, 1").type == "cpu"  # a file written for two GPUs is still a file to try out


def test_seed_makes_the_same_numbers_again():
    def draw() -> tuple:
        return random.random(), np.random.rand(), torch.rand(1).item()

    runtime.seed_everything(3)
    first = draw()
    runtime.seed_everything(3)
    assert draw() == first
    runtime.seed_everything(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize(
    ("cores", "kind", "workers"),
    [(1, "cpu", 0), (2, "cpu", 1), (16, "cpu", 2), (1, "cuda", 1), (6, "cuda", 6), (64, "cuda", 8)],
)
def test_loader_processes_by_the_machine(monkeypatch, cores, kind, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert runtime.loader_workers(None, torch.device(kind)) == workers


def test_loader_processes_by_the_setting():
    assert runtime.loader_workers(0, torch.device("cuda")) == 0
    assert runtime.loader_workers(5, torch.device("cpu")) == 5


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_exit_code_of_main(capsys, returned, code):
    with pytest.raises(SystemExit) as stopped:
        runtime.run(lambda: returned)
    assert stopped.value.code == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("crop 0 is too small"), "error: crop 0 is too small"),
        (FileNotFoundError("no folder x"), "error: no folder x"),
        (PermissionError(13, "Permission denied", "/x"), "error: [Errno 13] Permission denied: '/x'"),
        (ValueError("first\nsecond\n\n"), "error: first second"),
        (ValueError(""), "error: ValueError"),
    ],
)
def test_error_that_the_user_can_mend_is_one_line(capsys, error, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        runtime.run(main)
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", line + "\n")


def test_interrupt(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        runtime.run(main)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("error", [AssertionError("3 != 4"), TypeError("x"), RuntimeError("x"), KeyError("x")])
def test_error_of_the_program_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        runtime.run(main)


class Failing(Dataset):
    """Every sample fails with the same error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise self.error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("masks/Error: 7.png holds the value 9"), "masks/Error: 7.png holds the value 9"),
        (FileNotFoundError("a.png is gone"), "a.png is gone"),
        (ValueError("a.png: first\nsecond"), "a.png: first second"),
    ],
)
def test_error_out_of_a_loader_process_reads_the_same(monkeypatch, workers, error, line):
    with pytest.raises(type(error)) as caught:
        list(DataLoader(Failing(error), num_workers=workers))
    said = runtime.one_line(caught.value)
    del caught
    end_loader_processes(monkeypatch)
    assert said == line
