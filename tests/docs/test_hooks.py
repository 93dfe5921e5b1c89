"""What the site's hooks make of formulas and notebooks."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"
NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"


def hook(name: str) -> ModuleType:
    pytest.importorskip("mkdocs", reason="the hooks are MkDocs'")
    pytest.importorskip("latex2mathml", reason="formulas are made by latex2mathml")
    spec = importlib.util.spec_from_file_location(f"hook_{name}", HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(content: str) -> str:
    where = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    return hook("mathml").on_page_content(content, page=where)


def parts(latex: str) -> list[tuple[str, str]]:
    tree = ET.fromstring(hook("mathml").mathml(latex, block=False))
    return [(node.tag.removeprefix(NAMESPACE), node.text or "") for node in tree.iter()]


def test_formulas_are_replaced_where_they_stand() -> None:
    text = page(
        r'<p>With <span class="arithmatex">\(a &lt; b\)</span> follows</p>'
        r'<div class="arithmatex">\[\sum_i x_i\]</div><p>\(not marked\)</p>'
    )
    assert text.startswith("<p>With <math")
    assert text.endswith(r"<p>\(not marked\)</p>")
    assert text.count("<math") == 2
    assert "arithmatex" not in text
    assert 'display="block"' in text.split('<div class="formula"')[1]


def test_punctuation_stays_with_its_formula() -> None:
    text = page(r'<p>at <span class="arithmatex">\(R = 4\)</span>, and</p>')
    assert '<span class="together"><math' in text
    assert text.endswith("</math>,</span> and</p>")


def test_a_formula_that_cannot_be_read_names_the_page() -> None:
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"page\.md.*farc"):
        page(r'<span class="arithmatex">\(\farc{1}{2}\)</span>')


@pytest.mark.parametrize(
    "latex",
    [
        r"|r_d| < |\mu_d|",
        r"\exp\Big(\frac{a}{b}\Big)^2",
        r"\overline{\hat W[-k \bmod N]}",
        r"f_d = \frac{1}{2 \pi} \sum_l \max_i |w_{l,i,d}|",
        r"\tfrac52 P \log_2 P",
    ],
)
def test_what_is_mended_is_still_a_tree(latex: str) -> None:
    tags = [tag for tag, _ in parts(latex)]
    assert tags[0] == "math"
    assert len(tags) > 5


def test_names_of_functions_stand_apart_and_indices_stay_theirs() -> None:
    assert [tag for tag, _ in parts(r"2 \ln x")][2:] == ["mn", "mspace", "mi", "mspace", "mi"]
    assert [tag for tag, _ in parts(r"\ln(x)")][2:4] == ["mi", "mo"]
    assert [tag for tag, _ in parts(r"(x) \ln y")][4:7] == ["mo", "mspace", "mi"]
    tree = ET.fromstring(hook("mathml").mathml(r"\log_2 P", block=False))
    (sub,) = tree.iter(f"{NAMESPACE}msub")
    assert [child.text for child in sub] == ["log", "2"]


def test_a_letter_under_a_hat_keeps_its_index() -> None:
    tree = ET.fromstring(hook("mathml").mathml(r"\hat W_H[k]", block=False))
    (sub,) = tree.iter(f"{NAMESPACE}msub")
    assert [child.tag.removeprefix(NAMESPACE) for child in sub] == ["mover", "mi"]


def test_bars_do_not_stand_apart() -> None:
    tree = ET.fromstring(hook("mathml").mathml(r"a |b| c", block=False))
    bars = [node for node in tree.iter(f"{NAMESPACE}mo") if node.text == "|"]
    assert [bar.get("lspace") for bar in bars] == ["0", "0"]


def test_large_brackets_have_their_names() -> None:
    texts = [text for _, text in parts(r"\Big\{ \big\lfloor a \big\rfloor \Big\}")]
    assert [text for text in texts if text] == ["{", "⌊", "a", "⌋", "}"]


def test_script_letters_are_characters() -> None:
    assert ("mi", "ℱ") in parts(r"\mathcal F")
    assert ("mi", "𝒩") in parts(r"\mathcal N")


def notebook(tmp_path: Path, cells: list[dict]) -> Path:
    path = tmp_path / "short.ipynb"
    path.write_text(json.dumps({"cells": cells}), "utf-8")
    return path


def code(source: str, outputs: list[dict], **metadata: str) -> dict:
    return {"cell_type": "code", "source": [source], "outputs": outputs, "metadata": metadata}


def picture() -> dict:
    return {"output_type": "display_data", "data": {"image/png": "AAAA", "text/plain": "<Figure>"}}


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"], "metadata": {}},
        code("print(1)", [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]),
        code("plot()", [picture()], alt="A line."),
        code("", []),
    ]
    text, pictures = hook("notebooks").as_page(notebook(tmp_path, cells))
    assert text.startswith("# Title\ntext\n\n[Download this notebook](short.ipynb){ download }\n")
    assert "```python\nprint(1)\n```\n\n``` { .text .output }\n1\n```" in text
    assert text.endswith("![A line.](short-2-0.png)\n")
    assert pictures == {"short-2-0.png": b"\0\0\0"}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (picture(), "alternative text"),
        ({"output_type": "stream", "name": "stderr", "text": ["warning"]}, "no page shows"),
        ({"output_type": "error", "ename": "ValueError"}, "no page shows"),
    ],
)
def test_a_notebook_that_may_not_be_shown_is_refused(
    tmp_path: Path, output: dict, message: str
) -> None:
    notebooks = hook("notebooks")
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=message):
        notebooks.as_page(notebook(tmp_path, [code("run()", [output])]))
