"""The picture of effective sizes: mass against the window, trained against untrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sizeless.study import style
from sizeless.study.effective.curves import (
    LOW_AND_HIGH,
    Curve,
    KernelSizes,
    curve,
    grid_of,
    percent,
)
from sizeless.study.groups import called
from sizeless.study.pools import Pool

FEW = 6
"""Layers that get a panel each, and windows that get a tick each."""
MARKED = 30
"""Window sizes up to which each is marked."""
TITLE = 42
"""Letters that a panel's title has room for."""
SAID = 6
"""Panels whose sizes the caption tells."""


def draw(pools: Sequence[Pool[KernelSizes]], levels: Sequence[float]) -> Figure:
    """Draw a panel for each of the pools that has a curve."""
    pools = _with_curves(pools)
    figure, panels = style.panels(len(pools))
    for axes, pool in zip(panels, pools, strict=True):
        _draw_panel(axes, pool, levels)
    for axes in panels[::3]:
        axes.set_ylabel("share of the kernel's mass")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=8,
        labelcolor=style.INK,
    )
    for axes in panels:
        style.clean(axes)
    return figure


def _with_curves(pools: Sequence[Pool[KernelSizes]]) -> Sequence[Pool[KernelSizes]]:
    """Those with more than one window size, if there are any; a 2 x 2 kernel has but one."""
    return [pool for pool in pools if len(grid_of(pool)) > 1] or pools


def _draw_panel(axes: Any, pool: Pool[KernelSizes], levels: Sequence[float]) -> None:
    grid = grid_of(pool)
    found = curve(pool.trained, grid)
    for level in levels:
        axes.axhline(level, color=style.SHADE, linewidth=0.8, zorder=0)
    if pool.control:
        _draw_control(axes, pool, grid, levels)
    low, high = (percent(at).removesuffix(" %") for at in LOW_AND_HIGH)
    axes.fill_between(
        grid,
        found.low,
        found.high,
        color=style.TRAINED,
        alpha=0.18,
        linewidth=0,
        label=f"{low} to {high} % of kernels",
    )
    axes.plot(grid, found.mean, color=style.TRAINED, linewidth=1.4, label="mean", zorder=2.2)
    _mark(axes, found, levels, color=style.TRAINED, label="effective size")
    axes.set_title(_title(pool), loc="left", fontsize=9, color=style.INK)
    causal = all(sizes.causal for sizes in pool.trained)
    axes.set_xlabel("newest samples" if causal else "window side (samples)")
    axes.set_xlim(0, max(2, grid[-1]) * 1.02)
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    if len(grid) <= FEW:
        axes.set_xticks(grid)
    else:
        axes.locator_params(axis="x", integer=True, nbins=6)


def _draw_control(
    axes: Any, pool: Pool[KernelSizes], grid: np.ndarray, levels: Sequence[float]
) -> None:
    means = np.stack([curve(part, grid).mean for part in pool.control])
    together = curve([sizes for part in pool.control for sizes in part], grid)
    axes.fill_between(
        grid,
        means.min(axis=0),
        means.max(axis=0),
        color=style.FAINT,
        alpha=0.8,
        linewidth=0,
        label="untrained, range",
    )
    axes.plot(
        grid,
        together.mean,
        color=style.CONTROL,
        linewidth=1.2,
        linestyle="--",
        label="untrained, mean",
        zorder=2.4,
    )
    _mark(axes, together, levels, color=style.CONTROL)


def _mark(
    axes: Any, found: Curve, levels: Sequence[float], *, color: str, label: str | None = None
) -> None:
    """Mark where the mean reaches each level."""
    windows = found.reaching(levels)
    known = windows[np.isfinite(windows)]
    heights = found.mean[np.searchsorted(found.windows, known)]
    axes.plot(
        known, heights, "o", color=color, markersize=4, label=label, clip_on=False, zorder=2.6
    )
    if len(found.windows) <= MARKED:
        axes.plot(found.windows, found.mean, ".", color=color, markersize=2.5)


def _title(pool: Pool[KernelSizes]) -> str:
    """The end of a long name tells more than its beginning."""
    name, rest = pool.label, ""
    if pool.facts["of"] == "layer":
        rest = f", map {pool.facts['map']}"
    room = TITLE - len(rest)
    return (name if len(name) <= room else "…" + name[1 - room :]) + rest


def caption(pools: Sequence[Pool[KernelSizes]], levels: Sequence[float]) -> str:
    """Say what is drawn, and the sizes of the first panels."""
    missing, pools = len(pools), _with_curves(pools)
    missing -= len(pools)
    draws = len(pools[0].control)
    many = f"{draws} untrained network{'s' if draws > 1 else ''}"
    marks = ", ".join(map(percent, levels))
    text = (
        "Share of the L1 mass of kernels inside a window around their origin, against the "
        "window's side in samples: mean over kernels (line) and their 10 % and 90 % quantiles "
        f"(band). Dots: where the mean reaches {marks}."
    )
    if draws:
        text += f" Grey, dashed: the mean of {many}, with the range of their means."
    if missing:
        text += f" Not drawn: {missing} with a single window size."
    level = levels[len(levels) // 2]
    return f"{text} Window that holds {percent(level)}: {_said(pools, level)}."


def _said(pools: Sequence[Pool[KernelSizes]], level: float) -> str:
    parts = []
    for pool in pools[:SAID]:
        grid = grid_of(pool)
        (window,) = curve(pool.trained, grid).reaching([level])
        text = f"{called(pool.facts)}: {window:g}"
        if pool.control:
            control = [sizes for part in pool.control for sizes in part]
            (other,) = curve(control, grid).reaching([level])
            text += f" (untrained {other:g})"
        parts.append(text)
    more = len(pools) - SAID
    return "; ".join(parts) + (f" and {more} more" if more > 0 else "")
