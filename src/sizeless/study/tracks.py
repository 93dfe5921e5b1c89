"""Lines of learned sizes over training, equal ones beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.lines import Line2D

from sizeless.study.style import FAINT, INK, shades
from sizeless.trajectories import SizePoint, Track

UNITS = {
    "kernel size": "kernel size (taps)",
    "filter extent": "filter extent (samples)",
    "stride": "stride",
    "center": "centre of the window (taps)",
}
AXIS_STYLES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
DODGE = 1.3
"""Distance of tracks of equal size, in points, where there is room."""
SPREAD = 25.0
"""Distance of the first and the last of them, at most."""
HEIGHT = 150.0
"""Height of a panel, in points, about."""
NAMES_SHOWN = 15
"""Layers that a legend has room for."""

Tracks = Mapping[Track, Sequence[SizePoint]]


def layer_colors(points: Sequence[SizePoint]) -> dict[str, Any]:
    """Return a colour for each layer, in the order of first appearance."""
    names = list(dict.fromkeys(point.name for point in points))
    return dict(zip(names, shades(len(names)), strict=True))


def draw_tracks(axes: Any, lines: Tracks, colors: Mapping[str, Any], kind: str) -> None:
    """Draw one line per layer and axis over the epoch, and the limits of sizes as faint lines.

    Args:
        axes: Where to draw.
        lines: Tracks of one kind.
        colors: Colour of each layer.
        kind: What is drawn: a kind of size, or ``"center"`` for the centres of windows.
    """
    values = {
        track: [point.center if kind == "center" else point.size for point in line]
        for track, line in lines.items()
    }
    limits = {limit for line in lines.values() for limit in (line[-1].low, line[-1].high)}
    finite = [] if kind == "center" else sorted(filter(math.isfinite, limits))
    drawn = _beside(lines, values, finite)
    for (name, axis), line in lines.items():
        axes.plot(
            [point.epoch for point in line],
            drawn[name, axis],
            color=colors[name],
            linestyle=AXIS_STYLES[axis],
            linewidth=1.6,
            drawstyle="default" if kind in {"stride", "center"} else "steps-post",
            marker="o" if len(line) == 1 else None,
        )
    for limit in finite:
        axes.axhline(limit, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(UNITS.get(kind, kind))
    axes.locator_params(axis="x", integer=True)


def _beside(
    lines: Tracks, values: Mapping[Track, Sequence[Any]], limits: Sequence[float]
) -> dict[Track, list[float]]:
    """Values moved so little apart that, at each moment, equal ones lie beside each other."""
    every = [*limits, *(value for row in values.values() for value in row)]
    point = ((max(every) - min(every)) or 1.0) / HEIGHT
    together: dict[tuple[int, int], list[Track]] = {}
    for track, line in lines.items():
        for moment, value in zip(line, values[track], strict=True):
            place = round(value / (DODGE * point))
            together.setdefault((moment.step, place), []).append(track)
    drawn: dict[Track, list[float]] = {}
    for track, line in lines.items():
        for moment, value in zip(line, values[track], strict=True):
            group = together[moment.step, round(value / (DODGE * point))]
            rank = group.index(track) - (len(group) - 1) / 2
            distance = min(DODGE, SPREAD / len(group)) * point
            drawn.setdefault(track, []).append(value + rank * distance)
    return drawn


def legend_entries(lines: Tracks, colors: Mapping[str, Any]) -> tuple[list[Line2D], str | None]:
    """Return what a legend of such lines shows, and its title if it cannot name all layers."""
    names = list(dict.fromkeys(name for name, _ in lines))
    step = -(-len(names) // NAMES_SHOWN)
    entries = [Line2D([], [], color=colors[name], label=name) for name in names[::step]]
    axis_count = 1 + max(axis for _, axis in lines)
    if axis_count > 1:
        entries += [
            Line2D([], [], color=INK, linestyle=AXIS_STYLES[axis], label=f"axis {axis}")
            for axis in range(axis_count)
        ]
    entries.append(Line2D([], [], color=FAINT, label="limits"))
    return entries, f"one layer in {step}" if step > 1 else None
