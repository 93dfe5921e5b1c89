"""Pictures of a comparison of kernel networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from sizeless.study.fitting.networks import NETWORKS
from sizeless.study.fitting.njet import LABEL, NJET
from sizeless.study.fitting.store import FINAL, TARGET
from sizeless.study.style import AXIS, CONTROL, DIVERGING, INK, SEQUENTIAL, WIDTH, clean, panels

COLORS = {
    "magnet": "#1f5fa8",
    "gabor": "#54b0d9",
    "fourier": "#2a9d6f",
    "siren": "#d1701c",
    "nsiren": "#c9a227",
    "mlp": "#b3261e",
    NJET: CONTROL,
}
DARK, LIGHT = "#111111", "#fafafa"
"""Numbers on bright and on dark cells, whatever the colours of the page."""
EXACT = 1e-12
"""Errors below this are rounding, in single precision."""
FLOOR = 1e-8
"""Errors below this have the same colour, and lie on the lower edge of the panels."""
LOWEST = 1e-9
"""Smallest energy that is drawn, relative to the largest of the target."""
GAP = 1.12
"""Distance from one kernel to the next, in widths of a kernel."""
FIRST_ROW = 0.25


def label(network: str) -> str:
    """What a network is called in pictures."""
    return LABEL if network == NJET else NETWORKS[network].label


def names(table: pd.DataFrame, column: str) -> list[str]:
    """Return the names in a column, in the order in which they appear."""
    return list(dict.fromkeys(table[column]))


def network_names(table: pd.DataFrame) -> list[str]:
    """Return the networks in a table, in the order in which they are always shown."""
    there = set(table["network"])
    return [name for name in COLORS if name in there]


def errors(table: pd.DataFrame) -> Figure:
    """Draw normalised errors at the taps and between them, with the lowest of each row outlined."""
    targets, networks = names(table, "target"), network_names(table)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.36 * len(targets)), dpi=120, layout="constrained")
    parts = figure.subplots(1, 2, sharey=True)
    cells = table.set_index(["target", "network"])
    grids = [
        np.array([[cells[column].get((t, n), np.nan) for n in networks] for t in targets])
        for column in ("nmse", "between_nmse")
    ]
    low = min(-1.0, *(float(np.nanmin(_logs(np.append(grid, 1.0)))) for grid in grids))
    for axes, grid, title in zip(parts, grids, ("at the taps", "between the taps"), strict=True):
        image = axes.imshow(_logs(grid), cmap=SEQUENTIAL, vmin=low, vmax=0.0, aspect="auto")
        _write_cells(axes, grid, 0.45 * low)
        axes.set_xticks(range(len(networks)), [label(name) for name in networks])
        axes.set_yticks(range(len(targets)), targets)
        clean(axes)
        axes.set_title(f"error {title} / variance", fontsize=9, color=INK, pad=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    bar = figure.colorbar(image, ax=parts, shrink=0.9, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=AXIS, labelcolor=INK, labelsize=8)
    bar.set_label("power of 10", color=INK, fontsize=9)
    return figure


def shown(error: float) -> str:
    """Return an error as text, of two digits, or a bound where rounding decides it.

    Examples:
        >>> shown(0.0123), shown(3e-20), shown(float("nan"))
        ('1.2e-02', '<1e-12', '–')
    """
    if np.isnan(error):
        return "–"
    return f"{error:.1e}" if error >= EXACT else f"<{EXACT:.0e}"


def _logs(errors: np.ndarray) -> np.ndarray:
    return np.log10(np.clip(errors, FLOOR, None))


def _write_cells(axes: Any, grid: np.ndarray, bright: float) -> None:
    """Write the numbers into a map, on cells that are bright from a logarithm on."""
    lowest = np.nanmin(np.where(np.isnan(grid), np.inf, grid), axis=1)
    for (row, column), error in np.ndenumerate(grid):
        best = error == lowest[row]
        axes.text(
            *(column, row, shown(error)),
            ha="center",
            va="center",
            fontsize=7,
            fontweight="bold" if best else "normal",
            color=INK if np.isnan(error) else DARK if _logs(error) > bright else LIGHT,
        )
        if best:
            corner = (column - 0.46, row - 0.43)
            axes.add_patch(
                Rectangle(corner, 0.92, 0.86, fill=False, edgecolor=LIGHT, linewidth=1.5)
            )


def curves(fits: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw the lowest error so far over the steps: the median of the seeds and their range."""
    targets, networks = names(curves, "target"), network_names(curves)
    variances = (fits["mse"] / fits["nmse"]).groupby(fits["target"]).median()
    figure, grid = panels(len(targets))
    lowest = 1.0
    for axes, target in zip(grid, targets, strict=True):
        clean(axes)
        axes.set_title(target, loc="left", fontsize=9, color=INK)
        part = curves[curves["target"] == target]
        for network, rows in part.groupby("network", sort=False):
            errors = (rows["mse"] / variances[target]).clip(lower=FLOOR)
            seeds = errors.groupby(rows["step"]).agg(["median", "min", "max"])
            lowest = min(lowest, float(seeds["min"].min()))
            if network == NJET:
                axes.axhline(seeds["median"].iloc[-1], color=COLORS[NJET], linestyle="--")
                continue
            steps = np.maximum(seeds.index.to_numpy(dtype=float), 1.0)
            color = COLORS[network]
            axes.plot(steps, seeds["median"], color=color, linewidth=1.5)
            axes.fill_between(
                steps, seeds["min"], seeds["max"], color=color, alpha=0.2, linewidth=0
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
    for axes in grid:
        axes.set_ylim(lowest / 2, 3.0)
    _outer_labels(grid, "step", "error / variance")
    _legend(figure, networks)
    return figure


def spectra(fits: pd.DataFrame, spectra: pd.DataFrame) -> Figure:
    """Draw energy over frequency, relative to the target's largest, with Nyquist and bounds."""
    targets, networks = names(spectra, "target"), network_names(spectra)
    figure, grid = panels(len(targets))
    for axes, target in zip(grid, targets, strict=True):
        clean(axes)
        axes.set_title(target, loc="left", fontsize=9, color=INK)
        part = spectra[spectra["target"] == target]
        own = part[part["network"] == TARGET]
        peak = own["energy"].max()
        axes.plot(own["frequency"], own["energy"] / peak, color=INK, linewidth=3.5, alpha=0.35)
        for network in networks:
            rows = part[part["network"] == network]
            axes.plot(
                rows["frequency"],
                rows["energy"] / peak,
                color=COLORS[network],
                linewidth=1.1,
                linestyle=_style(network),
            )
        first = fits[(fits["target"] == target) & (fits["stage"] == FINAL)]
        first = first.drop_duplicates("network")
        nyquist, end = float(first["nyquist"].iloc[0]), float(part["frequency"].max())
        axes.axvline(nyquist, color=AXIS, linestyle=":", linewidth=1.5)
        axes.set_xlim(0, end)
        axes.set_yscale("log")
        axes.set_ylim(LOWEST, 30.0)
        _mark_bounds(axes, first, end)
    _outer_labels(grid, "frequency (cycles per unit)", "energy / peak of target")
    _legend(
        figure,
        networks,
        Line2D([], [], color=INK, linewidth=3.5, alpha=0.35, label="target"),
        Line2D([], [], color=AXIS, linestyle=":", linewidth=1.5, label="Nyquist"),
        Line2D([], [], color=INK, marker="v", linestyle="none", markersize=5, label="bound"),
        Line2D([], [], color=INK, marker=">", linestyle="none", markersize=5, label="beyond"),
    )
    return figure


def _mark_bounds(axes: Any, fits: pd.DataFrame, end: float) -> None:
    """Put a mark at the analytic bound of each network, or at the edge if it lies beyond."""
    beyond = 0
    for network, bound in zip(fits["network"], fits["bound"], strict=True):
        if np.isnan(bound):
            continue
        inside = bound <= end
        place = (bound / end, 0.97) if inside else (0.985, 0.97 - 0.07 * beyond)
        beyond += not inside
        axes.plot(
            *([position] for position in place),
            marker="v" if inside else ">",
            color=COLORS[network],
            markersize=5,
            transform=axes.transAxes,
        )


def kernels(values: Mapping[str, np.ndarray]) -> Figure:
    """Draw the first channel of targets and fits, with the error of all channels below."""
    pairs = pd.DataFrame([name.rsplit("/", 1) for name in values], columns=["target", "network"])
    targets, columns = names(pairs, "target"), [TARGET, *network_names(pairs)]
    inches = WIDTH / (len(columns) * GAP + 0.5)
    row_height = GAP + 0.12
    height = len(targets) * row_height + FIRST_ROW
    figure = Figure(figsize=(WIDTH, height * inches), dpi=120)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-0.5, len(columns) * GAP)
    axes.set_ylim(height - FIRST_ROW, -FIRST_ROW)
    for column, name in enumerate(columns):
        heading = "target" if name == TARGET else label(name)
        axes.text(column * GAP + 0.5, -0.06, heading, ha="center", color=INK, fontsize=9)
    for row, target in enumerate(targets):
        top = row * row_height
        axes.text(-0.06, top + 0.5, target, rotation=90, ha="right", va="center", color=INK)
        wanted = values[f"{target}/{TARGET}"]
        for column, name in enumerate(columns):
            found = values.get(f"{target}/{name}")
            if found is None:
                continue
            _place(axes, found[0], float(np.abs(wanted[0]).max()), column * GAP, top)
            if name != TARGET:
                error = np.mean((found - wanted) ** 2) / np.mean(_centred(wanted) ** 2)
                axes.text(
                    *(column * GAP + 0.5, top + 1.11, f"{error:.1e}"),
                    ha="center",
                    color=INK,
                    fontsize=7,
                )
    return figure


