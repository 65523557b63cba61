"""The ablations of docs/camvid.md: what is run, what is left alone, what is reported."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from tools import ablations
from tools.ablating.train_on_bilinear_labels import resize_bilinearly
from tools.ablating.trials import BASELINE, TRIALS
from utils.config import load_config

REPOSITORY = Path(__file__).parent.parent


def finish(folder: Path, *mious: float | None) -> None:
    """Write what a training run leaves: a line per epoch, some of them with a validation."""
    folder.mkdir(parents=True)
    records = [{"epoch": number, **({} if value is None else {"miou": value})} for number, value in enumerate(mious, 1)]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have been run."""
    made: list[list[str]] = []

    def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
        made.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(ablations.subprocess, "run", run)
    return made


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_a_trial_changes_what_it_names(trial):
    config = str(REPOSITORY / "configs/camvid.yaml")
    baseline = load_config(config, [*BASELINE]).as_dict()
    own = load_config(config, [*BASELINE, *trial.overrides]).as_dict()
    changed = {f"{part}.{key}" for part in own for key in own[part] if own[part][key] != baseline[part][key]}
    assert changed == {override.partition("=")[0] for override in trial.overrides}
    assert (REPOSITORY / trial.script).exists()


def test_what_is_complete_or_under_way_is_not_run_again(tmp_path, commands):
    complete, begun, claimed, fresh = TRIALS[:4]
    finish(tmp_path / f"{complete.name}-0", None, 0.3)
    finish(tmp_path / f"{begun.name}-0", None)
    (tmp_path / f"{claimed.name}-0.running").touch()
    for trial in (complete, begun, claimed, fresh):
        ablations.run_trial(trial, 0, out=tmp_path, overrides=["dataset.root=data"])
    folders = [next(part for part in command if part.startswith("train.ckpt_dir=")) for command in commands]
    assert folders == [f"train.ckpt_dir={tmp_path / trial.name}-0" for trial in (begun, fresh)]
    assert all("dataset.root=data" in command and "train.resume=auto" in command for command in commands)
    assert [path.name for path in tmp_path.glob("*.running")] == [f"{claimed.name}-0.running"]


def test_the_table_gives_every_seed_the_mean_and_the_difference(tmp_path, capsys, monkeypatch):
    finish(tmp_path / "baseline-0", None, 0.40)
    finish(tmp_path / "baseline-1", None, 0.42)
    finish(tmp_path / "ppm-none-0", None, 0.30)
    finish(tmp_path / "psp-0", None)  # not complete
    monkeypatch.setattr("sys.argv", ["ablations.py", "--report", "--out", str(tmp_path)])
    ablations.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("| 40.0, 42.0 | 41.0 |  |")
    assert lines[3:] == ["| pyramid pooling | none | 30.0 | 30.0 | -11.0 |"]
    assert (tmp_path / "ablations.svg").read_text().startswith("<?xml")


def test_bilinear_labels_invent_classes_and_label_what_is_ignored():
    target = torch.tensor([[[0, 2, 255, 4, 4]]], dtype=torch.uint8)
    assert resize_bilinearly(target, (1, 9)).tolist() == [[[0, 1, 2, 0, 255, 1, 4, 4, 4]]]
