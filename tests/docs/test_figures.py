"""The pictures of the theory pages are those that their program draws."""

from __future__ import annotations

import importlib.util
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("theory_figures", DOCS / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def defaults() -> Iterator[None]:
    with mpl.rc_context(), torch.random.fork_rng():
        mpl.rcdefaults()
        yield


def referenced() -> set[str]:
    text = "\n".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    return set(re.findall(r"\]\((?:\.\./)?images/(theory_\w+\.png)\)", text))


def size(path: Path) -> tuple[int, int]:
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_every_picture_is_shown_and_every_shown_one_is_drawn(figures: ModuleType) -> None:
    drawn = {f"theory_{make.__name__}.png" for make in figures.FIGURES}
    assert drawn == referenced() == {path.name for path in (DOCS / "images").glob("theory_*.png")}


@pytest.mark.parametrize("name", sorted(referenced()))
def test_pictures_are_of_a_size_to_read(name: str) -> None:
    path = DOCS / "images" / name
    width, height = size(path)
    assert 600 <= width <= 1200
    assert 250 <= height <= 700
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("name", ["flexconv_window", "diffstride_window", "diffstride_image"])
@pytest.mark.usefixtures("defaults")
def test_a_picture_is_the_same_each_time(figures: ModuleType, name: str, tmp_path: Path) -> None:
    if name == "diffstride_image":
        pytest.importorskip("sklearn", reason="the photograph is scikit-learn's")
    for copy in ("one.png", "other.png"):
        getattr(figures, name)().savefig(tmp_path / copy, dpi=50, metadata={"Software": None})
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("defaults")
def test_all_are_drawn_at_the_size_of_those_that_are_shown(
    figures: ModuleType, tmp_path: Path
) -> None:
    for path in figures.draw(tmp_path):
        assert size(path) == size(DOCS / "images" / path.name)
