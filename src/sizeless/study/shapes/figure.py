"""The picture of shapes: ratios of widths, contours, and the mean kernel of each stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from sizeless.study import style
from sizeless.study.pools import Pool
from sizeless.study.shapes.ellipses import Ellipses, moments
from sizeless.study.shapes.fit import fit, too_few
from sizeless.study.shapes.intervals import bootstrap_mean, wilson
from sizeless.study.shapes.measure import LayerShape, log_axes, log_ratio

Of = Callable[[LayerShape], np.ndarray]

MOST = 12
"""Stages that one picture has room for."""
ROW, HEAD = 0.46, 0.85
"""Height of a stage's row, and of legend and labels, in inches."""
COLUMNS, KERNEL = 5, 2.2
"""Mean kernels in a row, and the height of a row of them."""
BINS = 48
TICKS = (
    (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0),
    (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
    (0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0, 10.0, 12.5, 16.0, 20.0),
)
"""Values on a logarithmic axis, for a wide range and for narrower ones."""
SEEN = 3.5
"""Half the side of what is shown of a mean kernel, in widths."""


def draw(pools: Sequence[Pool[LayerShape]], confidence: float) -> Figure:
    """Draw the distributions of all stages, or of the first twelve, and their mean kernels."""
    pools = pools[:MOST]
    flat = all(_ndim(pool) == 1 for pool in pools)
    columns = min(COLUMNS, len(pools))
    top, rows = HEAD + ROW * len(pools), math.ceil(len(pools) / columns)
    layout = ConstrainedLayoutEngine(h_pad=0.07)
    figure = Figure(figsize=(style.WIDTH, top + rows * KERNEL), dpi=120, layout=layout)
    heights = [top, rows * KERNEL]
    upper, lower = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = upper.subplots(1, 2 if flat else 3, sharey=True)
    if flat:
        _draw_logs(panels[0], pools, "width (samples)", _log_width, confidence)
        _draw_values(panels[1], pools, "centroid (samples from origin)", _centroid, confidence)
    else:
        _draw_logs(panels[0], pools, "width along x / along y", log_axes, confidence)
        _draw_logs(panels[1], pools, "longest / shortest width", log_ratio, confidence)
        _draw_shares(panels[2], pools, confidence)
    panels[0].set_yticks(range(len(pools)), [_label(pool) for pool in pools])
    panels[0].set_ylim(len(pools) - 0.6, -0.95)
    for axes in panels:
        style.clean(axes)
        axes.tick_params(axis="y", length=0)
    _legend(upper, any(pool.control for pool in pools), confidence)
    kernels = lower.subplots(rows, columns, squeeze=False).ravel()
    for axes in kernels[len(pools) :]:
        axes.set_axis_off()
    for place, (axes, pool) in enumerate(zip(kernels, pools, strict=False)):
        _draw_mean_kernel(axes, pool)
        if place % columns:
            axes.set_ylabel("")
        style.clean(axes)
        axes.tick_params(labelsize=7)
    return figure


def left_out(pools: Sequence[Pool[LayerShape]]) -> str:
    """Say that not all stages are drawn, if so."""
    return f" Drawn are the first {MOST} of the {len(pools)} stages." if len(pools) > MOST else ""


def _ndim(pool: Pool[LayerShape]) -> int:
    return pool.trained[0].moments.ndim


def _label(pool: Pool[LayerShape]) -> str:
    return f"stage {pool.facts['stage']}, map {pool.facts['map']}\n{pool.facts['kind']}"


def _log_width(shape: LayerShape) -> np.ndarray:
    width = shape.moments.along(-1)
    return np.log(np.where(width > 0, width, np.nan))


def _centroid(shape: LayerShape) -> np.ndarray:
    centroid: np.ndarray = shape.moments.center[:, -1]
    return centroid


def _draw_logs(
    axes: Any, pools: Sequence[Pool[LayerShape]], label: str, of: Of, confidence: float
) -> None:
    _draw_values(axes, pools, label, of, confidence)
    low, high = axes.get_xlim()
    inside = [[v for v in ticks if low <= math.log(v) <= high] for ticks in TICKS]
    ticks = next((some for some in inside if len(some) >= 3), inside[-1])
    axes.set_xticks([math.log(v) for v in ticks], [_ratio(v) for v in ticks])


def _ratio(value: float) -> str:
    inverse = 1 / value
    return f"1/{inverse:g}" if value < 1 and inverse == round(inverse) else f"{value:g}"


def _draw_values(
    axes: Any, pools: Sequence[Pool[LayerShape]], label: str, of: Of, confidence: float
) -> None:
    """Histograms one below the other, with the mean and its interval under each."""
    axes.set_xlabel(label)
    everything = np.concatenate([np.concatenate([p.values(of), *p.draws(of)]) for p in pools])
    if not len(everything):
        axes.text(
            0.5,
            0.5,
            "no kernel has a width",
            transform=axes.transAxes,
            ha="center",
            color=style.INK,
        )
        return
    low, high = np.quantile(everything, [0.005, 0.995])
    margin = max(0.04 * (high - low), 0.05)
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    axes.set_xlim(edges[0], edges[-1])
    axes.axvline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    for place, pool in enumerate(pools):
        values, control = pool.values(of), pool.draws(of)
        parts = [(values, style.TRAINED), (np.concatenate([*control, np.empty(0)]), style.CONTROL)]
        heights = [np.histogram(part, edges)[0] / max(1, len(part)) for part, _ in parts]
        tallest = max(float(height.max()) for height in heights) or 1.0
        for (part, color), height in zip(parts, heights, strict=True):
            if len(part):
                _draw_ridge(axes, place, edges, height / tallest, color)
        if len(values):
            _draw_mean(axes, place + 0.12, values, style.TRAINED, confidence)
        means = [float(draw.mean()) for draw in control if len(draw)]
        axes.plot(means, [place + 0.24] * len(means), "|", color=style.CONTROL, markersize=4)


def _draw_ridge(axes: Any, place: int, edges: np.ndarray, height: np.ndarray, color: str) -> None:
    outline = place - 0.72 * np.repeat(height, 2)
    steps = np.repeat(edges, 2)[1:-1]
    if color == style.TRAINED:
        axes.fill_between(steps, place, outline, color=color, alpha=0.3, linewidth=0)
    axes.plot(steps, outline, color=color, linewidth=0.9)


def _draw_mean(axes: Any, height: float, values: np.ndarray, color: str, confidence: float) -> None:
    axes.plot(bootstrap_mean(values, confidence), [height] * 2, color=color, linewidth=1.6)
    axes.plot(values.mean(), height, "o", color=color, markersize=3.5)


def _draw_shares(axes: Any, pools: Sequence[Pool[LayerShape]], confidence: float) -> None:
    """Share of kernels closer to a square, with its interval."""
    axes.set_xlabel("kernels closer to a square (%)")
    axes.set_xlim(-3, 103)
    axes.set_xticks(range(0, 101, 25))
    for place, pool in enumerate(pools):
        squarer = pool.values(lambda s: s.squarer)
        if not len(squarer):
            reason = pool.trained[0].reason or "too narrow to tell"
            axes.text(50, place, reason, ha="center", va="center", fontsize=7, color=style.AXIS)
            continue
        ends = wilson(int(squarer.sum()), len(squarer), confidence)
        axes.plot([50, 50], [place - 0.4, place + 0.4], color=style.FAINT, linewidth=0.8, zorder=0)
        axes.plot(100 * np.array(ends), [place - 0.1] * 2, color=style.TRAINED, linewidth=1.6)
        axes.plot(100 * squarer.mean(), place - 0.1, "o", color=style.TRAINED, markersize=3.5)
        axes.text(101, place - 0.1, f"of {len(squarer)}", fontsize=7, color=style.AXIS, va="center")
        shares = [100 * draw.mean() for draw in pool.draws(lambda s: s.squarer) if len(draw)]
        axes.plot(shares, [place + 0.14] * len(shares), "|", color=style.CONTROL, markersize=4)


def _legend(upper: Any, control: bool, confidence: float) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=style.TRAINED,
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            label=f"trained: kernels, mean and its {100 * confidence:g} % interval",
        ),
    ]
    if control:
        handles.append(
            Line2D(
                [],
                [],
                color=style.CONTROL,
                marker="|",
                markersize=4,
                linewidth=0.9,
                label="untrained: kernels, mean of each network",
            )
        )
    upper.legend(
        handles=handles,
        loc="outside upper right",
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor=style.INK,
    )


