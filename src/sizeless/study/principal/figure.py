"""The picture of principal kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sizeless.study import style
from sizeless.study.principal.group import CROP, PrincipalGroup

MOST_GROUPS = 8
"""Groups in one picture; of more, as many evenly spread over the depth."""
LEFT, HEAD, GAP = 0.62, 0.48, 0.12
"""Margin for names of rows, head of a group and space between cells, in inches."""
NAMES = 0.2
"""Room above a row for what its cells are."""
LARGEST = 1.25
"""Side of a cell at most, in inches."""
LINES = 64
"""Taps up to which each is marked."""


def draw(groups: Sequence[PrincipalGroup]) -> Figure:
    """Draw a row of patterns for each of the groups, and one of their central parts."""
    count = min(len(groups), MOST_GROUPS)
    places = np.unique(np.linspace(0, len(groups) - 1, count).round().astype(int))
    shown = [groups[place] for place in places]
    columns = 1 + max(len(group.shares) for group in shown)
    cell = min(LARGEST, (style.WIDTH - LEFT) / max(columns, 5) - GAP)
    heights = [HEAD + sum(_row_heights(group, cell)) for group in shown]
    figure = Figure(figsize=(style.WIDTH, sum(heights) + GAP), dpi=120)
    top = sum(heights) + GAP
    for group, height in zip(shown, heights, strict=True):
        _draw_group(figure, group, top, cell)
        top -= height
    return figure


def _row_heights(group: PrincipalGroup, cell: float) -> list[float]:
    """Height of the row of whole patterns, and of the one of their central parts."""
    rows = [NAMES + cell * _proportion(group.size)]
    if max(group.size) > CROP:
        rows.append(GAP + cell * _proportion(group.cropped(CROP).size))
    return rows


def _proportion(size: tuple[int, ...]) -> float:
    """Height of a pattern in widths of a cell, which fits the longer of its sides."""
    if len(size) == 1:
        return 0.75
    return size[-2] / max(size[-2:])


def _draw_group(figure: Figure, group: PrincipalGroup, top: float, cell: float) -> None:
    height = float(figure.get_size_inches()[1])
    facts = group.facts
    map_ = "" if facts["of"] == "stage" else f", map {facts['map']}"
    head = f"{group.label}{map_}, {facts['measured']} kernels"
    if not len(group.shares):
        head += ", all alike"
    figure.text(
        0.08 / style.WIDTH, (top - 0.2) / height, head, color=style.INK, fontsize=9, va="center"
    )
    rows = [group] if max(group.size) <= CROP else [group, group.cropped(CROP)]
    bottom = top - HEAD + GAP
    peaks = [_peak(pattern) for pattern in (group.mean, *group.components)]
    for place, (row, room) in enumerate(zip(rows, _row_heights(group, cell), strict=True)):
        bottom -= room
        high = room - (GAP if place else NAMES)
        for column, pattern in enumerate((row.mean, *row.components)):
            left = LEFT + column * (cell + GAP)
            where = (left / style.WIDTH, bottom / height, cell / style.WIDTH, high / height)
            axes = figure.add_axes(where)
            _draw_pattern(axes, pattern, row, peaks[column])
            if place == 0:
                name = f"{column}: {group.shares[column - 1]:.1%}" if column else "mean"
                axes.set_title(name.replace("%", " %"), fontsize=8, color=style.INK, pad=3)
        figure.text(
            (LEFT - 0.1) / style.WIDTH,
            (bottom + high / 2) / height,
            _extent(row),
            fontsize=7,
            color=style.INK,
            ha="right",
            va="center",
        )


def _extent(row: PrincipalGroup) -> str:
    if len(row.size) == 1:
        return f"{row.size[0]} taps"
    return " ×\n".join(map(str, row.size)) if len(row.size) > 2 else " × ".join(map(str, row.size))


def _peak(pattern: np.ndarray) -> float:
    peak = float(np.abs(pattern).max(initial=0.0))
    return peak if peak > 0 and np.isfinite(peak) else 1.0


def _draw_pattern(axes: Any, pattern: np.ndarray, row: PrincipalGroup, peak: float) -> None:
    """Draw a curve, an image, or the slice of a volume through its origin."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=style.FAINT, linewidth=0.6)
    if pattern.ndim == 1:
        taps = np.arange(len(pattern)) - row.origin[0]
        axes.axhline(0.0, color=style.FAINT, linewidth=0.6)
        marker = "." if len(taps) <= LINES else None
        axes.plot(taps, pattern, color=style.INK, linewidth=1.0, marker=marker, markersize=2.5)
        axes.set_ylim(-1.1 * peak, 1.1 * peak)
        return
    middle = tuple(round(place) for place in row.origin[:-2])
    axes.imshow(
        pattern[middle], cmap=style.DIVERGING, vmin=-peak, vmax=peak, interpolation="nearest"
    )
