"""Links, anchors and pictures of the documentation, and that no page needs the network."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
PARTS = dict.fromkeys(("msub", "msup", "mfrac", "mover", "munder", "mroot"), 2) | {
    "msubsup": 3,
    "munderover": 3,
}
"""Parts that an element of a formula has to have."""
LOADING = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload"}


def text_of(page: Path) -> str:
    """A page without its code."""
    fenced = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", fenced)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pictures_exist_and_say_in_words_what_they_show(page: Path) -> None:
    for alt, target in PICTURE.findall(text_of(page)):
        assert len(alt) > 30, target
        assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_elsewhere_are_well_formed(page: Path) -> None:
    for target in LINK.findall(text_of(page)):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", target
            assert re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc), target
            assert not target.endswith((".", ",", ":")), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_files_lead_to_files(page: Path) -> None:
    pages_of_notebooks = {path.stem for path in (ROOT / "examples/notebooks").glob("*.ipynb")}
    for target in LINK.findall(text_of(page)):
        parts = urlsplit(target)
        if parts.scheme or not parts.path:
            continue
        path = page.parent / parts.path
        is_notebook = path.parent.name == "notebooks" and path.stem in pages_of_notebooks
        assert is_notebook or path.exists(), target


@dataclass
class Parsed(HTMLParser):
    """What a page of the built site refers to."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    formulas: list[str] = field(default_factory=list)
    _depth: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])
        if tag == "link" and LOADING & set(values.get("rel", "").split()):
            self.loaded.append(values["href"])
        if tag == "img":
            self.pictures.append((values["src"], values.get("alt", "")))
        self._depth += tag == "math"

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "math"

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.formulas.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package, reason=f"the site is built with {package}")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Parsed]:
    parsed = {}
    for path in sorted(site.rglob("*.html")):
        parsed[path] = Parsed()
        parsed[path].feed(path.read_text("utf-8"))
    return parsed


@pytest.mark.slow
def test_internal_links_and_anchors_resolve(site: Path, pages: dict[Path, Parsed]) -> None:
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                assert anchor in pages[target].ids, f"{path.relative_to(site)}: {link}"


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[Path, Parsed]) -> None:
    assert any(page.loaded for page in pages.values())
    for path, page in pages.items():
        for link in page.loaded:
            assert not urlsplit(link).netloc, f"{path.relative_to(site)}: {link}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text("utf-8")), style


@pytest.mark.slow
def test_pictures_of_the_site_are_there_and_have_words(
    site: Path, pages: dict[Path, Parsed]
) -> None:
    assert sum(len(page.pictures) for page in pages.values()) > 15
    for path, page in pages.items():
        for source, alt in page.pictures:
            assert alt, f"{path.relative_to(site)}: {source}"
            assert (path.parent / unquote(source)).is_file(), f"{path.relative_to(site)}: {source}"


@pytest.mark.slow
def test_every_part_of_a_formula_is_whole(pages: dict[Path, Parsed]) -> None:
    counted = 0
    for path in pages:
        for formula in re.findall(r"<math.*?</math>", path.read_text("utf-8"), re.DOTALL):
            for node in ET.fromstring(formula).iter():
                wanted = PARTS.get(node.tag.rpartition("}")[2], len(node))
                assert len(node) == wanted, f"{path}: {formula}"
                counted += 1
    assert counted > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["sizeless", "sizeless.models", "sizeless.export", "sizeless.compat", "sizeless.study"],
)
def test_every_public_name_is_in_the_reference(
    site: Path, pages: dict[Path, Parsed], module: str
) -> None:
    public = importlib.import_module(module)
    anchors = pages[site / "api" / "index.html"].ids
    for exported in public.__all__:
        target = getattr(public, exported)
        if not isinstance(target, ModuleType):
            homes = module, target.__module__, "sizeless.nn"
            assert {f"{home}.{exported}" for home in homes} & anchors, f"{module}.{exported}"


@pytest.mark.slow
def test_all_formulas_are_drawn_in_letters_that_the_font_has(
    site: Path, pages: dict[Path, Parsed]
) -> None:
    tools = pytest.importorskip("fontTools.ttLib", reason="fonts are read by fontTools")
    known = set(tools.TTFont(BytesIO((site / "fonts/math.woff").read_bytes())).getBestCmap())
    used = {ord(letter) for page in pages.values() for text in page.formulas for letter in text}
    assert len(used) > 60
    assert not {chr(code) for code in used - known if not chr(code).isspace()}
    for path in pages:
        assert "arithmatex" not in path.read_text("utf-8"), path
