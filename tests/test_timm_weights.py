import pytest
import torch

from models import TimmBackbone
from tests.conftest import CLASSES
from utils.weights.checkpoint import read_checkpoint
from utils.weights.timm_weights import load_timm_weights

timm = pytest.importorskip("timm")

NAME = "tf_efficientnet_lite0"
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def whole():
    """All of timm's network, with its classifier."""
    torch.manual_seed(1)
    return timm.create_model(NAME)


@pytest.fixture
def offered(monkeypatch, whole):
    """Replace timm's download; list the names asked for."""
    create, asked = timm.create_model, []

    def give(name, *, pretrained=False, **options):
        if not pretrained:
            return create(name, **options)
        asked.append(name)
        return whole

    monkeypatch.setattr(timm, "create_model", give)
    return asked


def same(backbone, whole):
    state = backbone.rename_timm_tensors(whole.state_dict())
    return all(torch.equal(state[name].float(), tensor) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("weights", "asked"), [("timm", NAME), ("in1k", f"{NAME}.in1k"), (f"{NAME}.in1k", f"{NAME}.in1k")]
)
def test_timms_weights_come_with_their_normalisation(offered, whole, weights, asked):
    backbone = TimmBackbone(f"timm/{NAME}")
    assert load_timm_weights(backbone, weights) == (HALF, HALF)
    assert offered == [asked] and same(backbone, whole)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_read_in_half_precision_too(tmp_path, whole, suffix):
    path = tmp_path / f"weights{suffix}"
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in whole.state_dict().items()
    }
    if suffix == ".pth":
        torch.save(state, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, path)
    backbone = TimmBackbone(f"timm/{NAME}")
    assert load_timm_weights(backbone, str(path)) == (HALF, HALF)
    expected = backbone.rename_timm_tensors(state)
    assert all(torch.equal(expected[name].float(), x.float()) for name, x in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("file", "mean"),
    [
        ("mobilenetv4_conv_small.e3600_r256_in1k.pth", 0.5),
        ("mobilenetv4_conv_small.e3600_r256_in1k/model.pth", 0.5),
        ("mine.pth", 0.485),
    ],
)
def test_a_file_named_after_a_tag_has_its_normalisation(tmp_path, file, mean):
    backbone, path = TimmBackbone("timm/mobilenetv4_conv_small"), tmp_path / file
    path.parent.mkdir(exist_ok=True)
    torch.save(timm.create_model("mobilenetv4_conv_small").state_dict(), path)
    assert load_timm_weights(backbone, str(path))[0][0] == mean


def test_a_tag_has_its_own_normalisation(monkeypatch):
    whole = timm.create_model("mobilenetv4_conv_small")
    backbone = TimmBackbone("timm/mobilenetv4_conv_small")
    monkeypatch.setattr(timm, "create_model", lambda name, **options: whole)
    assert load_timm_weights(backbone, "e3600_r256_in1k") == (HALF, HALF)


def test_mean_and_standard_deviation_are_not_exchanged(tmp_path):
    torch.save(timm.create_model("regnetx_002").state_dict(), tmp_path / "weights.pth")
    normalization = load_timm_weights(TimmBackbone("timm/regnetx_002"), str(tmp_path / "weights.pth"))
    assert normalization == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save(timm.create_model("tf_efficientnet_lite1").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"model\.backbone_weights .*other\.pth: .* unknown: blocks_1\.2"):
        load_timm_weights(TimmBackbone(f"timm/{NAME}"), str(tmp_path / "other.pth"))
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x\.safetensors cannot be read"):
        load_timm_weights(TimmBackbone(f"timm/{NAME}"), str(tmp_path / "x.safetensors"))


def test_unknown_weights_are_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'IMAGENET1K_V1' is neither a file nor one of timm, in1k$"):
        load_timm_weights(TimmBackbone(f"timm/{NAME}"), "IMAGENET1K_V1")


def test_a_network_without_weights_is_named():
    with pytest.raises(ValueError, match="'timm' is not a file, and timm has no weights of mobilenetv2_075"):
        load_timm_weights(TimmBackbone("timm/mobilenetv2_075"), "timm")


def test_without_network_one_line_says_what_to_download(monkeypatch):
    backbone = TimmBackbone(f"timm/{NAME}")

    def fail(name, **options):
        raise OSError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(FileNotFoundError) as error:
        load_timm_weights(backbone, "timm")
    (line,) = str(error.value).splitlines()
    assert f"https://huggingface.co/timm/{NAME}.in1k/resolve/main/model.safetensors" in line
    assert f"as {NAME}.safetensors, and set model.backbone_weights" in line


def test_trained_with_its_normalisation_resumed_and_fine_tuned_for_other_classes(
    folder_data, tmp_path, run_script, whole, monkeypatch
):
    torch.save(whole.state_dict(), tmp_path / "lite0.pth")
    weights = {"backbone_weights": str(tmp_path / "lite0.pth"), "width": None}
    folder_data.values["model"] |= {"backbone": f"timm/{NAME}", **weights}
    config = folder_data.write()
    assert run_script("train", "--config", config).code == 0
    last = read_checkpoint(folder_data.ckpt_dir / "last.pth")
    assert last.normalization == (HALF, HALF) and last.backbone == f"timm/{NAME}"

    (tmp_path / "lite0.pth").unlink()  # a run is resumed from its last.pth alone
    assert "resumed" in run_script("train", "--config", config, "train.resume=auto").out
    assert run_script("evaluate", "--config", config).code == 0

    folder_data.values["model"] |= {"backbone_weights": None, "weights": str(folder_data.ckpt_dir / "last.pth")}
    folder_data.values["dataset"] |= {"classes": [*CLASSES.names, "tree"], "colors": []}
    folder_data.values["train"]["ckpt_dir"] = str(tmp_path / "finer")
    done = run_script("train", "--config", folder_data.write(), "train.freeze=[backbone.blocks_0]")
    assert done.code == 0 and "not loaded, as the data has 4 classes" in done.out, done.err
    finer = read_checkpoint(tmp_path / "finer" / "last.pth")
    assert finer.normalization == (HALF, HALF) and len(finer.classes) == 4
