import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import get_model_weights

from models import ICNet
from models.resnet import DilatedResNet
from utils.weights import zoo
from utils.weights.pretrained import load_backbone
from utils.weights.run_folder import find_checkpoint
from utils.weights.zoo import WEIGHTS, find_weights

NAME = "icnet_psp_resnet50_cityscapes"


def test_file_names_end_in_their_hash():
    for known in WEIGHTS.values():
        if known.url is not None:
            assert known.url.endswith(f"/{known.file}") and re.search(r"-[0-9a-f]{8}\.pth$", known.file)


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Replace torch.hub's cache by an empty folder and its downloads by tiny files; list (url, hash) of each."""
    calls = []

    def download(url, target, *, hash_prefix, progress):
        calls.append((url, hash_prefix))
        torch.save({}, target)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(zoo, "_CKPT", tmp_path / "common")
    return calls


def test_a_known_name_is_downloaded_once_into_the_cache_with_its_hash(tmp_path, downloads, capsys):
    for folder in ("ckpt", "other"):
        path = find_checkpoint(NAME, str(tmp_path / folder), name="icnet")
        assert path == tmp_path / "hub" / "checkpoints" / WEIGHTS[NAME].file and path.is_file()
    assert downloads == [(WEIGHTS[NAME].url, "ce310aea")]
    assert "Apache-2.0" in capsys.readouterr().out


def test_a_known_file_in_the_folder_is_used(tmp_path, downloads):
    (tmp_path / WEIGHTS[NAME].file).touch()
    assert find_weights(NAME, tmp_path) == tmp_path / WEIGHTS[NAME].file and not downloads


def test_a_known_file_in_ckpt_is_found_by_every_run(tmp_path, downloads):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / WEIGHTS[NAME].file).touch()
    assert find_weights(NAME, tmp_path / "run") == tmp_path / "common" / WEIGHTS[NAME].file and not downloads


def test_imagenet_weights_go_by_torchvisions_names(tmp_path, downloads):
    theirs = get_model_weights("resnet18").IMAGENET1K_V1
    path = find_weights("IMAGENET1K_V1", tmp_path, backbone="resnet18")
    assert path.name == theirs.url.rpartition("/")[2] == "resnet18-f37072fd.pth"
    assert downloads == [(theirs.url, "f37072fd")]
    with pytest.raises(ValueError, match="'IMAGENET1K_V9' is neither a file nor one of IMAGENET1K_V1"):
        find_weights("IMAGENET1K_V9", tmp_path, backbone="resnet18")
    for backbone, known in (("resnet50_v1s", "resnet50_v1s_imagenet, "), ("resnet18_v1c", "")):
        hint = rf"no ImageNet weights for {backbone}; .* to {known}a file or null, or model\.backbone to resnet\d\d$"
        with pytest.raises(ValueError, match=hint):
            find_weights("IMAGENET1K_V1", tmp_path, backbone=backbone)


def test_a_path_stays_a_path(tmp_path, monkeypatch):
    assert find_weights("no/such.pth", tmp_path).as_posix() == "no/such.pth"
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).write_bytes(b"")
    assert find_weights(NAME, "ckpt").as_posix() == NAME


def test_the_best_of_the_configured_network_comes_before_a_better_one_of_another(tmp_path):
    for name in (
        "icnet_resnet50_3_0.600",
        "icnet_resnet50_7_0.590",
        "icnet_resnet50_197_0.710",  # the published file, which is not the user's own
        "icnet_resnet50_v1s_3_0.700",
        "icnet_psp_resnet50_3_0.8",
    ):
        (tmp_path / f"{name}_best_model.pth").touch()
    assert find_checkpoint(None, tmp_path, name="icnet_resnet50").name == "icnet_resnet50_3_0.600_best_model.pth"
    best = tmp_path / "icnet_psp_resnet50_3_0.8_best_model.pth"
    assert find_checkpoint(None, tmp_path, name="icnet_resnet18") == best
    assert find_checkpoint(None, tmp_path, fallback=Path("included.pth")) == best


def test_a_folder_without_a_trained_network_gives_the_fallback_or_an_error(tmp_path):
    (tmp_path / "last.pth").touch()
    assert find_checkpoint(None, tmp_path, fallback=Path("included.pth")) == Path("included.pth")
    with pytest.raises(FileNotFoundError, match="train first"):
        find_checkpoint(None, tmp_path)


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("invalid hash value")])
def test_without_network_one_line_names_address_and_place(run_script, tmp_path, monkeypatch, folder_data, error):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(zoo, "_CKPT", tmp_path / "common")
    overrides = [f"test.ckpt_path={NAME}", f"train.ckpt_dir={tmp_path / 'ckpt'}"]
    done = run_script("inference", "--input", folder_data.root / "val", *overrides)
    assert done.code == 2
    (line,) = done.err.strip().splitlines()
    assert WEIGHTS[NAME].url in line and str(tmp_path / "hub" / "checkpoints" / WEIGHTS[NAME].file) in line


def test_weights_without_address_must_be_downloaded_by_hand(tmp_path, downloads):
    with pytest.raises(FileNotFoundError, match=r"icnet_resnet50_197_0\.710_best_model\.pth: .* by hand, see https://"):
        find_weights("icnet_resnet50_cityscapes", tmp_path)


def test_a_backbone_without_batch_norm_counters_loads(tmp_path):
    """torchvision's ResNets of 2018, IMAGENET1K_V1, were saved before PyTorch counted batches."""
    source, target = DilatedResNet("resnet18"), ICNet(2, "resnet18").backbone
    weights = {name: tensor for name, tensor in source.state_dict().items() if "num_batches_tracked" not in name}
    torch.save(weights | {"fc.weight": torch.zeros(1)}, tmp_path / "v1.pth")
    load_backbone(target, tmp_path / "v1.pth")
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in weights.items())


def test_a_backbone_in_openmmlabs_layout_loads(tmp_path):
    source, target = DilatedResNet("resnet18_v1c"), ICNet(2, "resnet18_v1c").backbone
    theirs = {
        name.replace("bn1.", "stem.7.", 1)
        if name.startswith("bn1.")
        else name.replace("conv1.", "stem.", 1)
        if name.startswith("conv1.")
        else name: tensor
        for name, tensor in source.state_dict().items()
    }
    assert "stem.7.weight" in theirs and "stem.0.weight" in theirs
    torch.save({"meta": {}, "state_dict": theirs | {"fc.weight": torch.zeros(1)}}, tmp_path / "v1c.pth")
    load_backbone(target, tmp_path / "v1c.pth")
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


@pytest.mark.parametrize("paper", [False, True])
def test_the_deep_stem_has_gluons_tensors(paper):
    """timm's network of `resnet50_v1s_imagenet` has the same names and shapes."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet50s", pretrained=False)
    assert theirs.default_cfg["url"] == WEIGHTS["resnet50_v1s_imagenet"].url
    ours = DilatedResNet("resnet50_v1s", paper=paper).state_dict()
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in ours.items()} == shapes
