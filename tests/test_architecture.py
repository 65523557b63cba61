"""Imports go down, never up or in circles, and answering --help needs none of the heavy ones."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SCRIPTS = ("train", "evaluate", "inference")
# From the ground up, what lies on one line being unknown to each other; utils has a floor of its own for each script.
FLOORS = (
    ("models", "dataset", "demo.streets"),
    ("utils",),
    ("utils.training", "utils.evaluation"),
    SCRIPTS,
    ("tools",),  # one of them trains as train.py does
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def source_files() -> dict[str, Path]:
    folders = [
        path for name in ("models", "dataset", "demo", "utils", "tools") for path in (REPOSITORY / name).rglob("*.py")
    ]
    return {module_of(path): path for path in [*folders, *(REPOSITORY / f"{name}.py" for name in SCRIPTS)]}


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the project's modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out in full"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= submodules & set(known) or {node.module}
    return found & set(known)


def room_of(module: str) -> tuple[int, str]:
    """Return a module's floor, and the room on it."""
    rooms = [(floor, room) for floor, names in enumerate(FLOORS) for room in names]
    return max(((f, r) for f, r in rooms if f"{module}.".startswith(f"{r}.")), key=lambda place: len(place[1]))


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    known = source_files()
    return {module: imports_of(path, known) for module, path in known.items()}


def test_the_imports_are_found(imports):
    assert {"models.icnet", "utils.inference.run", "train", "tools.benchmark"} <= set(imports)
    assert {"models", "utils.runtime", "utils.training.trainer"} <= imports["train"]


def test_no_circles(imports):
    TopologicalSorter(imports).prepare()  # a CycleError names the modules


def test_no_import_goes_up_or_to_a_neighbour(imports):
    wrong = []
    for module, others in imports.items():
        floor, room = room_of(module)
        for other in others:
            below, theirs = room_of(other)
            if below > floor or (below == floor and theirs != room):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_every_package_is_installed():
    packages = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").partition("packages = ")[2].splitlines()[0]
    found = {
        module_of(path) for name in ("models", "dataset", "demo", "utils") for path in (REPOSITORY / name).rglob("*.py")
    }
    assert {name for name in found if source_files()[name].name == "__init__.py"} == set(ast.literal_eval(packages))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_comes_without_torch(script):
    command = [sys.executable, "-X", "importtime", f"{script}.py", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "section.key=value" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "utils.cli" in modules and not modules & {"torch", "torchvision", "numpy", "cv2"}