def _draw_mean_kernel(axes: Any, pool: Pool[LayerShape]) -> None:
    mean, taps = mean_kernel(pool.trained)
    axes.set_title(f"stage {pool.facts['stage']}, {pool.facts['kind']}", loc="left")
    while mean.ndim > 2:
        mean, taps = mean.sum(axis=0), taps[1:]
    if not mean.any():
        axes.set_axis_off()
        return
    found, dashed = moments(mean[None], taps), True
    if not too_few(mean.shape):
        fitted = fit(mean[None], taps).ellipses
        if np.isfinite(fitted.center).all():
            found, dashed = fitted, False
    if mean.ndim == 1:
        _draw_curve(axes, mean, taps[0], found, "--" if dashed else "-")
    else:
        _draw_image(axes, mean, taps, found, "--" if dashed else "-")


def mean_kernel(layers: Sequence[LayerShape]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Mean magnitude of the kernels of some layers, their origins on each other.

    Origins that lie between two taps are moved to the later one where other layers' do not.
    """
    low = [int(min(math.floor(layer.taps[a][0]) for layer in layers)) for a in _axes(layers)]
    high = [int(max(math.floor(layer.taps[a][-1]) for layer in layers)) for a in _axes(layers)]
    mean = np.zeros([last - first + 1 for first, last in zip(low, high, strict=True)])
    for layer in layers:
        where = tuple(
            slice(math.floor(taps[0]) - first, math.floor(taps[0]) - first + len(taps))
            for taps, first in zip(layer.taps, low, strict=True)
        )
        mean[where] += len(layer.moments.center) * layer.mean
    shift = [taps[0] - math.floor(taps[0]) for taps in layers[0].taps]
    axes = [
        np.arange(first, last + 1) + part
        for first, last, part in zip(low, high, shift, strict=True)
    ]
    return mean / sum(len(layer.moments.center) for layer in layers), axes


def _axes(layers: Sequence[LayerShape]) -> range:
    return range(layers[0].moments.ndim)


def _draw_image(
    axes: Any, mean: np.ndarray, taps: Sequence[np.ndarray], found: Ellipses, linestyle: str
) -> None:
    (bottom, right), (y, x) = found.center[0], taps
    axes.imshow(
        mean,
        cmap="Greys",
        vmin=0,
        interpolation="nearest",
        extent=(x[0] - 0.5, x[-1] + 0.5, y[-1] + 0.5, y[0] - 0.5),
    )
    for widths in (1, 2):
        axes.add_patch(
            Ellipse(
                (right, bottom),
                2 * widths * found.principal[0, 0],
                2 * widths * found.principal[0, 1],
                angle=-np.nan_to_num(found.orientation[0]),
                fill=False,
                edgecolor=style.TRAINED,
                linestyle=linestyle,
                linewidth=1.1,
            )
        )
    reach = max(SEEN * float(found.principal[0, 0]), 2.5)
    axes.set_xlim(max(x[0] - 0.5, right - reach), min(x[-1] + 0.5, right + reach))
    axes.set_ylim(min(y[-1] + 0.5, bottom + reach), max(y[0] - 0.5, bottom - reach))
    axes.set_xlabel("x (samples)")
    axes.set_ylabel("y (samples)")
    axes.locator_params(integer=True, nbins=4)


def _draw_curve(
    axes: Any, mean: np.ndarray, taps: np.ndarray, found: Ellipses, linestyle: str
) -> None:
    axes.plot(taps, mean, color=style.INK, linewidth=1.0, marker="." if len(taps) < 40 else None)
    center, width = float(found.center[0, 0]), float(found.sigma[0, 0])
    if width > 0:
        grid = np.linspace(taps[0], taps[-1], 400)
        profile = np.exp(-0.5 * ((grid - center) / width) ** 2)
        at_taps = np.exp(-0.5 * ((taps - center) / width) ** 2)
        height = float(mean @ at_taps / np.square(at_taps).sum())
        axes.plot(grid, height * profile, color=style.TRAINED, linestyle=linestyle, linewidth=1.1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("position (samples)")
    axes.set_ylabel("mean |kernel|")
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.locator_params(axis="y", nbins=4)
