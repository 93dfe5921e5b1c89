"""The Python examples of the documentation run."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```)?", re.MULTILINE | re.DOTALL
)
ROUNDING = re.compile(r"\b\d(\.\d+)?e-\d\d\b")
"""Errors of rounding, which differ between machines."""
OPTIONAL = {"accelerate"}
"""Packages of which an example may speak although nothing of ours installs them."""

Golden = Callable[..., dict[str, torch.Tensor]]


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Code blocks of a page, and the output that a block of text just behind says they have.

    The code comes after as many empty lines as there are before it on the page.
    """
    text = page.read_text("utf-8")
    return [
        ("\n" * (text.count("\n", 0, block.start()) + 1) + block["code"], block["output"])
        for block in BLOCK.finditer(text)
    ]


def missing(code: str) -> set[str]:
    """Optional packages that an example imports and that are not there."""
    imports = [
        node for node in ast.parse(code).body if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    packages = {name.split(".")[0] for name in names} & OPTIONAL
    return {package for package in packages if importlib.util.find_spec(package) is None}


def state(golden: Golden, name: str, prefix: str) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix): value
        for key, value in golden(name).items()
        if key.startswith(prefix)
    }


@pytest.fixture
def checkpoints(tmp_path: Path, golden: Golden) -> None:
    """Files of the papers' programs, under the names that the migration pages give them."""
    torch.save(state(golden, "flextcn2_official", "state_dict/"), tmp_path / "flextcn2.pt")
    torch.save(state(golden, "niff_official", "split_small_14/param/"), tmp_path / "niff_split.pt")


def words(output: str) -> list[str]:
    return ROUNDING.sub("#", output).split()


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES if examples(page)])
def test_examples_run_and_print_what_the_page_says(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for code, output in examples(ROOT / page):
        if missing(code):
            continue
        capsys.readouterr()
        exec(compile(code, page, "exec"), names)
        if output is not None:
            assert words(capsys.readouterr().out) == words(output)


def test_an_example_keeps_its_line_numbers_and_its_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\n1 / 0\n```\n\n```text\n5 1.2e-07\n```\n", "utf-8")
    ((code, output),) = examples(page)
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile(code, "page.md", "exec"), {})
    assert caught.traceback[-1].lineno + 1 == 4
    assert words(output) == words("5   3e-08\n")
