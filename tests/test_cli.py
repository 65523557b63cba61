import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader, Dataset

from tests.conftest import end_loader_processes
from utils import cli


def exit_code(main) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.run(main)
    return stopped.value.code


def raising(error: BaseException):
    def main():
        raise error

    return main


def test_only_a_further_ctrl_c_stops_at_once():
    with cli.catching_signals() as stopping:
        assert not stopping()
        for _ in range(2):  # the second as if from torchrun
            signal.raise_signal(signal.SIGTERM)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_previous_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with cli.catching_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize(("before", "stops"), [("SIG_DFL", True), ("SIG_IGN", False)])  # the latter is set by nohup
def test_a_closed_terminal_stops_cleanly_except_under_nohup(before, stops):
    previous = signal.signal(signal.SIGHUP, getattr(signal, before))
    try:
        with cli.catching_signals() as stopping:
            signal.raise_signal(signal.SIGHUP)
            assert stopping() == stops
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_exit_code_is_the_return_value_of_main(capsys, returned, code):
    assert exit_code(lambda: returned) == code
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
def test_user_error_is_one_line(capsys, error, line):
    assert exit_code(raising(error)) == 2
    assert capsys.readouterr() == ("", line + "\n")


def test_the_traceback_of_a_user_error_is_for_developers(monkeypatch):
    def fail():
        raise ValueError("wrong")

    monkeypatch.setattr(cli.sys, "flags", SimpleNamespace(dev_mode=True))  # python -X dev
    with pytest.raises(ValueError, match="wrong"):
        cli.run(fail)


@pytest.mark.parametrize(
    "error",
    [
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried …"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might …"),  # when the GPU is first used
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("NCCL error in: …\nCuda failure 2 'out of memory'"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),  # of a convolution
    ],
)
def test_running_out_of_gpu_memory_is_one_line(capsys, error):
    assert exit_code(raising(error)) == 2
    assert capsys.readouterr().err.startswith("error: out of GPU memory; lower train.train_batch_size")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")])
def test_running_out_of_memory_is_one_line(capsys, error):
    assert exit_code(raising(error)) == 2
    assert capsys.readouterr().err.startswith("error: out of memory; lower train.train_batch_size")


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 7) is killed by signal: Killed. It is possible that …\nout of shared memory",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that …",
        "Caught RuntimeError in DataLoader worker process 0.\nTraceback …\nunable to allocate shared memory(shm) for …",
    ],
)
def test_a_loader_worker_without_memory_is_one_line(capsys, message):
    assert exit_code(raising(RuntimeError(message))) == 2
    assert capsys.readouterr().err.startswith("error: a loader worker has too little memory; lower")


@pytest.mark.parametrize(
    ("error", "line"), [(KeyboardInterrupt(), "interrupted"), (cli.Interruption("stopped after 3"), "stopped after 3")]
)
def test_interruption_exits_with_130(capsys, error, line):
    assert exit_code(raising(error)) == 130
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("error", [AssertionError("3 != 4"), TypeError("x"), RuntimeError("x"), KeyError("x")])
def test_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)):
        cli.run(raising(error))


class Failing(Dataset):
    """Every sample raises the same error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("masks/Error: 7.png contains the value 9"), "masks/Error: 7.png contains the value 9"),
        (FileNotFoundError("a.png is gone"), "a.png is gone"),
        (ValueError("a.png: first\nsecond"), "a.png: first second"),
    ],
)
def test_error_in_a_loader_worker_reads_the_same(monkeypatch, error, line):
    with pytest.raises(type(error)) as caught:
        list(DataLoader(Failing(error), num_workers=1))
    message = cli.one_line(caught.value)
    del caught
    end_loader_processes(monkeypatch)
    assert message == line


def test_arguments_in_any_order(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", "a.b=1", "--config", "x.yaml", "c.d=2"])
    args = cli.parse_arguments("…")
    assert (args.config, args.overrides) == (Path("x.yaml"), ["a.b=1", "c.d=2"])
    monkeypatch.setattr("sys.argv", ["train.py", "--confg", "x.yaml"])
    assert exit_code(lambda: cli.parse_arguments("…")) == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --confg; see train.py --help\n"


def test_the_home_of_an_unknown_user_is_taken_literally():
    assert cli.path("~no-such-user/x.yaml") == Path("~no-such-user/x.yaml")


def test_a_gpu_that_pytorch_was_not_built_for_is_one_line(capsys):
    error = RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors …")
    assert exit_code(raising(error)) == 2
    assert capsys.readouterr().err.startswith("error: this PyTorch was not built for this GPU; install a build for an")


def test_log_prints_unless_quiet_and_keeps_nothing_in_memory(capsys):
    for quiet, printed in ((False, "hello\n"), (True, "")):
        log = cli.open_log(quiet=quiet)
        log.info("hello")
        assert capsys.readouterr().out == printed
        assert not any(hasattr(handler, "buffer") for handler in log.handlers)  # inference logs a line per image


def test_names_that_are_not_text_can_be_printed(tmp_path):
    script = "from utils import cli; cli.run(lambda: print('caf\\udce9.png'))"
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "caf\\udce9.png\n")


def test_lines_reach_a_file_at_once():
    script = "import os; from utils import cli; cli.run(lambda: (cli.open_log().info('epoch 1'), os._exit(0)))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "epoch 1\n"  # although the process ended without flushing
