"""How scripts end."""

import pytest
from torch.utils.data import DataLoader, Dataset

from tests.conftest import end_loader_processes
from utils import cli


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_exit_code_of_main(capsys, returned, code):
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda: returned)
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
        cli.run(main)
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", line + "\n")


def test_interrupt(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        cli.run(main)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("error", [AssertionError("3 != 4"), TypeError("x"), RuntimeError("x"), KeyError("x")])
def test_error_of_the_program_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        cli.run(main)


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
    said = cli.one_line(caught.value)
    del caught
    end_loader_processes(monkeypatch)
    assert said == line
