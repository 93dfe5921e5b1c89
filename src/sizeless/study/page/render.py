"""From a ``Page`` to the text of an HTML file."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sizeless._files import write_text
from sizeless.study.page.blocks import Block, Code, Group, Page, Picture, Section, Table, Text
from sizeless.study.page.cells import words
from sizeless.study.page.prose import anchors, breakable, inline, paragraphs
from sizeless.study.page.svg import draw
from sizeless.study.page.tables import columns

View = dict[str, Any]

LONG_VALUE = 9
"""Letters of a card's value from which on it is set smaller."""
MOST_CARDS = 5
"""Cards in a row."""


def render(page: Page) -> str:
    """Return a page as HTML that refers to nothing outside itself.

    The same page gives the same text.

    Args:
        page: The page.

    Raises:
        TypeError: If ``page`` is no ``Page``, or holds what is no section, block or card.
        ValueError: If a table names units or formats of columns that it has not.

    Examples:
        >>> html = render(Page("Sizes", sections=[Section("Kernels", [Text("All are small.")])]))
        >>> "<p>All are small.</p>" in html, 'href="#kernels"' in html
        (True, True)
    """
    if not isinstance(page, Page):
        raise TypeError(f"page must be a Page, got one of type {type(page).__name__}")
    views = _Views()
    values = [words(card.value) for card in page.cards]
    cards = [
        {"card": card, "value": value, "long": len(value) > LONG_VALUE}
        for card, value in zip(page.cards, values, strict=True)
    ]
    style, theme, script = map(_source, ("page.css", "theme.js", "page.js"))
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            cards=cards,
            cards_in_a_row=_cards_in_a_row(len(cards)),
            sections=views.sections(page.sections),
            policy=_policy(theme, script),
            style=style,
            theme=theme,
            script=script,
        )
    )


def write(page: Page, path: Path | str) -> None:
    """Write a page to a file, which is whole or not there.

    Args:
        page: The page.
        path: The file; its folder need not exist.
    """
    write_text(Path(path), render(page))


@dataclass
class _Views:
    """Blocks as the template wants them, with figures and tables numbered as they come."""

    pictures: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    tables: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def sections(self, sections: Sequence[Section]) -> list[View]:
        for section in sections:
            if not isinstance(section, Section):
                raise TypeError(f"sections must hold Section objects, got {section!r}")
        names = anchors(section.title for section in sections)
        return [
            {
                "anchor": name,
                "title": section.title,
                "lead": section.lead,
                "blocks": self.blocks(section.blocks),
            }
            for section, name in zip(sections, names, strict=True)
        ]

    def blocks(self, blocks: Sequence[Block]) -> list[View]:
        return [self.block(block) for block in blocks]

    def block(self, block: Block) -> View:
        if isinstance(block, Text):
            return {"kind": "text", "text": block.text}
        if isinstance(block, Picture):
            return self.picture(block)
        if isinstance(block, Table):
            return self.table(block)
        if isinstance(block, Code):
            return {"kind": "code", "code": block}
        if isinstance(block, Group):
            return {"kind": "group", "title": block.title, "blocks": self.blocks(block.blocks)}
        raise TypeError(
            f"blocks must hold Text, Picture, Table, Code or Group objects, got {block!r}"
        )

    def picture(self, block: Picture) -> View:
        number = next(self.pictures)
        return {
            "kind": "picture",
            "number": number,
            "alt": block.alt,
            "caption": block.caption,
            "drawing": draw(block.figure, block.alt, prefix=f"f{number}"),
        }

    def table(self, block: Table) -> View:
        written = columns(block)
        return {
            "kind": "table",
            "number": next(self.tables),
            "caption": block.caption,
            "columns": written,
            "lines": list(zip(*(column.cells for column in written), strict=True)),
            "rows": block.rows,
        }


def _cards_in_a_row(count: int) -> int:
    """As many as leave the fewest places of the last row empty."""
    return min(range(MOST_CARDS, 2, -1), key=lambda row: -count % row)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sizeless.study.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(breakable=breakable, inline=inline, paragraphs=paragraphs)
    return environment


def _source(name: str) -> Markup:
    """A file that stands in the page as it is."""
    return Markup((files("sizeless.study.page") / "templates" / name).read_text(encoding="utf-8"))


def _policy(*scripts: str) -> str:
    """What a browser may load and run: nothing from outside, and these scripts only."""
    hashes = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode('ascii')}'" for each in hashes)
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {allowed}"
    )
