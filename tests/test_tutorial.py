"""demo/tutorial.ipynb: it runs, and what it shows in the repository is complete, small and of no particular machine."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "demo" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def notebook() -> dict:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def outputs_of(notebook: dict) -> dict[str, list[dict]]:
    """Return the outputs of each code cell by its id."""
    return {cell["id"]: cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"}


def text_of(outputs: list[dict]) -> str:
    """Return everything that a cell's outputs say in text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join("".join(text) for text in texts)


def test_outputs_are_of_one_run_without_errors(notebook):
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    for name, outputs in outputs_of(notebook).items():
        assert not re.search(r"error:|Traceback|Warning", text_of(outputs)), name
        kinds = {output["output_type"] for output in outputs} | {output.get("name") for output in outputs}
        assert not kinds & {"error", "stderr"}, name
        assert "\r" not in text_of(outputs).replace("\r\n", "\n"), f"{name} has progress bars; see demo/README.md"


def test_outputs_are_small_and_name_nothing_of_the_machine(notebook):
    assert NOTEBOOK.stat().st_size < 300_000
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"}, f"{cell['id']} has times; see demo/README.md"
    for name, outputs in outputs_of(notebook).items():
        assert not re.search(r"(?<![\w.*])/\w|[A-Za-z]:\\|~/", text_of(outputs)), name


def test_it_runs(tmp_path, monkeypatch):
    for package in ("ipykernel", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook, folder = nbformat.read(NOTEBOOK, as_version=4), tmp_path / "out"
    parameters = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    small = f"folder = {folder.as_posix()!r}\ntrain_images, val_images, epochs = 4, 1, 1"
    notebook.cells.insert(parameters + 1, nbformat.v4.new_code_cell(small, id="small"))
    before = _files()
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}  # where Jupyter starts it
    nbclient.NotebookClient(notebook, timeout=900, resources=where).execute()
    assert _files() == before

    outputs = outputs_of(notebook)
    assert "no problems" in text_of(outputs["check-data"])
    assert "epoch   1/1" in text_of(outputs["train"])
    metrics = json.loads((folder / "run" / "evaluate_output" / "metrics.json").read_text())
    classes = ["ground", "building", "nature", "sky", "traffic"]
    assert list(metrics["class_iou"]) == classes and metrics["images"] == 1
    assert re.findall(r"(\w+) \d+%", text_of(outputs["run-onnx"])) == classes
    pictures = {cell for cell, given in outputs.items() if any("image/jpeg" in one.get("data", {}) for one in given)}
    assert pictures == {"overlays", "check-data", "show-curves", "show-worst", "predict", "run-onnx"}


def _files() -> set[Path]:
    """Return what is in the folders of the repository that the scripts may write to, without Python's caches."""
    found = [*(ROOT / "demo").rglob("*"), *(ROOT / "ckpt").rglob("*"), *(ROOT / "data").glob("*"), *ROOT.glob("*")]
    return {path for path in found if "cache" not in str(path)}
