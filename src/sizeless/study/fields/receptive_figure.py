"""The picture of receptive fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from sizeless.study.style import AXIS, CONTROL, INK, WIDTH, clean, shades

if TYPE_CHECKING:
    from sizeless.study.fields.receptive import LayerField

STYLES = ("-", "--", ":")
"""Lines of the axes of the input, where they differ."""

HEIGHT = 3.6
NEAR = 1.3
"""Ratio of sizes below which their labels share a line."""

MARKERS = {
    "convolution": "o",
    "transposed convolution": "v",
    "pool": "s",
    "resize": "^",
    "FlexConv": "D",
    "NIFF": "P",
    "DiffStride": "*",
    "SpectralPool": "X",
    "global": "H",
}
WORDS = {"global": "other function"}


Layers = Sequence["LayerField"]


def draw(input_size: Sequence[int], layers: Layers, control: Sequence[Layers]) -> Figure:
    """Draw the growth of the field over depth, along each axis where it differs."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=120, layout="constrained")
    axes = figure.subplots()
    growth = _growth(layers)
    groups = _groups(input_size, growth)
    for style, members in zip(STYLES, groups, strict=False):
        which = "" if len(members) == len(input_size) else f", {_axes(members)}"
        _draw_growth(axes, style, growth[members[0]], "largest so far" + which, INK)
        if control:
            mean = np.mean([_growth(others)[members[0]] for others in control], axis=0)
            _draw_growth(axes, style, mean, "untrained" + which, CONTROL)
    for members in groups:
        _draw_layers(axes, layers, members[0])
    if any(seen.whole for layer in layers for seen in layer.axes):
        label = "hollow: the whole input"
        axes.plot([], [], "o", color=INK, markerfacecolor="none", markersize=5, label=label)
    _draw_sizes(axes, input_size)
    axes.set(
        xlabel="layer, in the order of calls",
        ylabel="receptive field (input samples)",
        xlim=(-0.5, len(layers) - 0.5),
        ylim=(0.8, 2.0 * max(*growth.ravel().tolist(), *input_size)),
    )
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=INK)
    return figure


def _growth(layers: Sequence[LayerField]) -> np.ndarray:
    """Largest field of each axis up to every layer, ``(axes, layers)``.

    A branch that sees the whole input counts where nothing behind it sees less.
    """
    whole = np.array([[axis.whole for axis in layer.axes] for layer in layers])
    stays = np.logical_and.accumulate(whole[::-1], axis=0)[::-1]
    fields = np.array([[axis.field for axis in layer.axes] for layer in layers])
    return np.maximum.accumulate(np.where(whole & ~stays, 1, fields), axis=0).T


def _groups(input_size: Sequence[int], growth: np.ndarray) -> list[list[int]]:
    """Axes in groups along which all is the same."""
    groups = dict[bytes, list[int]]()
    for axis, size in enumerate(input_size):
        groups.setdefault(np.append(growth[axis], size).tobytes(), []).append(axis)
    return list(groups.values())


def _axes(members: Sequence[int]) -> str:
    return f"ax{'i' if len(members) == 1 else 'e'}s {' and '.join(map(str, members))}"


def _draw_growth(axes: Any, style: str, growth: np.ndarray, label: str, colour: str) -> None:
    axes.plot(np.arange(len(growth)), growth, style, color=colour, linewidth=1, label=label)


def _draw_layers(axes: Any, layers: Layers, axis: int) -> None:
    kinds = [kind for kind in MARKERS if any(layer.kind == kind for layer in layers)]
    known = axes.get_legend_handles_labels()[1]
    for kind, colour in zip(kinds, shades(len(kinds)), strict=True):
        of_kind = [(i, layer.axes[axis]) for i, layer in enumerate(layers) if layer.kind == kind]
        look = {"color": colour, "marker": MARKERS[kind], "linestyle": "none", "markersize": 4}
        name = WORDS.get(kind, kind)
        label = None if name in known else name
        for whole in (False, True):
            seen = [(i, seen.field) for i, seen in of_kind if seen.whole == whole]
            if seen:
                places, fields = zip(*seen, strict=True)
                fill = "none" if whole else colour
                axes.plot(places, fields, markerfacecolor=fill, label=label, **look)
                label = None


def _draw_sizes(axes: Any, input_size: Sequence[int]) -> None:
    """Draw a line across for every size of the input."""
    for sizes in _near(input_size):
        for size in sizes:
            axes.axhline(size, color=AXIS, linewidth=0.8, zorder=0)
        axes.annotate(
            f"input: {' and '.join(map(str, sizes))}",
            (1, math.prod(sizes) ** (1 / len(sizes))),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=8,
        )


def _near(sizes: Sequence[int]) -> list[list[int]]:
    """Sizes in groups whose labels would touch each other."""
    groups = list[list[int]]()
    for size in sorted(set(sizes)):
        if groups and size < NEAR * groups[-1][-1]:
            groups[-1].append(size)
        else:
            groups.append([size])
    return groups
