"""Scripts run by tools. When a run is skipped: test_ablations.py."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tools.runs import REPOSITORY, changed_since, run_evaluation, run_script
from utils.cli import Interruption
from utils.config import load_config
from utils.io.files import locked

SAVING = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from utils.cli import catching_signals
signal.alarm(60)  # ends it if no other signal arrives
with catching_signals() as stopping:
    Path("ready").touch()
    while not stopping():
        time.sleep(0.01)
    time.sleep(0.2)  # a second signal would end it here
    Path("saved").write_text(str(os.getpgrp()))
sys.exit(130)
"""


@pytest.fixture
def script(tmp_path):
    """Return a function that writes a script and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write


def test_a_script_that_fails_is_named(script, tmp_path):
    with pytest.raises(ValueError, match="run failed with exit code 2; see its message above"):
        run_script(tmp_path / "run", script("raise SystemExit(2)"))
    run_script(tmp_path / "run", script("import sys; assert sys.argv[1:] == ['a', 'b']"), "a", "b")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_tool_lets_the_script_save_its_state_and_stop(script, tmp_path, monkeypatch, number):
    def kill_when_ready() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    monkeypatch.chdir(tmp_path)
    threading.Thread(target=kill_when_ready, daemon=True).start()
    with pytest.raises(Interruption, match="the same command again to continue"):
        run_script(tmp_path / "run", script(SAVING), str(REPOSITORY))
    assert (tmp_path / "saved").read_text() != str(os.getpgrp())  # to which Ctrl-C and `timeout` send a second one


def test_a_folder_in_use_is_refused(script, tmp_path):
    with (
        locked(tmp_path / ".run.lock"),
        pytest.raises(BlockingIOError, match=r"another process is at work in .*; stop it .* delete .*\.run\.lock if"),
    ):
        run_script(tmp_path / "run", "train.py")
    run_script(tmp_path / "run", script(""))


@pytest.fixture
def evaluation(tmp_path, monkeypatch):
    """Return a function that evaluates a file and returns whether evaluate.py ran, and then gave `result`."""
    (tmp_path / "x.pth").touch()
    (tmp_path / "x.yaml").write_text("train: {epochs: 1}")
    metrics = tmp_path / "evaluate_output" / "metrics.json"
    metrics.parent.mkdir()

    def evaluate(*overrides: str, result: dict[str, float]) -> bool:
        ran = []

        def run(folder: Path, script: str, option: str, file: str, *given: str) -> None:
            ran.append(script)
            metrics.write_text(json.dumps(result | {"config": load_config(file, given).as_dict()}))

        monkeypatch.setattr("tools.runs.run_script", run)
        found = run_evaluation(tmp_path / "x.pth", tmp_path, str(tmp_path / "x.yaml"), overrides)
        assert found["miou"] == result["miou"]
        return bool(ran)

    return evaluate


def test_an_evaluation_is_reused_only_under_the_same_settings(evaluation):
    assert evaluation(result={"miou": 0.5})
    assert not evaluation(result={"miou": 0.5})
    assert evaluation("test.short_side=640", result={"miou": 0.6})
    assert evaluation("test.split=train", "test.short_side=640", result={"miou": 0.7})
    assert not evaluation("test.short_side=640", "test.split=train", result={"miou": 0.7})


def test_a_changed_checkpoint_is_evaluated_anew(evaluation, tmp_path):
    assert evaluation(result={"miou": 0.5})
    os.utime(tmp_path / "evaluate_output" / "metrics.json", (0, 0))  # an older one
    assert evaluation(result={"miou": 0.6})


def test_steps_need_a_labelled_split(evaluation):
    with pytest.raises(ValueError, match=r"no labels; choose another test\.split"):
        evaluation(result={})


def test_a_file_moved_over_an_evaluated_one_is_evaluated_anew(tmp_path):
    old, evaluated, metrics = (tmp_path / name for name in ("old.pth", "evaluated.pth", "metrics.json"))
    for path in (old, evaluated, metrics):
        path.touch()
        time.sleep(0.02)  # longer than a tick of the file system's clock, as the time of a move cannot be set
    assert not changed_since(metrics, evaluated)
    old.replace(evaluated)
    assert changed_since(metrics, evaluated)
