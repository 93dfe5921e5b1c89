"""The notebooks hold outputs that may be shown, and run."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(name: str) -> list[dict]:
    cells = json.loads((FOLDER / name).read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(cells: list[dict]) -> str:
    outputs = [output for cell in cells for output in cell["outputs"]]
    texts = [output.get("text", output.get("data", {}).get("text/plain", [])) for output in outputs]
    return "\n".join("".join(text) for text in texts)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS == [
        "convert_train_fold.ipynb",
        "learn_a_kernel_size.ipynb",
        "look_at_learned_filters.ipynb",
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_those_of_one_run_without_errors_or_warnings(name: str) -> None:
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)
    for cell in cells:
        assert {output["output_type"] for output in cell["outputs"]} <= {
            "stream",
            "display_data",
            "execute_result",
        }
        assert all(output.get("name") != "stderr" for output in cell["outputs"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_hold_no_paths_and_no_times(name: str) -> None:
    text = printed(code_cells(name))
    assert not re.search(r"/(home|tmp|root|usr|work)\b|\\Users|0x[0-9a-f]{6}", text)
    assert not re.search(r"\d\s*(s|ms|seconds)\b", text)
    assert "arning" not in text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pictures_have_alternative_text_and_files_stay_small(name: str) -> None:
    for cell in code_cells(name):
        pictures = [out for out in cell["outputs"] if "image/png" in out.get("data", {})]
        assert not pictures or len(cell["metadata"]["alt"]) > 30
    assert (FOLDER / name).stat().st_size < 300_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason=f"notebooks run by {package}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("SIZELESS_CACHE", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fresh = loaded(FOLDER / "execute.py").executed(FOLDER / name)
    kinds = [[output["output_type"] for output in cell["outputs"]] for cell in code_cells(name)]
    cells = [cell for cell in fresh.cells if cell.cell_type == "code"]
    assert [[output.output_type for output in cell.outputs] for cell in cells] == kinds
