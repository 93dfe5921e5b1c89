"""MkDocs hook: formulas become MathML, which browsers draw without script or network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>'
    r"(?P<end>[,.;:)]*)",
    re.DOTALL,
)
THIN = '<mspace width="0.167em" />'
BAR = '<mo stretchy="false" lspace="0" rspace="0">&#x0007C;</mo>'
HAT = '<mo stretchy="false">&#x002C6;</mo>'
BRACKETS = {
    r"\{": "{",
    r"\}": "}",
    r"\lfloor": "⌊",
    r"\rfloor": "⌋",
    r"\lceil": "⌈",
    r"\rceil": "⌉",
    r"\|": "‖",
    r"\langle": "⟨",
    r"\rangle": "⟩",
}
WORD = "<mi>[a-z]{2,}</mi>"
NAME = f"(?:(?<!<msub>){WORD}|<msub>{WORD}<m[in]>[^<]*</m[in]></msub>)"
"""Name of a function, alone or with an index of one letter."""
SCRIPT = {"B": "ℬ", "E": "ℰ", "F": "ℱ", "H": "ℋ", "I": "ℐ", "L": "ℒ", "M": "ℳ", "R": "ℛ"}
"""Script capitals that Unicode has elsewhere than the others."""


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replace every formula that the arithmatex extension has marked."""

    def drawn(found: re.Match[str]) -> str:
        latex = html.unescape(found["latex"]).strip()
        try:
            formula = mathml(latex, block=found["open"] == "[")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: no formula: {latex!r} ({error!r})") from error
        # No line begins with the comma behind a formula.
        end = found["end"]
        return f'<span class="together">{formula}{end}</span>' if end else formula

    return FORMULA.sub(drawn, content)


def mathml(latex: str, *, block: bool) -> str:
    """Return a formula; one on a line of its own scrolls where the screen is too narrow."""
    drawn = mended(convert(latex, display="block" if block else "inline"))
    if "\\" in drawn:
        raise ValueError("a command that is not known")
    return f'<div class="formula" tabindex="0">{drawn}</div>' if block else drawn


def mended(math: str) -> str:
    """Say in MathML Core, the part of MathML that all browsers have, what the converter means."""
    # Letters of another alphabet are characters of their own.
    math = re.sub(r'<mi mathvariant="script">([A-Z])</mi>', _script, math)
    # A bar between two terms is read as a relation, and set apart.
    math = re.sub(r'<mo(?: stretchy="false")?>&#x0007C;</mo>', BAR, math)
    # The converter reads the size of a large bracket, and not always its name.
    math = re.sub(r"(<mo minsize[^>]*>)(\\[^<]+)(?=</mo>)", _bracket, math)
    # A large bracket with an exponent is as large as it says in a row of its own.
    math = re.sub(r"(<msu[bp]>)(<mo minsize[^>]*>[^<]*</mo>)", r"\1<mrow>\2</mrow>", math)
    # Not all fonts have a line that stretches, or a hat that fits.
    line = r'<mover><mrow>((?:(?!<mrow>).)*)</mrow><mo accent="true">&#x02015;</mo></mover>'
    math = re.sub(line, r'<mrow class="overline">\1</mrow>', math)
    math = math.replace("<mo>&#x0005E;</mo></mover>", f"{HAT}</mover>")
    math = math.replace("</mover><mo", f"</mover>{THIN}<mo")
    math = math.replace("<mo>&#x02202;</mo>", "<mi>&#x02202;</mi>")
    # Names of functions: a thin space before and behind, none beside a bracket.
    math = re.sub(r"<mo>(?!mod<)([a-z]{2,})</mo>", r"<mi>\1</mi>", math)
    math = re.sub(rf"(</m(?:i|n|sub|sup)>|&#x00029;</mo>)(?={NAME})", rf"\1{THIN}", math)
    return re.sub(rf"({NAME})(?=<m(?:i|n|sub|sup|frac)>)", rf"\1{THIN}", math)


def _script(letter: re.Match[str]) -> str:
    return f"<mi>{SCRIPT.get(letter[1], chr(0x1D49C + ord(letter[1]) - ord('A')))}</mi>"


def _bracket(found: re.Match[str]) -> str:
    return found[1] + BRACKETS.get(found[2], found[2])
