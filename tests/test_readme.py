"""What the documents say of the network and of the files beside them, held to both."""

import json
import re
from collections import defaultdict
from pathlib import Path
from textwrap import indent
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import models.layers
import models.resnet
import utils.data
from dataset.images import read_mask
from dataset.pairs import Sample
from models import ICNet
from utils.config import Config, DatasetConfig, load_config
from utils.settings import flatten

ROOT = Path(__file__).parent.parent
FIGURES = {"published": "icnet.svg", "paper": "icnet_paper.svg"}
DOCUMENTS = [path for pattern in ("*.md", "*/*.md", "*/*.ipynb") for path in sorted(ROOT.glob(pattern))]


@pytest.fixture(scope="module", params=FIGURES)
def network(request: pytest.FixtureRequest) -> ICNet:
    with torch.device("meta"):
        return ICNet(num_classes=19, variant=request.param)


@pytest.fixture(scope="module")
def figure(network: ICNet) -> ElementTree.ElementTree:
    return ElementTree.parse(ROOT / "docs" / FIGURES[network.structure["variant"]])


@pytest.fixture(scope="module")
def shapes(network: ICNet) -> dict[str, str]:
    """Run an image of 2048x1024, or for the paper 2049x1025, through the network; return the shape of every tensor.

    It runs in training and in evaluation. Keys are `MODULE:CALL` for what a module returns and `in:MODULE:CALL` for
    what it receives; call 0 of the backbone is sub2's, call 1 sub4's.
    """
    found, calls = {}, defaultdict(int)

    def note(name: str, taken: tuple, given: object) -> None:
        call, calls[name] = calls[name], calls[name] + 1
        given = given[0] if isinstance(given, tuple) else given
        found[f"in:{name}:{call}"], found[f"{name}:{call}"] = _text(taken[0]), _text(given)

    hooks = [
        module.register_forward_hook(lambda _, taken, given, name=name: note(name, taken, given))
        for name, module in network.named_modules()
        if name
    ]
    more = network.structure["variant"] == "paper"
    image = torch.empty(1, 3, 1024 + more, 2048 + more, device="meta")
    outputs = network.train()(image)
    for hook in hooks:
        hook.remove()
    found |= {f"training:{name}": _text(logits) for name, logits in outputs.items()}
    return found | {"image": _text(image), "evaluation:out": _text(network.eval()(image)["out"])}


def test_every_arrow_of_the_figure_has_the_shape_that_the_network_gives(
    shapes: dict[str, str], figure: ElementTree.ElementTree
):
    drawn = [(text.get("data-shape"), text.text) for text in figure.iter() if text.get("data-shape")]
    arrows = [path for path in figure.iter() if path.get("class", "").startswith("arrow")]
    assert len(drawn) == len(arrows) > 20
    assert drawn == [(key, shapes[key]) for key, _ in drawn]


def test_every_box_of_the_figure_is_named_as_in_the_code(network: ICNet, figure: ElementTree.ElementTree):
    boxes = [(box.get("data-box"), box.find("{*}text").text) for box in figure.iter() if box.get("data-box")]
    parts = {name for name, module in network.named_children() if not isinstance(module, torch.nn.Identity)}
    assert {key.split(".")[0] for key, _ in boxes} >= parts
    for key, name in boxes:
        if hasattr(models.layers, key):
            assert name == key
        else:
            attributes = " … ".join(part.rpartition(".")[2] for part in key.split())
            assert name in (attributes, type(network.get_submodule(key.split()[0])).__name__)


