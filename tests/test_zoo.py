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


def test_files_are_named_by_their_hash():
    for known in WEIGHTS.values():
        if known.url is not None:
            assert known.url.endswith(f"/{known.file}") and known.file.endswith(f"-{known.sha256}.pth")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_torchvisions_are_where_torchvision_has_them(backbone):
    known, theirs = WEIGHTS[f"{backbone}_imagenet"], get_model_weights(backbone).IMAGENET1K_V1
    assert known.url == theirs.url
    assert f"{theirs.meta['_metrics']['ImageNet-1K']['acc@1']:.2f} %" in known.result


def test_a_name_is_fetched_once_into_the_folder_with_its_hash(tmp_path, monkeypatch, capsys):
    calls = []

    def download(url, target, *, hash_prefix, progress):
        calls.append((url, hash_prefix))
        torch.save({}, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        path = find_checkpoint(NAME, str(tmp_path / "ckpt"), name="icnet")
        assert path == tmp_path / "ckpt" / WEIGHTS[NAME].file and path.is_file()
    assert calls == [(WEIGHTS[NAME].url, "ce310aea")]
    assert "Apache-2.0" in capsys.readouterr().out


def test_a_path_stays_a_path(tmp_path, monkeypatch):
    assert find_weights("no/such.pth", tmp_path).as_posix() == "no/such.pth"
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).write_bytes(b"")
    assert find_weights(NAME, "ckpt").as_posix() == NAME


def test_the_best_of_the_configured_network_comes_before_a_better_one_of_another(tmp_path):
    for name in (
        "icnet_resnet50_3_0.600",
        "icnet_resnet50_7_0.590",
        "icnet_resnet50_v1s_3_0.700",
        "icnet_psp_resnet50_3_0.8",
    ):
        (tmp_path / f"{name}_best_model.pth").touch()
    assert find_checkpoint(None, tmp_path, name="icnet_resnet50").name == "icnet_resnet50_3_0.600_best_model.pth"
    assert find_checkpoint(None, tmp_path, name="icnet_resnet18").name == "icnet_psp_resnet50_3_0.8_best_model.pth"


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("invalid hash value")])
def test_without_network_one_line_says_where_to_get_it_and_where_to_put_it(
    run_script, tmp_path, monkeypatch, folder_data, error
):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(zoo.torch.hub, "download_url_to_file", download)
    overrides = [f"test.ckpt_path={NAME}", f"train.ckpt_dir={tmp_path / 'ckpt'}"]
    done = run_script("inference", "--input", folder_data.root / "val", *overrides)
    assert done.code == 2
    (line,) = done.err.strip().splitlines()
    assert WEIGHTS[NAME].url in line and str(tmp_path / "ckpt" / WEIGHTS[NAME].file) in line


def test_what_has_no_address_is_to_be_got_by_hand(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"icnet_resnet50_197_0\.710_best_model\.pth: .* by hand, see https://"):
        find_weights("icnet_resnet50_cityscapes", tmp_path)


def test_a_backbone_in_openmmlabs_layout_fits(tmp_path):
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
    load_backbone(target, "resnet18_v1c", str(tmp_path / "v1c.pth"))
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name
