"""One page of text, numbers and pictures that needs nothing but itself: HTML for a browser.

``Page`` holds ``Section`` objects, and these hold blocks: ``Text``, ``Picture``, ``Table``,
``Code`` and ``Group``. ``render`` makes the text of the page, ``write`` the file.
"""

from sizeless.study.page.blocks import (
    Block,
    Card,
    Code,
    Group,
    Page,
    Picture,
    Section,
    Table,
    Text,
)
from sizeless.study.page.render import render, write

__all__ = [
    "Block",
    "Card",
    "Code",
    "Group",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
    "render",
    "write",
]
