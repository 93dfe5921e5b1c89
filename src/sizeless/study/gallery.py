"""The kernels themselves, in pictures, under the windows that decide their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from torch import nn

from sizeless.nn import FlexConvNd
from sizeless.nn.crop import REACH
from sizeless.study import style
from sizeless.study.bank import LayerKernels
from sizeless.study.groups import product
from sizeless.study.result import Result

SHOWN = 7
"""Kernels of a layer that a picture has room for, beside the mean magnitude."""
GAP = 0.25
"""Space between two kernels, in widths of a kernel."""
ROW = 1.25
"""Height of a row of kernels, in inches."""
MOST_ROWS = 16
"""Layers in one picture."""


@dataclass(frozen=True)
class Window:
    """The learned window of a layer, in taps from the origin: centre and deviation per axis."""

    center: tuple[float, ...]
    sigma: tuple[float, ...]


@dataclass(frozen=True)
class Gallery(Result):
    """The strongest kernels of each layer.

    The table has, per layer, its name, class, stage, the size of its map and of its kernels, how
    many kernels it has, the mean and the largest norm of one, the share of the norm that the
    shown ones hold, and the share of the energy that was generated and cannot act.

    Attributes:
        layers: The kernels.
        windows: Learned windows, by the name of their layer.
    """

    stem = "kernels"
    title = "Kernels"

    layers: tuple[LayerKernels, ...]
    windows: dict[str, Window] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row per layer; sizes in samples."""
        return pd.DataFrame([_row(layer) for layer in self.layers])

    def figure(self) -> Figure:
        """One row per layer; of more than 16 layers, as many evenly spread over the depth."""
        count = min(len(self.layers), MOST_ROWS)
        places = np.unique(np.linspace(0, len(self.layers) - 1, count).round().astype(int))
        return self.figure_of([self.layers[place] for place in places])

    def figure_of(self, layers: Sequence[LayerKernels]) -> Figure:
        """One row for each of these layers: their mean magnitude, then the strongest kernels."""
        figure = Figure(figsize=(style.WIDTH, ROW * len(layers)), dpi=120)
        for axes, layer in zip(_rows(figure, len(layers)), layers, strict=True):
            _draw(axes, layer, self.windows.get(layer.name))
        return figure

    def caption(self) -> str:
        """What is drawn."""
        axes = {len(layer.size) for layer in self.layers}
        text = (
            "Per layer the mean magnitude of all kernels (first, in grey), then the kernels of "
            "largest norm, each on a scale of its own that is symmetric about 0"
        )
        if axes == {1}:
            text += ": a curve over the taps, around a line at 0."
            return text + " Shaded is the learned window." * bool(self.windows)
        text += (
            " (red positive, blue negative; of one axis, as a curve)"
            if 1 in axes
            else (" (red positive, blue negative)")
        )
        text += ". A dot is the position that the output belongs to."
        if 3 in axes:
            text += " Of three axes, the middle slice of the first is shown."
        if self.windows:
            text += " A dashed line is where a learned window falls to a tenth."
        return text


def gallery(layers: Sequence[LayerKernels], model: nn.Module | None = None) -> Gallery:
    """Return pictures of the kernels of a network.

    Args:
        layers: The kernels; see ``layer_kernels``.
        model: The network that they are of, for its learned windows.

    Raises:
        ValueError: If there are no layers.

    Examples:
        >>> import sizeless, torch
        >>> from sizeless.study import layer_kernels
        >>> model = sizeless.FlexConv2d(1, 4, kernel_size=17, init_size=7)
        >>> pictures = gallery(layer_kernels(model, torch.zeros(1, 1, 20, 20)), model)
        >>> list(pictures.table()["size"])
        ['7 × 7']
    """
    if not layers:
        raise ValueError("layers must hold at least one layer; see layer_kernels")
    windows = {}
    if model is not None:
        for name, module in model.named_modules():
            if isinstance(module, FlexConvNd):
                found = module.describe_size()
                steps = module.dilation
                windows[name] = Window(_times(found.center, steps), _times(found.window, steps))
    return Gallery(tuple(layers), windows)


