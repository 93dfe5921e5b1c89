"""The picture of effective receptive fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from sizeless.study import style

if TYPE_CHECKING:
    from sizeless.study.fields.effective import LayerMap

FIELD = "#ff7f0e"
"""The edge of what can be seen at all."""
INSIDE = "#ffffff"
"""Squares on a map, which is dark where little lies."""
LINES = {50: "-", 95: "--"}
"""Levels whose squares are drawn, in per cent."""
BANDS = {95: style.SHADE, 50: style.FAINT}

COLUMNS = 4
WIDE = 0.8
"""Share of the width that maps have, beside their labels."""
AROUND, BELOW = 0.9, 0.6
"""Height of the titles and labels of a row, and of the legend, in inches."""
TITLE = 26
"""Letters that a title has room for."""
LONG = 3.0
"""Ratio of the axes of an input from which its map is stretched to be seen."""

Layers = Sequence["LayerMap"]


def draw(layers: Layers, control: Sequence[Layers]) -> Figure:
    """Draw a panel for each layer, with the same layer untrained beside it."""
    averages = [_average([network[i] for network in control]) for i in range(len(layers))]
    if layers[0].density.ndim == 1:
        return _curves(layers, averages)
    return _maps(layers, averages)


def _average(others: Layers) -> LayerMap | None:
    """One layer with the mean mass of several."""
    if not others:
        return None
    return replace(others[0], density=np.mean([other.density for other in others], axis=0))


def _maps(layers: Layers, averages: Sequence[LayerMap | None]) -> Figure:
    shown = [
        (layer, untrained)
        for trained, average in zip(layers, averages, strict=True)
        for layer, untrained in ((trained, False), (average, True))
        if layer is not None
    ]
    columns = _columns(len(shown), paired=averages[0] is not None)
    high, wide = layers[0].density.shape[-2:]
    ratio = 1.0 if _is_long(high, wide) else high / wide
    rows = math.ceil(len(shown) / columns)
    height = WIDE * style.WIDTH / columns * ratio + AROUND + BELOW / rows
    figure, panels = style.panels(max(len(shown), columns), columns=columns, height=height)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    panels = panels[: len(shown)]
    for axes, (layer, untrained) in zip(panels, shown, strict=True):
        image = _map(axes, layer)
        axes.set_title(_title(layer, untrained))
        style.clean(axes)
    axis = "input sample" if layers[0].density.ndim == 2 else "input sample, axis {}"
    for i, axes in enumerate(panels):
        if i % columns == 0:
            axes.set_ylabel(axis.format(1))
        if i + columns >= len(panels):
            axes.set_xlabel(axis.format(2))
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(style.INK)
    bar = figure.colorbar(image, ax=panels, shrink=0.9, aspect=40, pad=0.01, ticks=(0, 0.1, 0.5, 1))
    bar.set_label("mass over its maximum", color=style.INK, fontsize=8)
    bar.ax.tick_params(labelsize=8, labelcolor=style.INK, color=style.AXIS)
    bar.ax.spines[:].set_visible(False)
    lines = [_line(INSIDE, LINES[level], f"{level} % of the mass") for level in LINES]
    legend = _legend(figure, [*lines, _line(FIELD, "-", "receptive field")], labels=INSIDE)
    # The lines are as hard to see on a page as they are easy to see on a map.
    legend.get_frame().set(facecolor=colormaps[style.SEQUENTIAL](0.0), edgecolor="none", alpha=1)
    legend.set_frame_on(True)
    return figure


def _columns(count: int, *, paired: bool) -> int:
    """Columns for so many panels, with rows of about equal length, and pairs side by side."""
    columns = max(3, math.ceil(count / math.ceil(count / COLUMNS)))
    return COLUMNS if paired and count > 2 else columns


def _is_long(height: int, width: int) -> bool:
    return max(height, width) > LONG * min(height, width)


def _map(axes: Any, layer: LayerMap) -> Any:
    """Draw the mass on the last two axes of the input, and the squares around it."""
    flat = layer.density.sum(axis=0) if layer.density.ndim == 3 else layer.density
    relative = flat / flat.max() if flat.any() else flat
    image = axes.imshow(
        relative,
        cmap=style.SEQUENTIAL,
        norm=PowerNorm(0.5, 0, 1),
        interpolation="nearest",
        aspect="auto" if _is_long(*flat.shape) else "equal",
    )
    boxes = [(_square(layer, level), INSIDE, line) for level, line in LINES.items()]
    for box, colour, line in [(layer.span, FIELD, "-"), *boxes]:
        (low, high), (left, right) = (
            (max(first - 0.5, -0.5), min(last + 0.5, n - 0.5))
            for (first, last), n in zip(box[-2:], flat.shape, strict=True)
        )
        if not math.isnan(low + left):
            square = Rectangle((left, low), right - left, high - low, fill=False)
            square.set(edgecolor=colour, linestyle=line, linewidth=1.2)
            axes.add_patch(square)
    return image


def _square(layer: LayerMap, level: int) -> list[tuple[float, float]]:
    """First and last sample of the square that holds so much of the mass."""
    reach = (layer.side(level) - 1) / 2
    return [(c - reach, c + reach) for c in layer.square_center]


def _curves(layers: Layers, averages: Sequence[LayerMap | None]) -> Figure:
    figure, panels = style.panels(len(layers))
    for axes, layer, average in zip(panels, layers, averages, strict=True):
        for level, shade in BANDS.items():
            low, high = _square(layer, level)[0]
            if not math.isnan(low):
                axes.axvspan(low - 0.5, high + 0.5, color=shade, linewidth=0)
        for place in layer.span[0]:
            axes.axvline(place, color=FIELD, linewidth=1, linestyle=":")
        lines = (
            [(layer, style.TRAINED)]
            if average is None
            else [(average, style.CONTROL), (layer, style.TRAINED)]
        )
        for drawn, colour in lines:
            axes.plot(100 * drawn.density, color=colour, linewidth=1, drawstyle="steps-mid")
        axes.set_xlim(-0.5, len(layer.density) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_title(_title(layer, untrained=False))
        axes.set_xlabel("input sample")
        style.clean(axes)
    for axes in panels[::3]:
        axes.set_ylabel("share of the mass (%)")
    bands = [Patch(color=BANDS[level], label=f"{level} % of the mass") for level in LINES]
    trained = [_line(style.TRAINED, "-", "the network")]
    if averages[0] is not None:
        trained.append(_line(style.CONTROL, "-", "untrained"))
    _legend(figure, [*trained, *bands, _line(FIELD, ":", "receptive field")])
    return figure


def _title(layer: LayerMap, untrained: bool) -> str:
    name = layer.name or "the network"
    short = name if len(name) <= TITLE else f"…{name[1 - TITLE :]}"
    side = layer.side(95)
    said = "no gradient" if math.isnan(side) else f"95 % in {side:g} samples"
    return f"{'untrained' if untrained else short}\n{said}"


def _line(colour: str, style: Any, label: str) -> Line2D:
    return Line2D([], [], color=colour, linestyle=style, linewidth=1.2, label=label)


def _legend(figure: Figure, handles: Sequence[Line2D | Patch], labels: str = style.INK) -> Any:
    return figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        labelcolor=labels,
    )
