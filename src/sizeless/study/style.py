"""How the pictures of a study look."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

INK = "#404040"
"""Text and lines that matter; a page may put its own colours in place of these four."""
AXIS = "#999999"
FAINT = "#cccccc"
SHADE = "#ededed"

TRAINED = "#21918c"
"""Lines of the network that is studied, and bands around them."""
CONTROL = "#8c8c8c"
"""Lines of a network that was not trained."""
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
WIDTH = 9.0
PANEL = 2.6
"""Height of a row of panels, in inches."""


def panels(count: int, *, columns: int = 3, height: float = PANEL) -> tuple[Figure, list[Any]]:
    """Return a figure with so many panels, filled row by row, and the axes of each."""
    columns = min(columns, max(1, count))
    rows = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(WIDTH, rows * height), dpi=120, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def clean(axes: Any) -> None:
    """Leave of the axes' frame what is needed to read values."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(AXIS)
    axes.tick_params(color=AXIS, labelcolor=INK, labelsize=8)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=INK, fontsize=9)
    for side in ("left", "center", "right"):
        if title := axes.get_title(loc=side):
            axes.set_title(title, loc=side, color=INK, fontsize=9)


def shades(count: int) -> list[Any]:
    """Colours for so many things in an order."""
    return [colormaps[SEQUENTIAL](place) for place in np.linspace(0.0, 0.8, max(2, count))][:count]
