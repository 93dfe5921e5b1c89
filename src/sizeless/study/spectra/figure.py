"""The picture of frequency responses: radial averages, trained against untrained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from sizeless.study import style
from sizeless.study.pools import Pool
from sizeless.study.spectra.measure import NYQUIST, LayerSpectra

MOST = 12
"""Stages that one picture has room for."""
SAID = 6
"""Panels whose bandwidths the caption tells."""
LOW_AND_HIGH = (0.1, 0.9)


def draw(pools: Sequence[Pool[LayerSpectra]], level: float) -> Figure:
    """Draw a panel for each stage, or for the first twelve."""
    pools = pools[:MOST]
    figure, panels = style.panels(len(pools))
    for axes, pool in zip(panels, pools, strict=True):
        _draw_panel(axes, pool, level)
    for axes in panels[::3]:
        axes.set_ylabel("magnitude (flat = 1)")
    for axes in panels:
        style.clean(axes)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper left",
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=style.INK,
    )
    return figure


def _left_out(pools: Sequence[Pool[LayerSpectra]]) -> str:
    """Say that not all stages are drawn, if so."""
    return f" Drawn are the first {MOST} of the {len(pools)} stages." if len(pools) > MOST else ""


def _draw_panel(axes: Any, pool: Pool[LayerSpectra], level: float) -> None:
    frequency = pool.trained[0].frequency
    end = NYQUIST * math.sqrt(len(pool.trained[0].grid))
    axes.set_title(pool.label, loc="left")
    axes.set_xlabel("frequency (cycles/pixel)")
    _draw_trained(axes, pool, frequency, level)
    if pool.control:
        _draw_control(axes, pool, frequency)
    axes.axvline(NYQUIST, color=style.INK, linewidth=0.8, zorder=1, label="Nyquist frequency")
    for stride in sorted({s for layer in pool.trained for s in layer.strides}):
        axes.axvline(
            NYQUIST / stride,
            color=style.INK,
            linewidth=0.8,
            linestyle=":",
            zorder=1,
            label="Nyquist frequency of a strided output",
        )
    if end > NYQUIST:
        corners = "corners of the spectrum"
        axes.axvspan(NYQUIST, end, color=style.SHADE, linewidth=0, zorder=0, label=corners)
    axes.set_xlim(0, 1.01 * end)
    axes.set_ylim(bottom=0)


def _draw_trained(axes: Any, pool: Pool[LayerSpectra], frequency: np.ndarray, level: float) -> None:
    magnitude = rows(pool.trained, frequency)
    if not len(magnitude):
        axes.text(
            0.5,
            0.5,
            "no kernel has any energy",
            transform=axes.transAxes,
            ha="center",
            color=style.INK,
        )
        return
    known = np.isfinite(magnitude[0])
    axes.plot(
        frequency[known],
        magnitude[:, known].mean(axis=0),
        color=style.TRAINED,
        linewidth=1.4,
        marker="." if known.sum() < 16 else None,
        markersize=4,
        label="mean over kernels",
        zorder=3,
    )
    low, high = np.quantile(magnitude[:, known], LOW_AND_HIGH, axis=0)
    axes.fill_between(
        frequency[known],
        low,
        high,
        color=style.TRAINED,
        alpha=0.18,
        linewidth=0,
        label="10 to 90 % of kernels",
        zorder=2,
    )
    label = f"bandwidth: {100 * level:g} % of the energy"
    _mark(axes, pool.values(lambda s: s.bandwidth), style.TRAINED, label)


def rows(
    layers: Sequence[LayerSpectra],
    frequency: np.ndarray,
    of: Literal["magnitude", "energy"] = "magnitude",
) -> np.ndarray:
    """Radial averages of the kernels of some layers, ``(count, rings)``, of those that have any.

    Layers whose maps have another size, as behind a stride that was learned, have other rings;
    between these it is interpolated.
    """
    found = np.concatenate([_at(frequency, layer, getattr(layer, of)) for layer in layers])
    return found.astype(np.float64)[np.isfinite(found[:, 0])]


def _at(frequency: np.ndarray, layer: LayerSpectra, values: np.ndarray) -> np.ndarray:
    if np.array_equal(frequency, layer.frequency) or not len(values):
        return values if len(values) else np.empty((0, len(frequency)))
    filled = np.isfinite(values).any(axis=0)
    rings = layer.frequency[filled]
    return np.stack([np.interp(frequency, rings, row[filled]) for row in values])


def _draw_control(axes: Any, pool: Pool[LayerSpectra], frequency: np.ndarray) -> None:
    every = (rows(layers, frequency) for layers in pool.control)
    draws = [part.mean(axis=0) for part in every if len(part)]
    if not draws:
        return
    means = np.stack(draws)
    known = np.isfinite(means[0])
    axes.plot(
        frequency[known],
        means[:, known].mean(axis=0),
        color=style.CONTROL,
        linewidth=1.2,
        linestyle="--",
        label="mean of untrained networks",
        zorder=2.5,
    )
    axes.fill_between(
        frequency[known],
        means[:, known].min(axis=0),
        means[:, known].max(axis=0),
        color=style.FAINT,
        alpha=0.8,
        linewidth=0,
        label="range of untrained networks",
        zorder=1.5,
    )
    together = np.concatenate(pool.draws(lambda s: s.bandwidth))
    _mark(axes, together, style.CONTROL, "bandwidth, untrained", size=9)


def _mark(axes: Any, bandwidths: np.ndarray, color: str, label: str, size: float = 5) -> None:
    if len(bandwidths):
        axes.plot(
            np.median(bandwidths),
            0.025,
            "^",
            color=color,
            markersize=size,
            label=label,
            transform=axes.get_xaxis_transform(),
            zorder=4 - size / 9,
        )


def caption(pools: Sequence[Pool[LayerSpectra]], level: float) -> str:
    """Say what is drawn, and the bandwidths of the first panels."""
    text = (
        "Magnitude of the frequency response of kernels of unit energy against the radial "
        "frequency: mean over kernels and their 10 % and 90 % quantiles (band). Triangles: median "
        f"frequency up to which {100 * level:g} % of a kernel's energy lies."
    )
    if any(len(pool.trained[0].grid) > 1 for pool in pools):
        text += (
            " Beyond the Nyquist frequency of an axis only the corners of the spectrum are left "
            "(shaded)."
        )
    text += _left_out(pools)
    if any(pool.control for pool in pools):
        text += " Grey, dashed: the mean of untrained networks, with the range of their means."
    parts = []
    for pool in pools[:SAID]:
        row = pool.compare("bandwidth", lambda s: s.bandwidth)
        part = f"{pool.label} {row['bandwidth']:.2f}"
        if pool.control:
            part += f" (untrained {row['control bandwidth']:.2f})"
        parts.append(part)
    more = f" and {len(pools) - SAID} more" if len(pools) > SAID else ""
    return f"{text} Bandwidths in cycles per pixel: {', '.join(parts)}{more}."
