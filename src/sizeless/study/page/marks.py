"""What a figure knows of its artists and its SVG file does not say: marked by their ``gid``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

AS_IS = "as-is"
"""The ``gid`` of an artist that keeps its colours."""
ANCHORED = re.compile(r"(?:as-is )?anchored-(\d+)")
INCLINED = 0.6
"""Sine or cosine from which a slanted text is held by its end rather than by its middle."""
SIDES = {"left": -1, "bottom": -1, "baseline": -1, "right": 1, "top": 1}


@dataclass(frozen=True)
class Anchor:
    """Where a text is held.

    Matplotlib places slanted texts and those of several lines by the left edge of each line, for
    the widths of its own font.

    Attributes:
        place: ``"start"``, ``"middle"`` or ``"end"`` of each line.
        font: The font that the figure was laid out for.
    """

    place: str
    font: FontProperties

    def hold(self, text: Element) -> None:
        """Anchor a line that was placed by its left edge, in any font, where it is now."""
        if text.get("x") is not None or len(text):
            return
        width, _, _ = text_to_path.get_text_width_height_descent(text.text or "", self.font, False)
        text.set("x", f"{width * (0.5 if self.place == 'middle' else 1.0):.6g}")
        text.set("style", f"{text.get('style', '')}; text-anchor: {self.place}")


@contextmanager
def marked(figure: Figure) -> Iterator[list[Anchor]]:
    """Mark what is drawn on images, whose colour was chosen for that, and what needs an anchor.

    Yields:
        The anchors, in the order of the numbers that their texts are marked with.
    """
    on_images = _on_images(figure)
    anchored = [(text, place) for text in _texts(figure) if (place := _held_by(text)) != "start"]
    before = {artist: artist.get_gid() for artist in (*on_images, *(text for text, _ in anchored))}
    for artist in on_images:
        artist.set_gid(AS_IS)
    for number, (text, _) in enumerate(anchored):
        prefix = f"{AS_IS} " if text.get_gid() == AS_IS else ""
        text.set_gid(f"{prefix}anchored-{number}")
    try:
        yield [Anchor(place, text.get_fontproperties()) for text, place in anchored]
    finally:
        for artist, gid in before.items():
            artist.set_gid(gid)


def anchor(root: Element, anchors: Sequence[Anchor]) -> None:
    """Hold the marked texts of an SVG element, in place."""
    for group in root.iter("g"):
        found = ANCHORED.fullmatch(group.get("id", ""))
        if found is not None:
            for text in group.iter("text"):
                anchors[int(found[1])].hold(text)


def _texts(figure: Figure) -> list[Any]:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # Labels of ticks are made on demand.
            axis.get_ticklabels()
    return list(figure.findobj(Text))


def _held_by(text: Any) -> str:
    """Which part of a text stays at its place if its font is a narrower one."""
    turned = text.get_rotation() % 360 != 0 and text.get_rotation_mode() != "anchor"
    if not text.get_text() or not (turned or "\n" in text.get_text()):
        return "start"
    angle = math.radians(text.get_rotation())
    aside = SIDES.get(text.get_horizontalalignment(), 0)
    above = SIDES.get(text.get_verticalalignment(), 0)
    along = aside * math.cos(angle) + above * math.sin(angle)
    if abs(along) < INCLINED:
        return "middle"
    return "end" if along > 0 else "start"


def _on_images(figure: Figure) -> list[Any]:
    places = [(axes, _grounds(axes)) for axes in figure.axes]
    places = [(axes, grounds) for axes, grounds in places if grounds and _drawn(axes)]
    if places:
        figure.draw_without_rendering()
    return [artist for axes, grounds in places for artist in _drawn(axes) if _on(artist, grounds)]


def _grounds(axes: Any) -> list[Any]:
    """What has colours of its own: images, and the axes of a mesh."""
    meshes = [axes for drawn in axes.collections if isinstance(drawn, QuadMesh)]
    return [*axes.images, *meshes]


def _drawn(axes: Any) -> list[Any]:
    collections = [drawn for drawn in axes.collections if not isinstance(drawn, QuadMesh)]
    return [*axes.texts, *axes.lines, *axes.patches, *collections]


def _on(artist: Any, grounds: Sequence[Any]) -> bool:
    corners = artist.get_window_extent().get_points()
    if not np.isfinite(corners).all():
        return False
    x, y = corners.mean(axis=0)
    return any(ground.get_window_extent().contains(x, y) for ground in grounds)
