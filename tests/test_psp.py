"""The variant "psp", and structures that other variants can have too."""

import pytest
import torch

from dataset.labels import cityscapes_classes
from models import ICNet
from tests.networks import check_gradients
from utils.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


@pytest.mark.parametrize("variant", ["published", "psp", "paper"])
@pytest.mark.parametrize("ppm", ["sum", "concat", "none"])
@pytest.mark.parametrize("sub4_input", ["image", "sub2"])
def test_gradients_reach_every_parameter_of_every_structure(variant, ppm, sub4_input):
    network = ICNet(4, "resnet18_v1c", variant=variant, ppm=ppm, sub4_input=sub4_input, width=0.25, dropout=0.1)
    seen = []
    network.backbone.layer2[0].register_forward_hook(lambda *call: seen.append(1))
    check_gradients(network, size=(97, 65))
    assert len(seen) == (2 if sub4_input == "image" else 1)


@pytest.mark.parametrize("key", ["variant", "ppm", "sub4_input"])
def test_unknown_option_is_an_error(key):
    with pytest.raises(ValueError, match=f"unknown {key} 'psq'; available: "):
        ICNet(4, "resnet18", **{key: "psq"})


def test_channels_with_resnet50_are_mmsegmentations():
    with torch.device("meta"):
        network = ICNet(19, "resnet50_v1c", variant="psp")
    assert network.pyramid_pooling.bottleneck.conv.weight.shape == (512, 4096, 3, 3)
    assert network.conv_sub2.conv.weight.shape == (256, 512, 1, 1)
    assert network.conv_sub4.conv.weight.shape == (256, 512, 1, 1)
    assert network.cff_24.conv_low[0].weight.shape == (128, 256, 3, 3)


def test_dropout_is_active_only_in_training():
    network = ICNet(4, "resnet18", variant="psp", dropout=0.5).train()
    features = torch.randn(2, 128, 4, 4)
    assert not torch.equal(network.classifier[1](features), network.classifier[1](features))
    network.eval()
    assert torch.equal(network.classifier[1](features), network.classifier[1](features))


def test_checkpoint_rebuilds_its_structure(tmp_path):
    network = ICNet(19, "resnet18", variant="psp", ppm="sum", sub4_input="image", dropout=0.2)
    classes = cityscapes_classes()
    checkpoint = Checkpoint(
        state_dict=network.state_dict(), backbone="resnet18", classes=classes, structure=network.structure
    )
    save_checkpoint(tmp_path / "psp.pth", checkpoint)
    again = read_checkpoint(tmp_path / "psp.pth").build()
    assert again.structure == {"variant": "psp", "ppm": "sum", "sub4_input": "image", "dropout": 0.2, "width": 1}

    content = torch.load(tmp_path / "psp.pth", weights_only=True)
    for odd in ({"variant": "psp", "colour": "blue"}, {"variant": ["psp"]}, "psp"):
        torch.save(content | {"structure": odd}, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match="its structure is invalid"):
            read_checkpoint(tmp_path / "odd.pth")


def test_training_and_evaluation(folder_data, run_script):
    folder_data.values["model"] |= {"variant": "psp", "dropout": 0.1}
    folder_data.values.update(loss={"resolution": "full"}, optimizer={"min_lr": 1e-4})
    folder_data.values["augment"] = {"max_class_share": 0.75, "photometric": 0.5}
    config = folder_data.write()
    assert run_script("train", "--config", config).code == 0
    (best,) = folder_data.ckpt_dir.glob("icnet_psp_resnet18_1_*_best_model.pth")
    checkpoint = read_checkpoint(best)
    structure = {"variant": "psp", "ppm": "concat", "sub4_input": "sub2", "dropout": 0.1, "width": 0.25}
    assert checkpoint.structure == structure
    assert run_script("evaluate", f"test.ckpt_path={best}", f"train.ckpt_dir={folder_data.ckpt_dir}").code == 0
    command = ["train", "--config", config, f"train.ckpt_dir={folder_data.ckpt_dir}/again"]
    other = run_script(*command, "model.variant=published", f"model.weights={best}")
    assert other.code == 2 and "psp resnet18" in other.err and "unknown" in other.err