def test_the_changelog_and_the_citation_name_the_same_version_and_date():
    changelog, citation = ((ROOT / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff"))
    newest = re.search(r"^## (\S+) - (\S+)$", changelog, flags=re.MULTILINE)
    cited = re.search(r"^version: (\S+)\ndate-released: (\S+)$", citation, flags=re.MULTILINE)
    assert newest.groups() == cited.groups()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        assert not heading or heading in _anchors(path), target


def test_the_table_of_variants_counts_the_parameters_of_the_networks_with_published_weights():
    (row,) = re.findall(r"^\| parameters \| (.+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    backbones = {"published": "resnet50_v1s", "psp": "resnet50_v1c", "paper": "resnet50_v1s"}
    with torch.device("meta"):
        networks = [ICNet(19, backbone, variant=variant) for variant, backbone in backbones.items()]
    counts = [sum(parameter.numel() for parameter in network.parameters()) / 1e6 for network in networks]
    assert row.split(" | ") == [f"{count:.1f} M" for count in counts]


def test_the_table_of_variants_counts_their_arithmetic():
    (row,) = re.findall(r"^\| GFLOP .+$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    backbones = {"published": "resnet50_v1s", "psp": "resnet50_v1c", "paper": "resnet50_v1s"}
    for text, (variant, backbone) in zip(re.findall(r"\| ([\d.]+) \(", row), backbones.items(), strict=True):
        height, width = (1025, 2049) if variant == "paper" else (1024, 2048)
        with torch.device("meta"):
            network, image = ICNet(19, backbone, variant=variant).eval(), torch.empty(1, 3, height, width)
        with FlopCounterMode(display=False) as counter:
            network(image)
        assert counter.get_total_flops() / 1e9 == pytest.approx(float(text), rel=3e-3)


def _text(tensor: torch.Tensor) -> str:
    return "\N{MULTIPLICATION SIGN}".join(map(str, tensor.shape[1:]))


def _prose(path: Path) -> str:
    """Return a document without its blocks of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(path: Path) -> set[str]:
    """Return what the headings of a document are linked by, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", _prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_code_that_adds_a_dataset_and_a_backbone_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset, branch, resnet = _python_blocks(ROOT / "docs" / "extending.md")
    (tmp_path / "val.txt").write_text("images/0.jpg masks/0.png\n", encoding="utf-8")
    scope = {}
    exec(dataset, scope)
    body = f"def find_pairs(config, split):\n{indent(branch, '    ')}"
    exec(body, scope | vars(utils.data), extended := {})
    config = DatasetConfig(root=str(tmp_path), classes=("road", "building", "car"))
    object.__setattr__(config, "name", "listed")
    pairs, classes, train_ids = extended["find_pairs"](config, "val")
    assert pairs.complete() == [Sample(tmp_path / "images/0.jpg", tmp_path / "masks/0.png")]
    assert len(classes) == 3 and train_ids[[7, 11, 26, 0]].tolist() == [0, 1, 2, 255]

    monkeypatch.setattr(models.resnet, "LAYERS", dict(models.resnet.LAYERS))
    exec(resnet, vars(models.resnet))
    monkeypatch.setattr(models.resnet, "BACKBONES", ("resnet26",))
    network = models.resnet.DilatedResNet("resnet26").eval()
    assert network(torch.zeros(1, 3, 70, 97)).shape == (1, network.deep_channels, 9, 13)


def test_code_that_converts_masks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    imports, *programs = _python_blocks(ROOT / "docs" / "training.md")[0].split("\n\n")
    colors = np.array([[[128, 64, 128], [0, 0, 0], [244, 35, 232]]], np.uint8)
    cases = {  # by what identifies the program: the old mask and the new one
        "mask > 0": (np.array([[0, 255, 255]], np.uint8), [0, 1, 1]),
        "mask - 1": (np.array([[0, 1, 255, 3]], np.uint8), [255, 0, 255, 2]),
        "16 bits": (np.array([[0, 3, 255]], np.uint16), [0, 3, 255]),
        "rgb": (colors, [0, 255, 1]),
    }
    assert len(programs) == len(cases)
    for program, (words, (old, expected)) in zip(programs, cases.items(), strict=True):
        assert words in program
        for name in ("old.png", "colors.png"):
            Image.fromarray(old).save(name)
        exec(f"{imports}\n{program}", {})
        assert read_mask(tmp_path / "new.png").tolist() == [expected]


def test_the_networks_outputs_are_those_that_the_readme_shows(capsys: pytest.CaptureFixture):
    (program,) = _python_blocks(ROOT / "README.md")
    with torch.device("meta"):
        exec(program, {})
    (shown,) = re.findall(r"# (out .+)$", program, flags=re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == re.findall(r"\w+ \(.+?\)", shown)


def _python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_in_the_documents_exist(document):
    known = set(flatten(Config().as_dict())) | {"test.tta", "dataset.train", "dataset.val"}
    pattern = rf"(?<![\w./])((?:{'|'.join(Config.model_fields)})(?:\.\w+)+)="
    assert set(re.findall(pattern, document.read_text(encoding="utf-8"))) <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_in_the_documents_exist(document):
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for script, rest in re.findall(r"python ((?:\w+/)?\w+\.py)([^`\n#]*)", text):
        files = [script, "utils/cli.py", "utils/inference/options.py"][: 3 if script == "inference.py" else 2]
        sources = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= set(re.findall(r'"(--[a-z-]+)"', sources)), script


def test_configurations_in_the_readme_load():
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        load_config(yaml.safe_load(block))
