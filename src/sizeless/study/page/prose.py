"""Plain text as HTML: paragraphs, lists, and names that may break."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from markupsafe import Markup, escape

CODE = re.compile(r"`([^`\n]+)`")
BULLET = "- "
JOINTS = re.compile(r"(?<=[^\W_])([._/:]+)(?=\w)")
BOUND = re.compile(r"(?<=\d) (?=[×%])|(?<=×) (?=\d)")
"""Blanks within a size or a share, at which no line ends."""
LONG = 12
"""Letters of a word that may break at its joints."""


def paragraphs(text: str) -> Markup:
    r"""Return the paragraphs and lists of a text.

    Examples:
        >>> print(paragraphs("a < b"))
        <p>a &lt; b</p>
        >>> print(paragraphs("- `x`\n- y"))
        <ul><li><code>x</code></li><li>y</li></ul>
    """
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text)]
    return Markup("\n").join(_paragraph(block) for block in blocks if block)


def _paragraph(block: str) -> Markup:
    lines = [line.strip() for line in block.splitlines()]
    if all(line.startswith(BULLET) for line in lines):
        items = [Markup("<li>{}</li>").format(inline(line[len(BULLET) :])) for line in lines]
        return Markup("<ul>{}</ul>").format(Markup("").join(items))
    return Markup("<p>{}</p>").format(inline(block))


def inline(text: str) -> Markup:
    """Return a text with what stands between backquotes as code."""
    pieces = CODE.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(breakable(piece))
        if place % 2
        else escape(BOUND.sub("\N{NO-BREAK SPACE}", piece))
        for place, piece in enumerate(pieces)
    )


def breakable(text: str) -> Markup:
    """Return a text whose long words may break where a name is joined.

    Examples:
        >>> print(breakable("stages.0.blocks"), breakable("0.25"))
        stages.<wbr>0.<wbr>blocks 0.25
    """
    words = re.split(r"(\s+)", text)
    return Markup("").join(
        Markup(JOINTS.sub(r"\1<wbr>", str(escape(word)))) if len(word) > LONG else escape(word)
        for word in words
    )


def anchors(titles: Iterable[str]) -> list[str]:
    """Return a name for each title, all different, to link to.

    Examples:
        >>> anchors(["Kernel sizes", "Kernel sizes", "σ (taps)", "?"])
        ['kernel-sizes', 'kernel-sizes-2', 'σ-taps', 'section']
    """
    names: list[str] = []
    for title in titles:
        plain = unicodedata.normalize("NFKC", title).lower()
        base = re.sub(r"[\W_]+", "-", plain).strip("-") or "section"
        name, number = base, 1
        while name in names:
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names
