"""What a page is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import pandas as pd
from matplotlib.figure import Figure

from sizeless._validate import int_at_least


@dataclass(frozen=True)
class Text:
    """Paragraphs, with an empty line between two of them.

    A paragraph whose lines all begin with ``- `` is a list, and what stands between backquotes is
    code. Everything else is taken as it is: no HTML.

    Attributes:
        text: The text.
    """

    text: str


@dataclass(frozen=True)
class Picture:
    """A figure with its alternative text.

    Attributes:
        figure: The figure; the greys of ``sizeless.study.style`` in it follow the page's theme.
        alt: What it shows, for those who do not see it.
        caption: What stands below it; the page numbers it.
    """

    figure: Figure
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.figure, Figure):
            raise TypeError(
                f"figure must be a matplotlib Figure, got one of type {type(self.figure).__name__}"
            )
        if not self.alt.strip():
            raise ValueError("alt must say what the picture shows, got an empty text")


@dataclass(frozen=True)
class Table:
    """Numbers and words in rows; readers sort it by any column.

    Numbers are right-aligned with about four significant digits, the same number of decimals all
    the way down a column where that is readable. A missing number is a dash, a truth value yes or
    no, a tuple of numbers a size such as 3 × 3.

    Attributes:
        frame: The rows. Levels of its index are columns if they have names.
        caption: What stands above it; the page numbers it.
        units: Unit of a column, shown in its header.
        formats: Format specification of a column of numbers, such as ``".1%"`` or ``"d"``, in place
            of the format that is chosen for it.
        rows: Rows that are shown at once; a longer table opens on demand.
    """

    frame: pd.DataFrame
    caption: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    rows: int = 12

    def __post_init__(self) -> None:
        if not isinstance(self.frame, pd.DataFrame):
            raise TypeError(
                f"frame must be a pandas DataFrame, got one of type {type(self.frame).__name__}"
            )
        int_at_least("rows", self.rows, 1)


@dataclass(frozen=True)
class Code:
    """Text in a fixed-width font, as it is: a configuration, a command.

    Attributes:
        text: The text.
        language: What it is written in.
        title: What stands above it, such as the name of a file.
    """

    text: str
    language: str = ""
    title: str = ""


@dataclass(frozen=True)
class Group:
    """Blocks that are hidden until a reader opens them; on paper they are open.

    Attributes:
        title: What stands where they are hidden.
        blocks: The blocks, which may be groups.
    """

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Text | Picture | Table | Code | Group


@dataclass(frozen=True)
class Card:
    """One number that matters.

    Attributes:
        label: What it is.
        value: The number, or a word; a missing one is a dash.
        note: Its unit, its spread, or what it should be compared with.
    """

    label: str
    value: str | float | None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page, listed in its contents.

    Attributes:
        title: Its heading, of which its anchor is made.
        blocks: What it holds.
        lead: What it says in a sentence or two.
    """

    title: str
    blocks: Sequence[Block] = ()
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Its title.
        subtitle: A line below the title.
        sections: What it holds.
        made: What made it, and when.
        cards: Numbers that stand above the first section.
    """

    title: str
    subtitle: str = ""
    sections: Sequence[Section] = ()
    made: str = ""
    cards: Sequence[Card] = ()
