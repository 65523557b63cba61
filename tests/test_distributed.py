"""Several processes on one machine, joined by Gloo, do what one does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def train(folder_data, ckpt_dir, *overrides, processes=1):
    """Train in so many processes; return the records of the epochs."""
    launcher = [*TORCHRUN, f"--nproc_per_node={processes}"] if processes > 1 else [sys.executable]
    arguments = ["--config", str(folder_data.config), f"train.ckpt_dir={ckpt_dir}", *overrides]
    done = subprocess.run(
        [*launcher, str(REPOSITORY / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (ckpt_dir / "train.jsonl").read_text().splitlines()]


def test_two_processes_train_and_validate_as_one(folder_data, tmp_path):
    folder_data.values["train"]["train_batch_size"] = 4
    folder_data.write()
    (folder_data.root / "val" / "2.png").write_bytes((folder_data.root / "val" / "0.png").read_bytes())
    (folder_data.root / "val_mask" / "2.png").write_bytes((folder_data.root / "val_mask" / "0.png").read_bytes())
    overrides = ["train.epochs=3", "train.freeze_bn=true", "optimizer.init_lr=0.001"]  # of norms per process, not so
    one = train(folder_data, tmp_path / "one", *overrides)
    two = train(folder_data, tmp_path / "two", *overrides, processes=2)
    for a, b in zip(one, two, strict=True):
        for key in ("loss", "loss_out", "loss_aux_8", "loss_aux_16"):
            assert b[key] == pytest.approx(a[key], rel=1e-4), key
        assert b["miou"] == pytest.approx(a["miou"], abs=2e-3)  # a pixel may fall to the other side
    assert (tmp_path / "two" / "train.log").read_text().count("epoch   1/3") == 1


def test_one_process_that_dies_takes_the_others_down(folder_data, tmp_path):
    arguments = ["--config", str(folder_data.config), f"train.ckpt_dir={tmp_path / 'run'}", "train.epochs=1000"]
    with subprocess.Popen(
        [*TORCHRUN, "--nproc_per_node=2", str(REPOSITORY / "train.py"), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        while not (tmp_path / "run" / "train.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), 9)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL) received" in errors


def test_a_batch_that_the_processes_cannot_share_is_a_line(folder_data, tmp_path):
    done = subprocess.run(
        [*TORCHRUN, "--nproc_per_node=2", "train.py", "--config", str(folder_data.config), "train.train_batch_size=3"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode != 0
    assert "train.train_batch_size (3) must be a multiple of the 2 processes" in done.stderr
