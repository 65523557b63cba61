import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import CLASSES
from tools import ablations, runs
from tools.ablations import STUDIES
from tools.runs import REPOSITORY
from utils.config import load_config
from utils.io.files import locked
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


def write_run(folder: Path, miou: float, epochs: int = 6) -> None:
    """Write the last.pth of a run of the study on CamVid, NAME-SEED, after these of its 6 epochs."""
    study, (name, _, seed) = STUDIES["camvid"], folder.name.rpartition("-")
    overrides = next(trial.overrides for trial in study.trials if trial.name == name)
    config = load_config(REPOSITORY / study.config, [*study.baseline, *overrides, f"train.seed={seed}"])
    folder.mkdir(parents=True)
    last = Checkpoint(
        state_dict={"weight": torch.zeros(1)},
        backbone="resnet18",
        classes=CLASSES,
        config=config.as_dict(),
        epoch=epochs,
        metrics={"miou": miou},
        training={"losses": {}},
    )
    save_checkpoint(folder / "last.pth", last)


@pytest.fixture
def run_tool(monkeypatch):
    """Run the tool without training; return the commands it would have run."""
    commands: list[list[str]] = []

    def record(command: list[str], **options: object) -> SimpleNamespace:
        commands.append(command[1:])
        return SimpleNamespace(wait=lambda: 0, send_signal=None)

    def run(*arguments: object) -> list[list[str]]:
        monkeypatch.setattr(sys, "argv", ["ablations.py", "camvid", *map(str, arguments)])
        ablations.main()
        return commands

    monkeypatch.setattr(runs.subprocess, "Popen", record)
    return run


@pytest.mark.parametrize(
    ("study", "trial"),
    [
        pytest.param(study, trial, id=f"{name}-{trial.name}")
        for name, study in STUDIES.items()
        for trial in study.trials
    ],
)
def test_a_trial_changes_its_overrides_alone(study, trial):
    baseline = load_config(REPOSITORY / study.config, [*study.baseline]).as_dict()
    own = load_config(REPOSITORY / study.config, [*study.baseline, *trial.overrides]).as_dict()
    changed = {f"{part}.{key}" for part in own for key in own[part] if own[part][key] != baseline[part][key]}
    assert changed <= {override.partition("=")[0] for override in trial.overrides}
    assert bool(changed) == (trial.name != "baseline")


def test_complete_and_running_trials_are_skipped(tmp_path, run_tool):
    complete, interrupted, running, new = [trial.name for trial in STUDIES["camvid"].trials[:4]]
    write_run(tmp_path / f"{complete}-0", 0.3)
    write_run(tmp_path / f"{interrupted}-0", 0.3, epochs=3)
    names = [complete, interrupted, running, new]
    with locked(tmp_path / f".{running}-0.lock"):
        commands = run_tool("dataset.root=data", "--out", tmp_path, "--seeds", 0, "--only", *names)
    folders = [next(part for part in command if part.startswith("train.ckpt_dir=")) for command in commands]
    assert folders == [f"train.ckpt_dir={tmp_path / name}-0" for name in (interrupted, new)]
    for command in commands:
        assert command[:3] == [str(REPOSITORY / "train.py"), "--config", str(REPOSITORY / "configs" / "camvid.yaml")]
        assert "dataset.root=data" in command and "train.resume=auto" in command


def test_another_configuration_and_the_trial_wins_over_shared_overrides(tmp_path, run_tool):
    config = tmp_path / "mine.yaml"
    config.touch()
    options = ["--config", config, "--out", tmp_path, "--seeds", 0, "--only", "crop-352"]
    (command,) = run_tool("model.crop_size=512", *options)
    assert command[2] == str(config)
    assert command.index("model.crop_size=512") < command.index("model.crop_size=352")


def test_the_table_lists_seeds_mean_and_difference(tmp_path, capsys, run_tool):
    write_run(tmp_path / "baseline-0", 0.40)
    write_run(tmp_path / "baseline-1", 0.42)
    write_run(tmp_path / "ppm-none-0", 0.30)
    write_run(tmp_path / "psp-0", 0.50, epochs=3)  # incomplete
    assert not run_tool("--report", "--out", tmp_path)
    _, _, baseline, *others = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()
    ]
    assert baseline[0] == "`baseline`" and baseline[3:] == ["40.0, 42.0", "41.0", ""]
    assert others == [["`ppm-none`", "pyramid pooling", "none", "30.0", "30.0", "-11.0"]]
    assert (tmp_path / "ablations.svg").read_text().startswith("<?xml")


def test_without_a_complete_run_there_is_nothing_to_report(tmp_path, run_tool):
    write_run(tmp_path / "psp-0", 0.50, epochs=3)
    with pytest.raises(ValueError, match="no complete run in"):
        run_tool("--report", "--out", tmp_path)


def test_a_run_with_other_settings_is_not_taken(tmp_path, run_tool):
    write_run(tmp_path / "psp-0", 0.50)
    with pytest.raises(ValueError, match=r"model\.backbone \(was resnet18, is resnet50\).* or start a new run"):
        run_tool("model.backbone=resnet50", "--out", tmp_path, "--only", "psp", "--seeds", 0)


def test_a_wrong_seed_is_refused_before_the_first_training(tmp_path, run_tool, monkeypatch):
    monkeypatch.setattr(ablations, "run_trial", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"train\.seed must be"):
        run_tool("--out", tmp_path, "--only", "psp", "--seeds", "0", "-1")


def test_an_unknown_trial_is_named_with_the_known_ones(run_tool):
    with pytest.raises(ValueError, match="--only sub5: no such trial; camvid has baseline, rate-1x"):
        run_tool("--only", "sub5", "psp")


def test_a_run_killed_in_its_last_validation_is_not_complete(tmp_path, run_tool):
    write_run(tmp_path / "psp-0", 0.50)
    path = tmp_path / "psp-0" / "last.pth"
    save_checkpoint(path, replace(read_checkpoint(path), training={"losses": {"names": ["loss"]}}))
    with pytest.raises(ValueError, match="no complete run in"):
        run_tool("--report", "--out", tmp_path)


def test_overrides_win_over_the_studys_own_settings(tmp_path, run_tool):
    (command,) = run_tool("model.crop_size=512", "--out", tmp_path, "--seeds", 0, "--only", "baseline")
    assert command.index("model.crop_size=240") < command.index("model.crop_size=512")
