"""Scripts run by tools. When a run is skipped: test_ablations.py."""

import os
import signal
import threading
import time

import pytest

from tools.runs import REPOSITORY, run_script
from utils.cli import Interruption
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
    with pytest.raises(Interruption, match="the same command continues"):
        run_script(tmp_path / "run", script(SAVING), str(REPOSITORY))
    assert (tmp_path / "saved").read_text() != str(os.getpgrp())  # to which Ctrl-C and `timeout` send a second one


def test_a_folder_in_use_is_refused(script, tmp_path):
    with (
        locked(tmp_path / ".run.lock"),
        pytest.raises(BlockingIOError, match=r"another process is at work in .*; stop it .* delete .*\.run\.lock if"),
    ):
        run_script(tmp_path / "run", "train.py")
    run_script(tmp_path / "run", script(""))
