"""tools/prune.py: pruned checkpoints, and the steps with retraining."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from dataset.labels import cityscapes_classes
from models import ICNet
from tests.conftest import CLASSES
from tests.networks import trained_checkpoint
from tests.test_scripts import CONFIG
from tools import prune, runs
from utils import cli, config
from utils.io.files import write_json
from utils.training.records import Records
from utils.weights.checkpoint import PAPER_TEST, Checkpoint, read_checkpoint, save_checkpoint
from utils.weights.run_folder import find_checkpoint


@pytest.fixture(scope="module")
def pruned(tmp_path_factory) -> Path:
    """A checkpoint pruned to half its width."""
    path = tmp_path_factory.mktemp("pruned") / "pruned.pth"
    save_checkpoint(path, prune.prune_checkpoint(trained_checkpoint(variant="psp"), 0.5))
    return path


@pytest.fixture
def run_prune(run_script):
    """Return a function that runs the tool; it returns the exit code, output and errors."""
    return partial(run_script, "tools.prune")


def test_a_pruned_checkpoint_describes_itself_and_is_smaller(tmp_path, run_prune):
    wide = trained_checkpoint()
    save_checkpoint(tmp_path / "wide.pth", replace(wide, metrics={"miou": 0.5}, training={"losses": {}}, epoch=3))
    code, out, err = run_prune("--ckpt", tmp_path / "wide.pth", "--keep", 0.5)
    assert code == 0, err
    target = tmp_path / "wide_width0.5.pth"
    assert str(target) in out and "3.00 of 11.97 million parameters" in out
    checkpoint = read_checkpoint(target)
    assert checkpoint.structure == wide.build().structure | {"width": 0.5}
    assert "width 0.5" in checkpoint.describe()
    assert (checkpoint.classes, checkpoint.config) == (wide.classes, wide.config)
    assert checkpoint.normalization == wide.normalization
    assert (checkpoint.epoch, checkpoint.metrics, checkpoint.training) == (0, {}, None)
    assert target.stat().st_size < 0.27 * (tmp_path / "wide.pth").stat().st_size
    code, _, err = run_prune("--ckpt", tmp_path / "wide.pth", "--keep", 0.5)
    assert code == 2 and "wide_width0.5.pth exists already" in err


def test_all_networks_are_validated_at_the_original_ones_input_size():
    paper = Checkpoint(state_dict={}, backbone="resnet18", classes=CLASSES, config={"test": PAPER_TEST})
    expected = ["test.input_size=[1025, 2049]", "test.resize_probabilities=True"]
    assert prune.input_settings(paper, config.Config()) == expected


def test_loading_stays_strict(pruned):
    checkpoint = read_checkpoint(pruned)
    with pytest.raises(ValueError, match=r"of another shape: backbone\.conv1\.weight \(32, 3, 7, 7\) for \(64, 3, 7"):
        replace(checkpoint, structure=checkpoint.structure | {"width": 1.0}).build()


def test_two_steps_remove_as_much_as_one(pruned):
    wide = trained_checkpoint(variant=read_checkpoint(pruned).structure["variant"])
    steps = prune.prune_checkpoint(prune.prune_checkpoint(wide, 0.75), 0.5)
    shapes = {name: tensor.shape for name, tensor in steps.state_dict.items()}
    assert shapes == {name: tensor.shape for name, tensor in read_checkpoint(pruned).state_dict.items()}


def test_a_pruned_network_is_fine_tuned_with_other_classes_resumed_and_run(pruned, folder_data, run_script):
    variant = read_checkpoint(pruned).structure["variant"]
    folder_data.values["dataset"] |= {"classes": ["a", "b", "c", "d"], "colors": []}
    folder_data.values["model"] |= {"weights": str(pruned), "variant": variant, "width": None}
    command = ["train", "--config", folder_data.write(), "train.resume=auto"]
    result = run_script(*command)
    assert result.code == 0, result.err
    assert "width 0.5" in result.out and "not loaded, as the data has 4 classes: cff_24" in result.out
    last = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert last.structure["width"] == 0.5 and len(last.classes) == 4
    resumed = run_script(*command, "model.weights=gone.pth")  # complete, but built and restored
    assert resumed.code == 0 and "resumed from" in resumed.out, resumed.err
    assert run_script("evaluate", "--config", folder_data.config, "test.save=none").code == 0
    again = f"train.ckpt_dir={folder_data.ckpt_dir}/again"
    other = run_script("train", "--config", folder_data.config, "model.width=0.75", again)
    assert other.code == 2 and "of another shape" in other.err and "width 0.5" in other.err


@pytest.fixture
def streets(tmp_path, monkeypatch, run_script):
    """A folder with a network for generated streets, where the tool runs the scripts in this process.

    Returns:
        the names of the scripts and of their folders, as they are run.
    """
    classes = cityscapes_classes()
    network = ICNet(len(classes), "resnet18")
    save_checkpoint(
        tmp_path / "wide.pth",
        Checkpoint(
            state_dict=network.state_dict(), backbone="resnet18", classes=classes, config={"test": {"short_side": 48}}
        ),
    )
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace("epochs: 2", "epochs: 1") + "loss: {distill: wide.pth}\n")
    monkeypatch.chdir(tmp_path)
    calls = []

    def run(folder: Path, script: str, *arguments: str) -> None:
        calls.append(f"{script} {folder.name}")
        if script == "evaluate.py":
            own = config.load_config(arguments[1], arguments[2:]).as_dict()
            write_json(folder / "evaluate_output" / "metrics.json", {"miou": len(calls) / 100, "config": own})
            return
        result = run_script(script.removesuffix(".py"), *arguments)
        if result.code == 130:
            raise cli.Interruption(result.err)
        assert result.code == 0, result.err

    for module in (runs, prune):
        monkeypatch.setattr(module, "run_script", run)
    return calls


def command(output: str) -> list[str]:
    options = ["--ckpt", "wide.pth", "--config", "tiny.yaml", "--steps", "0.75,0.5", "--output", output]
    return [*options, "--size", "128x64"]


def test_the_steps_continue_where_they_were_interrupted(streets, run_prune, monkeypatch):
    def stop(self, record, **options):
        if "0.5" in str(self.folder):
            raise KeyboardInterrupt
        log_epoch(self, record, **options)

    log_epoch = Records.log_epoch
    with monkeypatch.context() as context:
        context.setattr(Records, "log_epoch", stop)
        code, _, err = run_prune(*command("steps"))
    assert code == 130, err
    first = ["evaluate.py original", "evaluate.py pruned-0.75", "train.py retrained-0.75", "evaluate.py retrained-0.75"]
    second = ["evaluate.py pruned-0.5", "train.py retrained-0.5"]
    assert streets == first + second
    streets.clear()
    code, out, err = run_prune(*command("steps"))
    assert code == 0, err
    assert streets == ["train.py retrained-0.5", "evaluate.py retrained-0.5"]

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if re.match(r"\| +\d", line)]
    assert [row[:2] for row in rows] == [["1", "11.98"], ["0.75", "6.74"], ["0.5", "3.00"]]
    assert rows[0][4] == "-" and float(rows[0][2]) > float(rows[1][2]) > float(rows[2][2])
    for row, folder in zip(rows[1:], ("0.75", "0.5"), strict=True):
        for cell, name in zip(row[4:], ("pruned", "retrained"), strict=True):
            metrics = json.loads(Path(f"steps/{name}-{folder}/evaluate_output/metrics.json").read_text())
            assert float(cell) == pytest.approx(100 * metrics["miou"], abs=0.005)
            assert metrics["config"]["test"]["short_side"] == 48  # the original network's own
    last = read_checkpoint("steps/retrained-0.5/last.pth")
    assert last.config["test"]["short_side"] == 48  # in validation, too
    assert last.structure["width"] == 0.5 and last.config["loss"]["distill"] == "wide.pth"
    retrained = read_checkpoint(find_checkpoint(None, "steps/retrained-0.75"))
    expected = prune.prune_checkpoint(retrained, 0.5).state_dict  # not of the original network
    pruned = read_checkpoint("steps/pruned-0.5/pruned.pth").state_dict
    assert all(torch.equal(pruned[name], tensor) for name, tensor in expected.items())

    streets.clear()
    assert run_prune(*command("steps"))[0] == 0 and streets == []  # complete
    changed = read_checkpoint("wide.pth")
    changed.state_dict["classifier.weight"] += 1
    save_checkpoint("wide.pth", changed)
    code, _, err = run_prune(*command("steps"))
    assert streets == []  # not even the evaluation of the original network, which is of another one, is overwritten
    assert code == 2 and "steps/pruned-0.75/pruned.pth was not made from wide.pth" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "0"], "'0' is not a share between 0 and 1"),
        (["--keep", "1.5"], "'1.5' is not a share"),
        (["--keep", "half"], "'half' is not a share"),
        (["--keep", "1"], "'1' is not a share"),
        (["--keep", "0.5", "--target", "half.onnx"], "--target half.onnx must end in .pth"),
        (["--keep", "0.5", "--target", "half"], "--target half must end in .pth"),
        (["--keep", "0.5", "--config", "x.yaml"], "go with --steps, not with --keep"),
        (["--keep", "0.5", "--size", "64x64"], "go with --steps, not with --keep"),
        (["--keep", "0.5", "--steps", "0.5"], "not allowed with argument"),
        (["--steps", "0.5", "--output", "out", "--config", "x.yaml", "--target", "x.pth"], "--target goes with --keep"),
        (["--steps", "0.5,0.75"], "'0.5,0.75' is not in descending order"),
        (["--steps", "0.75,"], "'' is not a share"),
        (["--steps", "0.5"], "--steps needs --config and --output"),
        (["--steps", "0.5", "--output", "out", "--config", "no.yaml"], "no configuration file no.yaml"),
        ([], "one of the arguments --keep --steps is required"),
    ],
)
def test_a_wrong_argument_is_one_line(run_prune, checkpoint_path, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_prune("--ckpt", checkpoint_path, *arguments)
    assert code == 2 and words in err and err.count("\n") == 1 and err.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_pruned_is_one_line(run_prune, pruned, tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    for file, words in (
        (tmp_path / "no.pth", "no checkpoint"),
        (tmp_path / "text.pth", "cannot be read as a checkpoint"),
        (pruned, "has a width of 0.5 already"),
    ):
        code, _, err = run_prune("--ckpt", file, "--keep", "0.5", "--target", tmp_path / "target.pth")
        assert code == 2 and words in err and str(file) in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]


def test_a_backbone_from_timm_cannot_be_pruned():
    pytest.importorskip("timm")
    name = "timm/regnetx_002"
    checkpoint = Checkpoint(state_dict=ICNet(3, name).state_dict(), backbone=name, classes=CLASSES)
    with pytest.raises(ValueError, match=f"the backbone {name}; those of timm cannot be pruned"):
        prune.prune_checkpoint(checkpoint, 0.5)