def _times(values: tuple[float, ...] | None, steps: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(value * step for value, step in zip(values or (), steps, strict=True))


def _row(layer: LayerKernels) -> dict[str, Any]:
    norms = np.linalg.norm(layer.kernels.reshape(len(layer.kernels), -1), axis=1)
    shown = np.sort(norms)[::-1][:SHOWN]
    energy = float(np.square(norms).sum())
    return {
        "layer": layer.name,
        "class": layer.layer,
        "stage": layer.stage,
        "map": product(layer.map_size),
        "size": product(layer.size),
        "kernels": layer.total,
        "measured": len(norms),
        "mean norm": float(norms.mean()),
        "largest norm": float(norms.max()),
        "energy shown": float(np.square(shown).sum()) / energy if energy > 0 else float("nan"),
        "unused energy": float("nan") if layer.unused is None else layer.unused,
    }


def _rows(figure: Figure, count: int) -> list[Any]:
    height = figure.get_size_inches()[1]
    rows = []
    for place in range(count):
        bottom = 1 - (place + 1) * ROW / height + 0.06 / height
        rows.append(figure.add_axes((0.01, bottom, 0.98, (ROW - 0.36) / height)))
    return rows


def _draw(axes: Any, layer: LayerKernels, window: Window | None) -> None:
    norms = np.linalg.norm(layer.kernels.reshape(len(layer.kernels), -1), axis=1)
    strongest = layer.kernels[np.argsort(-norms, kind="stable")[:SHOWN]]
    mean = np.abs(layer.kernels).mean(axis=0)
    unit = f"{product(layer.size)} taps, map of {product(layer.map_size)}"
    axes.set_title(f"{layer.name or layer.layer}: {unit}", loc="left", pad=3)
    axes.title.set(color=style.INK, fontsize=9)
    axes.set_axis_off()
    if len(layer.size) == 1:
        _draw_curves(axes, layer, mean, strongest, window)
    else:
        _draw_images(axes, layer, mean, strongest, window)


def _draw_images(
    axes: Any, layer: LayerKernels, mean: np.ndarray, strongest: np.ndarray, window: Window | None
) -> None:
    slices = tuple(
        slice(None) if axis >= len(layer.size) - 2 else n // 2 for axis, n in enumerate(layer.size)
    )
    height, width = layer.size[-2:]
    images = [mean[slices], *(kernel[slices] for kernel in strongest)]
    middle = [origin + 0.5 for origin in layer.origin[-2:]]
    for place, image in enumerate(images):
        left = place * width * (1 + GAP)
        peak = float(np.abs(image).max()) or 1.0
        axes.imshow(
            image,
            cmap="Greys" if place == 0 else style.DIVERGING,
            vmin=0 if place == 0 else -peak,
            vmax=peak,
            interpolation="nearest",
            extent=(left, left + width, height, 0),
        )
        axes.add_patch(
            Rectangle((left, 0), width, height, fill=False, edgecolor=style.FAINT, linewidth=0.6)
        )
        axes.plot(left + middle[1], middle[0], ".", color=style.AXIS, markersize=2)
        if window is not None:
            axes.add_patch(
                Ellipse(
                    (left + middle[1] + window.center[-1], middle[0] + window.center[-2]),
                    2 * REACH * window.sigma[-1],
                    2 * REACH * window.sigma[-2],
                    fill=False,
                    linestyle="--",
                    linewidth=0.7,
                    edgecolor=style.INK,
                    clip_on=True,
                )
            )
    axes.set_anchor("W")
    axes.set_xlim(-0.02 * width, (1 + SHOWN) * width * (1 + GAP))
    axes.set_ylim(1.02 * height, -0.02 * height)


def _draw_curves(
    axes: Any, layer: LayerKernels, mean: np.ndarray, strongest: np.ndarray, window: Window | None
) -> None:
    (taps,), length = layer.taps(), layer.size[0]
    for place, kernel in enumerate([mean, *strongest]):
        left = place * length * (1 + GAP) - taps[0] + 0.5
        peak = float(np.abs(kernel).max()) or 1.0
        ends = (left + taps[0] - 0.5, left + taps[-1] + 0.5)
        axes.plot(ends, (0, 0), color=style.FAINT, linewidth=0.6, zorder=0)
        if window is not None:
            grid = np.linspace(taps[0] - 0.5, taps[-1] + 0.5, 80)
            shape = np.exp(-0.5 * ((grid - window.center[0]) / window.sigma[0]) ** 2)
            low = 0 * shape if place == 0 else -shape
            axes.fill_between(left + grid, low, shape, color=style.SHADE, zorder=-1, linewidth=0)
        axes.plot(
            left + taps,
            kernel / peak,
            color=style.CONTROL if place == 0 else style.INK,
            linewidth=1.0,
            marker="." if length <= 64 else None,
            markersize=2.5,
        )
    axes.set_xlim(-0.02 * length, (1 + SHOWN) * length * (1 + GAP))
    axes.set_ylim(-1.05, 1.05)