def _place(axes: Any, kernel: np.ndarray, peak: float, left: float, top: float) -> None:
    """Draw one kernel into a square of side 1."""
    if kernel.ndim == 1:
        places = np.linspace(left, left + 1, len(kernel))
        axes.plot(
            places, top + 0.5 - 0.45 * np.clip(kernel / peak, -1.1, 1.1), color=INK, linewidth=0.4
        )
        return
    # The limits of the axes stay as they are: imshow would fit them to the picture.
    axes.imshow(
        kernel,
        cmap=DIVERGING,
        vmin=-peak,
        vmax=peak,
        interpolation="nearest",
        extent=(left, left + 1, top + 1, top),
        aspect="auto",
    )
    axes.autoscale(False)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)


def _style(network: str) -> Literal["-", "--"]:
    return "--" if network == NJET else "-"


def _outer_labels(grid: Sequence[Any], below: str, beside: str, columns: int = 3) -> None:
    for axes in grid[-columns:]:
        axes.set_xlabel(below)
    for axes in grid[::columns]:
        axes.set_ylabel(beside)


def _legend(figure: Figure, networks: Sequence[str], *more: Line2D) -> None:
    def lines() -> Iterator[Line2D]:
        for name in networks:
            yield Line2D([], [], color=COLORS[name], linestyle=_style(name), label=label(name))

    handles = [*more[:1], *lines(), *more[1:]]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 10),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )
