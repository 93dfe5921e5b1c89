"""Colours of figures in a light and in a dark page."""

from __future__ import annotations

import math
import re

from sizeless.study.style import AXIS, FAINT, INK, SHADE

THEMED = {
    INK: "var(--ink)",
    AXIS: "var(--axis)",
    FAINT: "var(--faint)",
    SHADE: "var(--shade)",
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
}
"""Colours of a figure that are those of the page."""
DARKEST = 0.4
"""Lightness that black would have in a dark page: what is darker is lost on its ground."""

HEX = re.compile(r"#[0-9a-f]{6}")

# Björn Ottosson, "A perceptual color space for image processing", 2020: linear sRGB to the cube of
# the responses of three cones, and their roots to lightness and two opponent colours.
TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
FROM_LAB = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
FROM_CONES = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
Matrix = tuple[tuple[float, float, float], ...]


def in_both_themes(color: str) -> list[str]:
    """Return what a CSS property is set to in turn so that a colour shows in both themes.

    A browser that does not know the last one keeps the first.

    Args:
        color: ``#rrggbb``, in lower case; anything else stays as it is.

    Examples:
        >>> in_both_themes("#404040"), in_both_themes("none")
        (['var(--ink)'], ['none'])
        >>> in_both_themes("#440154")
        ['#440154', 'light-dark(#440154, #995bab)']
    """
    if color in THEMED:
        return [THEMED[color]]
    if not HEX.fullmatch(color):
        return [color]
    return [color, f"light-dark({color}, {lightened(color)})"]


def lightened(color: str) -> str:
    """Return a colour for a dark ground: of the same hue, lighter the darker it was.

    Lightness ``L`` of the Oklab space becomes ``DARKEST + (1 - DARKEST) L``, so that the order of
    a scale of lightness stays.

    Args:
        color: ``#rrggbb``.

    Examples:
        >>> lightened("#ffffff"), lightened("#000000")
        ('#ffffff', '#484848')
    """
    encoded = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    cones = _times(TO_CONES, [_decoded(value) for value in encoded])
    lightness, *opponents = _times(TO_LAB, [math.cbrt(cone) for cone in cones])
    lightness = DARKEST + (1 - DARKEST) * lightness
    cones = [root**3 for root in _times(FROM_LAB, [lightness, *opponents])]
    levels = [round(255 * _encoded(value)) for value in _times(FROM_CONES, cones)]
    return "#" + "".join(f"{level:02x}" for level in levels)


def _times(matrix: Matrix, vector: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def _decoded(value: float) -> float:
    """Intensity of light of an sRGB level, both from 0 to 1."""
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)


def _encoded(light: float) -> float:
    """The sRGB level of an intensity, the nearest one if there is none."""
    light = min(max(light, 0.0), 1.0)
    return float(12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)
