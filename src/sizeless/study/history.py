"""How sizes and cost moved during training, from the tables that a run writes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from sizeless.study import style
from sizeless.study.result import Result
from sizeless.study.tracks import draw_tracks, layer_colors, legend_entries
from sizeless.surgery.report import short
from sizeless.trajectories import (
    COLUMNS,
    CostPoint,
    SizePoint,
    Track,
    read_costs,
    read_points,
    tracks,
)

SIZES, COSTS = "sizes.csv", "costs.csv"
"""Tables of a run folder."""

CLOSE = 0.05
"""A size that stays this near to its last one, relative to it, has converged."""

REST = {"stride": 0.01}
"""How near a size must be to a limit to lie at it; whole taps and samples: half of one."""

SUMMARY = (
    "name",
    "layer",
    "kind",
    "axis",
    "first",
    "last",
    "smallest",
    "largest",
    "converged",
    "limit",
)


@dataclass(frozen=True)
class Trajectories(Result):
    """Sizes, strides, centres and cost of a network over its training.

    The table has, per layer, axis and moment, the columns of ``sizeless.trajectories.SizePoint``
    (sizes, windows and centres in taps or samples, strides as factors) and ``macs``, the
    multiply-accumulates of a sample at that moment, NaN where they are not known.

    Attributes:
        points: Sizes over training; none of a network that learns no size.
        costs: Cost over training; none of a run that did not write it.
    """

    stem = "trajectories"
    title = "Sizes over training"

    points: tuple[SizePoint, ...]
    costs: tuple[CostPoint, ...] = ()

    def table(self) -> pd.DataFrame:
        """One row per layer, axis and moment."""
        macs = {(cost.epoch, cost.step): cost.macs for cost in self.costs}
        rows = [
            {**vars(point), "macs": macs.get((point.epoch, point.step), math.nan)}
            for point in self.points
        ]
        return pd.DataFrame(rows, columns=[*COLUMNS, "macs"])

    def summary(self) -> pd.DataFrame:
        """One row per layer and axis: where the size began and ended.

        ``first``, ``last``, ``smallest`` and ``largest`` are sizes; ``converged`` is the epoch from
        which on the size stayed within 5 % of the last one; ``limit`` is the limit at which it
        ended, ``"low"``, ``"high"`` or ``""``, or ``"fixed"`` where both are one.
        """
        rows = [_summary(name, axis, track) for (name, axis), track in tracks(self.points).items()]
        return pd.DataFrame(rows, columns=list(SUMMARY))

    def figure(self) -> Figure:
        """A panel for each kind of size, one of centres that moved, and one of the cost."""
        panels: list[tuple[str, dict[Track, list[SizePoint]]]] = [
            (kind, tracks(self.points, kind)) for kind in _kinds(self.points)
        ]
        moved = {track: line for track, line in tracks(self.points).items() if _moves(line)}
        if moved:
            panels.append(("center", moved))
        count = len(panels) + bool(self.costs)
        figure, every = style.panels(count or 1, columns=1)
        if not panels and not self.costs:
            every[0].set_axis_off()
            every[0].text(0.5, 0.5, "no layer of this network learns its size", color=style.INK)
        colors = layer_colors(self.points)
        for axes, (kind, lines) in zip(every, panels, strict=False):
            draw_tracks(axes, lines, colors, kind)
            style.clean(axes)
        if self.costs:
            _draw_costs(every[-1], self.costs)
        if panels:
            entries, title = legend_entries(tracks(self.points), colors)
            figure.legend(
                handles=entries,
                title=title,
                loc="outside right upper",
                frameon=False,
                fontsize=8,
                title_fontsize=8,
                labelcolor=style.INK,
                labelspacing=0.3,
            )
        return figure

    def caption(self) -> str:
        """From where to where the sizes and the cost went."""
        text = [_course(kind, tracks(self.points, kind)) for kind in _kinds(self.points)]
        if not text:
            text = ["No layer of this network learns its size."]
        if self.costs:
            first, last = (short(cost.macs) for cost in (self.costs[0], self.costs[-1]))
            text.append(f"One sample costs {last} multiply-accumulates, {first} at first.")
        return " ".join(text)


def trajectories(folder: Path | str) -> Trajectories:
    """Read how sizes and cost moved during the training of a run.

    Args:
        folder: Folder of a run, with ``sizes.csv`` and, of runs that count their cost,
            ``costs.csv``.

    Raises:
        FileNotFoundError: If the folder has no ``sizes.csv``.
        ValueError: If a table is empty, cut short or damaged.

    Examples:
        >>> import tempfile, sizeless
        >>> from sizeless.trajectories import snapshot, write_points
        >>> layer = sizeless.FlexConv1d(1, 1, kernel_size=33, init_size=5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_points(Path(folder) / "sizes.csv", snapshot(layer))
        ...     found = trajectories(folder)
        >>> found.summary()[["first", "last", "limit"]].values.tolist()
        [[5.0, 5.0, '']]
    """
    sizes, costs = Path(folder) / SIZES, Path(folder) / COSTS
    if not sizes.is_file():
        raise FileNotFoundError(
            f"{sizes} does not exist: name the folder of a run, as sizeless fit leaves it"
        )
    return Trajectories(tuple(_sizes_in(sizes)), tuple(_costs_in(costs)) if costs.is_file() else ())


def _sizes_in(path: Path) -> list[SizePoint]:
    _check_end(path)
    try:
        points = read_points(path)
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise _damaged(path, error) from error
    for point in points:
        if not (math.isfinite(point.size) and point.low <= point.high):
            raise _damaged(path, f"layer {point.name!r} has size {point.size} at step {point.step}")
    ends = {name: track[-1].step for (name, _), track in tracks(points).items()}
    for name, step in ends.items():
        if step < max(ends.values()):
            raise _damaged(path, f"layer {name!r} has no row after step {step}")
    return points


def _costs_in(path: Path) -> list[CostPoint]:
    _check_end(path)
    try:
        costs = read_costs(path)
    except (ValueError, csv.Error) as error:
        raise _damaged(path, error) from error
    if any(not math.isfinite(cost.macs) for cost in costs):
        raise _damaged(path, "a cost is no finite number")
    return sorted(costs, key=lambda cost: cost.step)


def _check_end(path: Path) -> None:
    """Raise unless a table ends with a whole row: a number that is cut short still reads as one."""
    content = path.read_bytes()
    if not content:
        raise _damaged(path, "it is empty")
    if not content.endswith(b"\n"):
        raise _damaged(path, "it ends in the middle of a row")


def _damaged(path: Path, reason: object) -> ValueError:
    what = str(reason).removeprefix(f"{path} is ")
    return ValueError(f"{path} cannot be read: {what}; restore the file, or train again")


def _kinds(points: Sequence[SizePoint]) -> list[str]:
    return list(dict.fromkeys(point.kind for point in points))


def _moves(track: Sequence[SizePoint]) -> bool:
    """Whether the centre of a window is not where it was at first: most are not learned."""
    return len({point.center for point in track}) > 1


def _summary(name: str, axis: int, track: Sequence[SizePoint]) -> dict[str, Any]:
    sizes, last = [point.size for point in track], track[-1]
    return {
        "name": name,
        "layer": last.layer,
        "kind": last.kind,
        "axis": axis,
        "first": sizes[0],
        "last": last.size,
        "smallest": min(sizes),
        "largest": max(sizes),
        "converged": _converged(track),
        "limit": _limit(last),
    }


def _converged(track: Sequence[SizePoint]) -> int:
    """Epoch from which on all sizes are close to the last one."""
    last = track[-1]
    epoch = last.epoch
    for point in reversed(track):
        if abs(point.size - last.size) > CLOSE * abs(last.size):
            break
        epoch = point.epoch
    return epoch


def _limit(point: SizePoint) -> str:
    """The limit that a size lies at."""
    rest = REST.get(point.kind, 0.5)
    if point.low == point.high:
        return "fixed"
    if point.size - point.low < rest:
        return "low"
    return "high" if point.high - point.size < rest else ""


def _draw_costs(axes: Any, costs: Sequence[CostPoint]) -> None:
    axes.plot(
        [cost.epoch for cost in costs],
        [cost.macs for cost in costs],
        color=style.INK,
        linewidth=1.6,
        marker="o" if len(costs) == 1 else None,
    )
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel("cost of a sample (MACs)")
    axes.yaxis.set_major_formatter(EngFormatter())
    style.clean(axes)


def _course(kind: str, lines: dict[Track, list[SizePoint]]) -> str:
    """Between which sizes of a kind lay at first, and in the end."""
    ends = [(track[0].size, track[-1].size) for track in lines.values()]
    first, last = (" to ".join(_ends(values)) for values in zip(*ends, strict=True))
    plural = "" if len(ends) == 1 else "s"
    return f"{len(ends)} {kind}{plural}: {first} at first, {last} in the end."


def _ends(values: Sequence[float]) -> Iterator[str]:
    yield f"{min(values):.3g}"
    if min(values) != max(values):
        yield f"{max(values):.3g}"
