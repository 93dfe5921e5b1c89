"""The picture of a run: learned sizes over training, and the kernels that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor, nn

from sizeless._files import write_atomically
from sizeless.nn.flexconv import FlexConvNd
from sizeless.nn.niff import NIFFConvNd
from sizeless.study.style import INK, SHADE, WIDTH, clean
from sizeless.study.tracks import draw_tracks, layer_colors, legend_entries
from sizeless.trajectories import SizePoint, tracks

KERNELS_SHOWN = 6
PITCH = 1.5
"""Distance from one kernel to the next, in widths of a kernel."""
PANEL_HEIGHT = 3.0
CURVE_HEIGHT = 1.15
IMAGE_HEIGHT = 1.3
LETTER = 0.06
"""Width of a letter of the legend, in inches."""


@dataclass(frozen=True)
class Rendered:
    """Kernels of one layer, on the taps that training left.

    Attributes:
        kernels: The strongest kernels, ``(count, *size)``, one- or two-dimensional.
        taps: Position of every tap along each axis; 0 is the present position.
        window: Standard deviation and centre of the window in taps, per axis, or ``None``.
        reach: Positions that the largest kernel would have, per axis.
    """

    kernels: np.ndarray
    taps: tuple[np.ndarray, ...]
    window: tuple[tuple[float, float], ...] | None
    reach: tuple[np.ndarray, ...]


def draw_sizes(points: Sequence[SizePoint], network: nn.Module, path: Path) -> None:
    """Draw learned sizes against the epoch, with the rendered kernels of every layer below.

    Limits are faint lines. A layer's strongest kernels are shown: curves over their window in one
    dimension, images in two, the middle slice in three.

    Args:
        points: Sizes over training.
        network: The trained network.
        path: PNG file, written atomically.
    """
    kinds = list(dict.fromkeys(point.kind for point in points))
    colors = layer_colors(points)
    layers = {
        name: rendered
        for name, module in network.named_modules()
        if (rendered := render(module)) is not None
    }
    heights = [PANEL_HEIGHT] * max(1, len(kinds)) + [_row_height(r) for r in layers.values()]
    # Matplotlib's own layouts take minutes for the layers of a deep network.
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=120)
    rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if not kinds:
        _draw_nothing(rows[0])
    for row, kind in zip(rows, kinds, strict=False):
        _draw_trajectories(row, points, kind, colors)
    for row, (name, rendered) in zip(rows[max(1, len(kinds)) :], layers.items(), strict=True):
        _draw_kernels(row, name, rendered, colors.get(name, INK))
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


@torch.no_grad()
def render(module: nn.Module) -> Rendered | None:
    """Return the strongest kernels of a layer, or ``None`` if it has none to show.

    Args:
        module: Any module; layers with a learned window or a frequency filter have kernels.
    """
    if isinstance(module, FlexConvNd):
        learned = module.describe_size()
        window = None
        if learned.window is not None and learned.center is not None:
            window = tuple(zip(learned.window, learned.center, strict=True))
        return Rendered(
            _strongest(module.weight),
            tuple(_taps(n, module.causal) for n in module.size),
            window,
            tuple(_taps(n, module.causal) for n in module.kernel_size),
        )
    if isinstance(module, NIFFConvNd) and module.map_size is not None:
        taps = tuple(_taps(n) for n in module.map_size)
        return Rendered(_strongest(module.spatial_kernel(module.map_size)), taps, None, taps)
    return None


def _taps(count: int, causal: bool = False) -> np.ndarray:
    return np.arange(count) - (count - 1 if causal else count // 2)


def _strongest(weight: Tensor) -> np.ndarray:
    """The kernels of largest norm, at most KERNELS_SHOWN, strongest first."""
    kernels = weight.detach().float().cpu().flatten(0, 1)
    norms = kernels.flatten(1).norm(dim=1)
    return kernels[norms.argsort(descending=True, stable=True)[:KERNELS_SHOWN]].numpy()


def _row_height(rendered: Rendered) -> float:
    return CURVE_HEIGHT if len(rendered.taps) == 1 else IMAGE_HEIGHT


def _draw_trajectories(
    row: SubFigure, points: Sequence[SizePoint], kind: str, colors: dict[str, Any]
) -> None:
    lines = tracks(points, kind)
    entries, title = legend_entries(lines, colors)
    legend = 0.9 + LETTER * max(len(str(entry.get_label())) for entry in entries)
    axes = row.subplots(gridspec_kw=_margins(PANEL_HEIGHT, left=0.7, right=legend, bottom=0.5))
    draw_tracks(axes, lines, colors, kind)
    clean(axes)
    axes.legend(
        handles=entries,
        title=title,
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        labelspacing=0.3,
        loc="upper left",
        bbox_to_anchor=(1, 1.04),
    )


def _draw_kernels(row: SubFigure, name: str, rendered: Rendered, color: Any) -> None:
    size = "×".join(str(len(taps)) for taps in rendered.taps)
    title = f"{name}: {size} taps"
    if len(rendered.taps) == 1:
        newest = ", 0 is the newest sample" if rendered.taps[0][-1] == 0 else ""
        title += f"; kernels over tap position{newest}"
    row.suptitle(title, x=0.01, ha="left", fontsize=9, color=color)
    if len(rendered.taps) == 1:
        _draw_curves(row, rendered, color)
    else:
        _draw_images(row, rendered)


def _draw_curves(row: SubFigure, rendered: Rendered, color: Any) -> None:
    axes = row.subplots(gridspec_kw=_margins(CURVE_HEIGHT, left=0.7, bottom=0.25))
    clean(axes)
    (taps,), (reach,) = rendered.taps, rendered.reach
    peak = float(np.abs(rendered.kernels).max()) or 1.0
    if rendered.window is not None:
        ((sigma, center),) = rendered.window
        grid = np.linspace(reach[0], reach[-1], 400)
        window = peak * np.exp(-0.5 * ((grid - center) / sigma) ** 2)
        axes.fill_between(grid, -window, window, color=SHADE, zorder=0, linewidth=0)
    strengths = np.linspace(1.0, 0.35, len(rendered.kernels))
    for strength, kernel in zip(strengths, rendered.kernels, strict=True):
        axes.plot(taps, kernel, color=color, alpha=float(strength), linewidth=1.1, marker=".", ms=3)
    margin = 0.02 * (reach[-1] - reach[0]) or 0.5
    axes.set_xlim(reach[0] - margin, reach[-1] + margin)
    axes.tick_params(labelsize=7)


def _draw_images(row: SubFigure, rendered: Rendered) -> None:
    images = rendered.kernels
    while images.ndim > 3:
        images = images[:, images.shape[1] // 2]
    peak = float(np.abs(images).max()) or 1.0
    height, width = images.shape[1:]
    # Axes for each kernel would take most of the time.
    axes = row.subplots(gridspec_kw=_margins(IMAGE_HEIGHT))
    axes.set_axis_off()
    axes.set_anchor("W")
    for place, image in enumerate(images):
        left = PITCH * width * place
        axes.imshow(
            image,
            cmap="RdBu_r",
            vmin=-peak,
            vmax=peak,
            interpolation="nearest",
            extent=(left, left + width, 0, height),
        )
    axes.set_xlim(0, width * (1 + PITCH * (KERNELS_SHOWN - 1)))


def _margins(
    height: float, *, left: float = 0.1, right: float = 0.1, bottom: float = 0.05
) -> dict[str, float]:
    """Return where the axes of a row lie, for margins in inches, with room for a title."""
    return {
        "left": left / WIDTH,
        "right": 1 - right / WIDTH,
        "bottom": bottom / height,
        "top": 1 - 0.25 / height,
    }


def _draw_nothing(row: SubFigure) -> None:
    axes = row.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no layer of this network learns its size", ha="center", color=INK)
