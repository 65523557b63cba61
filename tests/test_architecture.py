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
MODULES = {box.get("data-room"): int(box.get("data-floor")) for box in FIGURE.iter() if box.get("data-room")}


def source_files() -> dict[str, Path]:
    """Return the project's source files by their module names."""
    folders = [
        path for name in ("models", "dataset", "demo", "utils", "tools") for path in (REPOSITORY / name).rglob("*.py")
    ]
    files = [*folders, *(REPOSITORY / f"{name}.py" for name in SCRIPTS)]
    return {".".join(f.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def module_of(path: Path) -> str | None:
    """Return the module of the figure that a file belongs to."""
    name = path.relative_to(REPOSITORY).as_posix()
    return next(
        (module for module in MODULES if name == module or (module.endswith("/") and name.startswith(module))), None
    )


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


def test_every_file_has_a_module_and_every_module_exists():
    without = [str(path) for path in source_files().values() if module_of(path) is None]
    assert [path for path in without if not path.endswith("utils/__init__.py")] == []
    assert all((REPOSITORY / module).exists() for module in MODULES)
    assert {module.split("/")[1] for module in MODULES if module.startswith("utils/")} == {
        path.name for path in (REPOSITORY / "utils").iterdir() if path.name not in ("__init__.py", "__pycache__")
    }


def test_there_are_no_import_cycles(imports):
    TopologicalSorter(imports).prepare()  # a CycleError names the modules


def test_imports_lead_down_or_stay_in_the_module(imports):
    known, wrong = source_files(), []
    for module, others in imports.items():
        for other in others:
            here, there = module_of(known[module]), module_of(known[other])
            if here != there and here is not None and MODULES[here] <= MODULES.get(there, -1):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_code_paths_have_at_most_six_steps_through_existing_functions():
    paths = re.split(r"^\*\*", PAGE.partition("## Four code paths")[2], flags=re.MULTILINE)[1:]
    assert len(paths) == 4
    for path in paths:
        assert 2 <= len(re.findall(r"^\d\. ", path, flags=re.MULTILINE)) <= 6
    places = re.findall(r"`([\w/]+\.py): ([\w.]+)`", PAGE)
    assert len(places) > 20
    for file, name in places:
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
