"""Running the scripts in processes of their own, for tools that need several runs."""

import subprocess
import sys
from pathlib import Path

from utils.cli import Interruption, catching_signals

REPOSITORY = Path(__file__).parent.parent


def run_script(folder: Path, script: str, *arguments: str) -> bool:
    """Run a script whose results go to `folder`; return False if another process is at work there.

    Raises:
        ValueError: it failed; its own message has been printed.
        Interruption: a signal stopped it, after it saved its state.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.running")
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        print(f"{folder.name}: skipped, running in another process; if there is none, delete {lock}")
        return False
    print(f"{folder.name}: python {' '.join([script, *arguments])}", flush=True)
    try:
        command = [sys.executable, str(REPOSITORY / script), *arguments]
        process = subprocess.Popen(command, start_new_session=True)  # Ctrl-C, too, reaches the script once, from here
        with catching_signals(process.send_signal) as stopping:
            code = process.wait()  # it needs time to save its state
    finally:
        lock.unlink()
    if stopping():
        raise Interruption("stopped; the same command continues")
    if code != 0:
        raise ValueError(f"{folder.name} failed with exit code {code}; see its message above")
    return True
