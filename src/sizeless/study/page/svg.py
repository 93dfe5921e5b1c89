"""Matplotlib figures as part of an HTML page: their text stays text, their greys are the page's.

What a figure draws with the four greys of ``sizeless.study.style``, in black or in white takes the
colours of the page's theme. Other lines and areas are lighter in the dark theme, as dark ones would
be lost there. Images keep their colours, and so do meshes and filled contours, beside which there
may be a scale, what is drawn on top of them, and every artist whose ``gid`` is ``"as-is"``.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib as mpl
from matplotlib.figure import Figure

from sizeless.study.page.colors import in_both_themes
from sizeless.study.page.marks import Anchor, anchor, marked
from sizeless.study.page.mathtext import flow

MOST = 400_000
"""Letters of a drawing; a larger one is an image."""
DPI = 192
"""Of images, in a drawing or in place of it: two pixels of the image for one of the page."""
PIXELS_PER_INCH = 96
"""Of a page, by the definition of CSS."""
COLORED = re.compile(r"(QuadMesh|QuadContourSet|as-is)")
PAINTS = {"fill", "stroke", "stop-color"}
SETTINGS: dict[Any, Any] = {
    "savefig.bbox": None,
    "savefig.facecolor": "auto",
    "savefig.transparent": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sizeless",
    "svg.image_inline": True,
}


@dataclass(frozen=True)
class Drawing:
    """A figure as a page holds it.

    Attributes:
        svg: The SVG element, or ``""`` if the figure is an image.
        image: Address of the image, which holds its data, or ``""``.
        width: Its natural size, in pixels of CSS.
        height: The same.
    """

    svg: str
    image: str
    width: int
    height: int


def draw(figure: Figure, alt: str, *, prefix: str, most: int = MOST) -> Drawing:
    """Draw a figure for a page; the same figure gives the same text.

    Args:
        figure: The figure.
        alt: Its alternative text.
        prefix: Beginning of the names inside, different for every figure of a page.
        most: Letters of its SVG; if there are more the figure becomes a PNG image.
    """
    width, height = (round(PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    with _settings(), marked(figure) as anchors:
        svg = _svg(figure)
        # A file of this size takes long to read, for a page that is too large anyway.
        drawn = _themed(svg, alt, prefix, anchors) if len(svg) <= 4 * most else svg
        if len(drawn) <= most:
            return Drawing(drawn, "", width, height)
        return Drawing("", _png(figure), width, height)


@contextmanager
def _settings() -> Iterator[None]:
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # The page has fonts for the letters that Matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", dpi=DPI, metadata=nothing)
    return file.getvalue()


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _themed(svg: str, alt: str, prefix: str, anchors: Sequence[Anchor]) -> str:
    """The SVG element of a file by Matplotlib, fit to stand in a page."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.tail = None
        if element.tag not in {"text", "tspan"} or len(element):
            element.text = None
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
    _strip(root)
    flow(root)
    anchor(root, anchors)
    _paint(root)
    _rename(root, prefix)
    box = root.get("viewBox", "")
    root.attrib = {"viewBox": box, "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode").strip()


def _local(name: str) -> str:
    """A name without its namespace: HTML gives SVG elements theirs."""
    return name.rpartition("}")[2]


def _strip(root: Element) -> None:
    """Take away what describes the file, and rules that would hold for all of a page."""
    for child in list(root):
        if child.tag == "metadata" or [inner.tag for inner in child] == ["style"]:
            root.remove(child)


def _paint(root: Element, *, as_is: bool = False) -> None:
    """Put the page's colours in place of the figure's, and its fonts."""
    for element in root:
        declared = element.get("style")
        if declared:
            element.set("style", _style(declared, element.tag, as_is))
        marked = bool(COLORED.match(element.get("id", "")))
        if marked and not as_is:
            # What Matplotlib draws in black has no colour of its own.
            element.set("style", "fill:#000")
        _paint(element, as_is=as_is or marked)


def _style(declared: str, tag: str, as_is: bool) -> str:
    pairs = [part.partition(":")[::2] for part in declared.split(";")]
    properties = {name.strip(): value.strip() for name, value in pairs if name.strip()}
    if "mono" in properties.pop("font-family", "").lower():
        properties["font-family"] = "var(--mono)"
    if "font" in properties:
        # Before version 3.10, Matplotlib wrote one property for all of the font.
        properties["font"] = properties["font"].partition("px")[0] + "px var(--sans)"
    written = []
    for name, value in properties.items():
        # White text was chosen for what lies below it.
        white_text = value == "#ffffff" and tag in {"text", "tspan", "g"}
        themed = name in PAINTS and not as_is and not white_text
        written += [f"{name}:{one}" for one in (in_both_themes(value) if themed else [value])]
    return ";".join(written)


def _rename(root: Element, prefix: str) -> None:
    """Give short names of their own to what is referred to, and none to the rest."""
    reference = re.compile(r"url\(#([^)]+)\)")
    used: dict[str, str] = {}
    names = (f"{prefix}_{number}" for number in itertools.count(1))

    def renamed(old: str) -> str:
        if old not in used:
            used[old] = next(names)
        return used[old]

    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href" and value.startswith("#"):
                element.set(name, "#" + renamed(value[1:]))
            elif name == "href":
                # Base64 has no blanks, but Matplotlib begins it on a new line.
                element.set(name, "".join(value.split()) if value.startswith("data:") else value)
            elif "url(#" in value:
                element.set(name, reference.sub(lambda m: f"url(#{renamed(m[1])})", value))
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            element.set("id", used[old])
