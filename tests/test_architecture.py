"""The code is built as docs/architecture.md describes it, and --help needs none of the heavy imports."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

import pytest

REPOSITORY = Path(__file__).parent.parent
SCRIPTS = ("train", "evaluate", "inference")
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
FIGURE = ElementTree.parse(REPOSITORY / "docs" / "architecture.svg")
ROOMS = {box.get("data-room"): int(box.get("data-floor")) for box in FIGURE.iter() if box.get("data-room")}


def source_files() -> dict[str, Path]:
    """Return the project's source files by their module names."""
    folders = [
        path for name in ("models", "dataset", "demo", "utils", "tools") for path in (REPOSITORY / name).rglob("*.py")
    ]
    files = [*folders, *(REPOSITORY / f"{name}.py" for name in SCRIPTS)]
    return {".".join(f.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def room_of(path: Path) -> str | None:
    """Return the room that a file belongs to."""
    name = path.relative_to(REPOSITORY).as_posix()
    return next((room for room in ROOMS if name == room or (room.endswith("/") and name.startswith(room))), None)


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the project's modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= submodules & set(known) or {node.module}
    return found & set(known)


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    known = source_files()
    return {module: imports_of(path, known) for module, path in known.items()}


def test_imports_are_found(imports):
    assert {"models.icnet", "utils.inference.run", "train", "tools.benchmark"} <= set(imports)
    assert {"models", "utils.runtime", "utils.training.trainer"} <= imports["train"]


def test_every_file_has_a_room_and_every_room_exists():
    homeless = [str(path) for path in source_files().values() if room_of(path) is None]
    assert [path for path in homeless if not path.endswith("utils/__init__.py")] == []
    assert all((REPOSITORY / room).exists() for room in ROOMS)
    assert {room.split("/")[1] for room in ROOMS if room.startswith("utils/")} == {
        path.name for path in (REPOSITORY / "utils").iterdir() if path.name not in ("__init__.py", "__pycache__")
    }


def test_there_are_no_import_cycles(imports):
    TopologicalSorter(imports).prepare()  # a CycleError names the modules


def test_imports_lead_down_or_stay_in_the_room(imports):
    known, wrong = source_files(), []
    for module, others in imports.items():
        for other in others:
            here, there = room_of(known[module]), room_of(known[other])
            if here != there and here is not None and ROOMS[here] <= ROOMS.get(there, -1):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_walks_are_short_and_lead_through_existing_places():
    walks = re.split(r"^\*\*", PAGE.partition("## Four code paths")[2], flags=re.MULTILINE)[1:]
    assert len(walks) == 4
    for walk in walks:
        assert len(re.findall(r"^\d\. ", walk, flags=re.MULTILINE)) <= 6
    for file, name in re.findall(r"`([\w/]+\.py): ([\w.]+)`", PAGE):
        names: set[str] = set()
        for node in ast.parse((REPOSITORY / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names |= {
                    node.name,
                    *(f"{node.name}.{sub.name}" for sub in ast.walk(node) if isinstance(sub, ast.FunctionDef)),
                }
        assert name in names, f"{file} has no {name}"


def test_pip_refuses_to_install_it():
    done = subprocess.run([sys.executable, "setup.py", "bdist_wheel"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1 and "README.md" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_does_not_import_torch(script):
    command = [sys.executable, "-X", "importtime", f"{script}.py", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "section.key=value" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "utils.cli" in modules and not modules & {"torch", "torchvision", "numpy", "cv2"}
