"""Pictures of the results: ratios on logarithmic axes, with a line where both are equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sizeless._files import write_atomically
from sizeless.bench.rows import Row
from sizeless.bench.summary import FAR, NEAR, Verdict, meets, ratio_of, verdicts

INK = "0.25"
WAY, PEER, MISSED = "#1f5fa8", "#d1701c", "#b3261e"
SLOWER, MUCH_SLOWER = "#f9ede5", "#f1d3c5"
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9}
RATIOS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
MODE_FILLS = {"training": True, "forward": False}


def draw_convolve(rows: Sequence[Row], path: Path) -> None:
    """Draw our time over the best way's, and over the best package's, against the kernel size.

    One panel for each kind of convolution.

    Args:
        rows: Rows of the suite ``convolve``.
        path: A PNG.
    """
    found = verdicts(rows)
    ndims = sorted({v.ours.kind.split()[0] for v in found})
    kinds = [k for k in ("dense", "grouped", "depthwise") if any(k in v.ours.kind for v in found)]
    figure = Figure(figsize=(4.0 * len(kinds) + 0.6, 2.7 * len(ndims) + 1.1), layout="constrained")
    grid = figure.subplots(len(ndims), len(kinds), squeeze=False, sharey=True)
    lowest = min(
        [v.ratio for v in found] + [ratio_of(v.peer) for v in found if v.peer], default=0.5
    )
    highest = max([v.ratio for v in found], default=1.0)
    for row, ndim in zip(grid, ndims, strict=True):
        for axes, kind in zip(row, kinds, strict=True):
            part = [v for v in found if v.ours.kind == f"{ndim} {kind}"]
            _draw_panel(axes, part)
            axes.set_title(f"{ndim} {kind}", loc="left", fontsize=10, color=INK)
            axes.set_ylim(min(lowest, 0.5) / 1.2, max(highest * 1.15, 1.6))
            _ratio_axis(axes.yaxis)
    for axes in grid[-1]:
        axes.set_xlabel("kernel, taps per axis")
    figure.supylabel("time of sizeless / time of the alternative", fontsize=10, color=INK)
    figure.suptitle(
        "sizeless.functional.convolve against the fastest alternative: below 1, sizeless is faster",
        x=0.01,
        ha="left",
        fontsize=11,
        color=INK,
    )
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, **LEGEND)
    _save(figure, path)


def _draw_panel(axes: Any, part: Sequence[Verdict]) -> None:
    _clean(axes)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.axhspan(NEAR, FAR, color=SLOWER, linewidth=0, zorder=0)
    axes.axhspan(FAR, 1e3, color=MUCH_SLOWER, linewidth=0, zorder=0)
    axes.axhline(1, color=INK, linewidth=1, zorder=1)
    if not part:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="0.6")
        axes.xaxis.set_major_locator(NullLocator())
        axes.xaxis.set_minor_locator(NullLocator())
        return
    sizes = sorted({v.ours.kernel or 1 for v in part})
    low, high = sizes[0] / 1.5, sizes[-1] * 1.5
    # Four marks side by side around each kernel size, so that they do not cover each other.
    step = (high / low) ** 0.014
    for verdict in part:
        size, filled = verdict.ours.kernel or 1, MODE_FILLS[verdict.ours.mode]
        middle = size * step ** (1 if filled else -1)
        _mark(axes, middle * step**-0.5, verdict.ratio, WAY, "o", filled)
        if verdict.peer:
            _mark(axes, middle * step**0.5, ratio_of(verdict.peer), PEER, "^", filled)
    axes.xaxis.set_major_locator(FixedLocator(_spread(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _taps(value)))
    axes.set_xlim(low, high)


def _mark(axes: Any, x: float, y: float, color: str, marker: str, filled: bool) -> None:
    axes.plot(
        [x],
        [y],
        marker=marker,
        markersize=5,
        color=color,
        markerfacecolor=color if filled else "white",
        markeredgewidth=1,
        linestyle="none",
        alpha=0.9,
        zorder=3,
    )


def _spread(sizes: Sequence[int]) -> list[int]:
    """Of kernel sizes, those whose labels do not touch on a logarithmic axis."""
    span = math.log2(sizes[-1] / sizes[0]) if len(sizes) > 1 else 1.0
    kept = [sizes[0]]
    for size in sizes[1:]:
        if math.log2(size / kept[-1]) >= span / 9:
            kept.append(size)
    return kept


def _taps(value: float) -> str:
    return f"{value / 1000:.3g}k" if value >= 10000 else f"{value:.0f}"


def _legend() -> list[Artist]:
    marks: list[Artist] = [
        _legend_mark(color, marker, filled, f"over {other}, {mode}")
        for color, marker, other in (
            (WAY, "o", "best of torch and FFT"),
            (PEER, "^", "best package"),
        )
        for mode, filled in MODE_FILLS.items()
    ]
    return [
        *marks,
        Patch(color=SLOWER, label=f"more than {NEAR:.2f} (asked: at most 5 % of the circles)"),
        Patch(color=MUCH_SLOWER, label=f"more than {FAR:.2f} (asked: none)"),
    ]


def _legend_mark(color: str, marker: str, filled: bool, label: str) -> Line2D:
    face = color if filled else "white"
    return Line2D(
        [], [], color=color, marker=marker, markerfacecolor=face, linestyle="none", label=label
    )


def draw_bars(suite: str, rows: Sequence[Row], path: Path) -> None:
    """Draw how many times faster ours is than every alternative, and what is asked for.

    Args:
        suite: Name of the suite.
        rows: Its rows.
        path: A PNG.
    """
    shown = [row for row in rows if row.role not in {"ours", "limit"} and row.ours_over_this]
    # A line for each, and one for the heading of each kind.
    lines: list[Row | str] = []
    for kind in dict.fromkeys(row.kind for row in shown):
        lines += [kind, *(row for row in shown if row.kind == kind)]
    figure = Figure(figsize=(11, 1.6 + 0.22 * max(len(lines), 4)), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    for place, line in enumerate(lines):
        if isinstance(line, Row):
            _draw_bar(axes, place, line)
    axes.set_yticks(range(len(lines)), [_label(line) for line in lines], fontsize=8)
    for line, label in zip(lines, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if isinstance(line, str) else "normal")
    axes.set_ylim(len(lines) - 0.2, -0.8)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 2) * 1.3)
    axes.xaxis.set_major_locator(FixedLocator([1 / r for r in RATIOS]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
    axes.set_xlabel("how many times faster sizeless is (right of 1: faster)")
    figure.suptitle(f"sizeless bench, suite {suite}", x=0.01, ha="left", fontsize=11, color=INK)
    kinds: list[Artist] = [
        _legend_mark(color, "o", filled, f"{mode}{fate}")
        for color, fate in ((WAY, ""), (MISSED, ", misses its bar"))
        for mode, filled in MODE_FILLS.items()
    ]
    bar = Line2D([], [], color=PEER, marker="|", markersize=10, linestyle="none", label="asked for")
    figure.legend(handles=[*kinds, bar], loc="outside lower center", ncols=5, **LEGEND)
    _save(figure, path)


def _label(line: Row | str) -> str:
    return line if isinstance(line, str) else f"{line.case}, {line.mode}, against {line.contender}"


def _draw_bar(axes: Any, place: int, row: Row) -> None:
    speed_up, asked = 1 / ratio_of(row), 0.0
    color = MISSED if meets(row) is False else WAY
    axes.plot([1, speed_up], [place, place], color=color, linewidth=1.2, alpha=0.5, zorder=2)
    _mark(axes, speed_up, place, color, "o", MODE_FILLS[row.mode])
    if row.bar is not None:
        asked = 1 / row.bar
        axes.plot([asked], [place], marker="|", markersize=11, color=PEER, zorder=4)
    end = max(speed_up, 1.0)
    axes.annotate(
        f"{speed_up:.3g}×",
        # Not where the bar is drawn.
        (asked if end <= asked < 1.6 * end else end, place),
        textcoords="offset points",
        xytext=(7, 0),
        va="center",
        fontsize=7,
        color=color if color == MISSED else INK,
    )


def _ratio_axis(axis: Any) -> None:
    axis.set_major_locator(FixedLocator(RATIOS))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
    axes.tick_params(color="0.6", labelcolor=INK, labelsize=8)
    axes.grid(axis="both", color="0.92", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(INK)


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))
