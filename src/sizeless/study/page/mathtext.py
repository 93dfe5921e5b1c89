"""Formulas of a figure, set in the page's font."""

from __future__ import annotations

from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement

STACKED = 0.25
"""Letters that are nearer to each other, in units of their size, stand one above the other."""
LETTER = 0.6
"""Width of a letter in units of its size, about."""


def flow(root: Element) -> None:
    """Let the letters of each formula follow one another.

    Matplotlib sets every letter of a formula at a place of its own, for the widths of its own font;
    a narrower one would leave gaps. Formulas with fractions, roots or accents stay as they are.

    Args:
        root: An SVG element, changed in place.
    """
    for group in list(root.iter("g")):
        if [child.tag for child in group] == ["text"] and len(group[0]):
            _flow(group[0])


def _flow(text: Element) -> None:
    if any(" " in letter.get("x", "") for letter in text):
        # Before version 3.10, one element held several letters, each with its place.
        return
    letters = sorted(text, key=lambda letter: _number(letter, "x"))
    places, sizes = [_number(letter, "x") for letter in letters], [_size(each) for each in letters]
    gaps = [after - before for before, after in pairwise(places)]
    if any(gap < STACKED * size for gap, size in zip(gaps, sizes, strict=False)):
        return
    for letter in letters:
        text.remove(letter)
    # The left edge of a formula is known for the widths of another font, so its middle is kept.
    middle = (places[0] + places[-1] + LETTER * sizes[-1]) / 2
    text.attrib |= {
        "x": f"{middle:.6g}",
        "y": letters[0].get("y", "0"),
        "style": "text-anchor: middle",
    }
    height = _number(letters[0], "y")
    run: Element | None = None
    for letter in letters:
        level, style = _number(letter, "y"), letter.get("style", "")
        if run is None or level != height or run.get("style") != style:
            run = SubElement(text, "tspan", {"dy": f"{level - height:.6g}", "style": style})
            run.text, height = "", level
        run.text = (run.text or "") + (letter.text or "")


def _number(letter: Element, name: str) -> float:
    return float(letter.get(name, "0"))


def _size(letter: Element) -> float:
    """Size of a letter, given on its own or, before Matplotlib 3.10, within ``font``."""
    style = letter.get("style", "")
    return float(style.partition("px")[0].replace(":", " ").split()[-1])
