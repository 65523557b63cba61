"""Scripts run by tools. When a run is skipped: test_ablations.py."""

import os
import signal
import subprocess

import pytest

from tools import runs
from utils.cli import Interruption


@pytest.fixture
def ending(monkeypatch):
    """Return a function that lets every script end with an exit code, after a signal if one is given."""

    def choose(code: int, number: int | None = None) -> None:
        def run(command: list[str]) -> subprocess.CompletedProcess:
            if number is not None:
                os.kill(os.getpid(), number)
            return subprocess.CompletedProcess(command, code)

        monkeypatch.setattr(runs.subprocess, "run", run)

    return choose


def test_a_script_that_fails_is_named(ending, tmp_path):
    ending(2)
    with pytest.raises(ValueError, match="run failed with exit code 2; see its message above"):
        runs.run_script(tmp_path / "run", "train.py")
    ending(0)
    assert runs.run_script(tmp_path / "run", "train.py")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_script_and_then_stops(ending, tmp_path, number):
    ending(130, number)
    with pytest.raises(Interruption, match="the same command continues"):
        runs.run_script(tmp_path / "run", "train.py")
    assert not list(tmp_path.iterdir())
