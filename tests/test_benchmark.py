import json
import sys

import pytest
import torch

from models import ICNet
from tools import benchmark
from tools.benchmarking.contenders import CONTENDERS, Setting
from tools.benchmarking.timing import count_flops, memory_of, time_in_turns
from tools.benchmarking.yardsticks import PublishedWay
from utils import cli

TINY = Setting(backbone="resnet18", size=(64, 96), batch=2)


@torch.inference_mode()
def test_published_way_gives_the_same_logits():
    network = ICNet(5, "resnet18").eval()
    image = torch.randn(1, 3, 97, 130)
    expected, found = network(image)["out"], PublishedWay(network)(image)["out"]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_published_way_costs_what_the_published_code_does():
    with torch.device("meta"):
        network, image = ICNet(19, "resnet50_v1s").eval(), torch.empty(1, 3, 1024, 2048)
    assert count_flops(PublishedWay(network), image) / 1e9 == pytest.approx(589, abs=1)


def test_all_contenders_label_alike():
    image = TINY.image()
    assert image.shape == (2, 3, 64, 96) and image.dtype == torch.uint8
    labels = {name: CONTENDERS[name](TINY).predict(image) for name in ("published", "eager", "deeplabv3")}
    assert all(found.shape == (2, 64, 96) for found in labels.values())
    assert (labels["published"] == labels["eager"]).float().mean() > 0.999


def test_jobs_take_turns_after_the_warm_up():
    order = []
    seconds = time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_flops_of_a_product():
    assert count_flops(lambda x: x @ x, torch.ones(10, 10)) == 2 * 10**3


def take_50_mb():
    return lambda: torch.ones(50 * 2**18)


def take_nothing():
    return lambda: None


def test_memory_is_what_the_job_takes_at_its_peak():
    cpu = torch.device("cpu")
    assert memory_of(take_50_mb, cpu) == pytest.approx(50 * 2**20, rel=0.1)
    assert memory_of(take_nothing, cpu) < 5 * 2**20


def test_script_prints_tables_and_writes_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "matmul_peak", lambda *args, **kwargs: 1e9)
    monkeypatch.setattr(benchmark, "memory_of", lambda *args: 10**6)
    what = ["--what", "predict", "stages", "train", "--only", "published", "eager"]
    size = ["--size", "96x64", "--crop", "64", "--backbone", "resnet18", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *what, *size, "--json", str(tmp_path / "speed.json")])
    with pytest.raises(SystemExit) as stopped:
        cli.run(benchmark.main)
    assert stopped.value.code == 0
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert set(figures) == {"machine", "arguments", "predict", "stages", "train"}
    assert figures["predict"]["published"]["ratio"] == 1.0
    assert figures["predict"]["eager"]["gflop"] < figures["predict"]["published"]["gflop"]
    printed = capsys.readouterr().out
    assert "| eager |" in printed and "| label map |" in printed and "| this project's |" in printed


def test_impossible_size_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--size", "20x"])
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    assert stopped.value.code == 2 and "'20x' is no WIDTHxHEIGHT" in capsys.readouterr().err
