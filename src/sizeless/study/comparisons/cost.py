"""How accurate families of networks are at what cost, and which of them none beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from sizeless.study import style
from sizeless.study.comparisons.records import POSITIVE, SHARE, checked, frame_of
from sizeless.study.result import Result

MARKS = "os^DvPX*"
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
WIDE = 30.0
"""Costs whose largest is more than so many times the smallest have a logarithmic axis."""


@dataclass(frozen=True, eq=False)
class AccuracyAgainstCost(Result):
    """Accuracy and cost of networks of several families, and the Pareto front of all.

    Runs of one family and setting that differ in their seed make one point. The table has, per
    point, ``family``, ``setting``, ``cost``, ``cost_spread``, ``accuracy`` and ``accuracy_spread``
    (means and standard deviations over ``seeds`` seeds; NaN for one), and ``on_front``: whether
    the means of no other point are at least as good in both and better in one.

    Args:
        points: A DataFrame, or one mapping per row, with ``family``, ``cost`` (0 or more),
            ``accuracy`` (of the test, 0 to 1) and, for several runs, ``seed`` and ``setting``, what
            runs have in common that are to be one point, such as their budget. Without
            ``setting``, it is the cost. Other columns are left out.
        unit: What costs are counted in.

    Raises:
        TypeError: If ``points`` is no table.
        ValueError: If a column is missing, a value out of its range, or a row there twice.

    Examples:
        >>> rows = [("learned", 2e6, 0.97), ("fixed", 2e6, 0.92), ("fixed", 1e6, 0.9)]
        >>> keys = "family", "cost", "accuracy"
        >>> found = AccuracyAgainstCost([dict(zip(keys, row)) for row in rows])
        >>> found.table()[["family", "on_front"]].values.tolist()
        [['learned', True], ['fixed', True], ['fixed', False]]
    """

    stem = "accuracy_against_cost"
    title = "Accuracy against cost"

    points: pd.DataFrame
    unit: str = "multiply-accumulates of a sample"

    def __post_init__(self) -> None:
        frame = frame_of("points", self.points)
        grouped = "setting" in frame
        keys = ("family", "setting" if grouped else "cost", "seed")
        numbers = {"cost": POSITIVE, "accuracy": SHARE}
        frame = checked("points", frame, numbers, keys, ("family", "setting")[: 1 + grouped])
        if not grouped:
            frame["setting"] = frame["cost"]
        columns = ["family", "setting", "cost", "accuracy", "seed"]
        object.__setattr__(self, "points", frame[columns])

    def table(self) -> pd.DataFrame:
        """One row per family and setting: families in the order given, each by its cost."""
        table = self.points.groupby(["family", "setting"], sort=False, as_index=False).agg(
            cost=("cost", "mean"),
            cost_spread=("cost", "std"),
            accuracy=("accuracy", "mean"),
            accuracy_spread=("accuracy", "std"),
            seeds=("accuracy", "count"),
        )
        table["on_front"] = pareto_front(table["cost"], table["accuracy"])
        places = {family: place for place, family in enumerate(table["family"].unique())}
        order = np.lexsort((table["cost"], table["family"].map(places)))
        return table.iloc[order].reset_index(drop=True)

    def figure(self) -> Figure:
        """Means with their deviations, the front, and every seed as a small dot."""
        table = self.table()
        figure, (axes,) = style.panels(1, columns=1, height=4.2)
        front = table[table["on_front"]].sort_values("cost")
        axes.plot(
            front["cost"],
            front["accuracy"],
            drawstyle="steps-post",
            color=style.FAINT,
            linewidth=4,
            solid_capstyle="round",
            zorder=1,
        )
        handles = [
            self._family(axes, family, part, place, color)
            for place, ((family, part), color) in enumerate(
                zip(
                    table.groupby("family", sort=False),
                    style.shades(table["family"].nunique()),
                    strict=True,
                )
            )
        ]
        axes.plot(front["cost"], front["accuracy"], "o", ms=12, mfc="none", mec=style.INK)
        ring = Line2D([], [], color=style.FAINT, linewidth=4, label="Pareto front (ringed)")
        ring.set(marker="o", markersize=10, markerfacecolor="none", markeredgecolor=style.INK)
        if table["cost"].min() > 0 and table["cost"].max() > WIDE * table["cost"].min():
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.set_xlabel(self.unit)
        axes.set_ylabel("test accuracy")
        axes.grid(color=style.SHADE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(
            handles=[*handles, ring], frameon=False, fontsize=9, labelcolor=style.INK, loc="best"
        )
        style.clean(axes)
        return figure

    def _family(self, axes: Any, family: str, part: pd.DataFrame, place: int, color: Any) -> Line2D:
        """Draw the points of a family, and return what stands for it in the legend."""
        look = {
            "color": color,
            "marker": MARKS[place % len(MARKS)],
            "linestyle": DASHES[place % len(DASHES)],
            "linewidth": 1.4,
            "markersize": 6,
        }
        axes.errorbar(
            part["cost"],
            part["accuracy"],
            xerr=part["cost_spread"].fillna(0.0),
            yerr=part["accuracy_spread"].fillna(0.0),
            elinewidth=1.0,
            capsize=2.5,
            **look,
        )
        if part["seeds"].max() > 1:
            runs = self.points[self.points["family"] == family]
            axes.plot(runs["cost"], runs["accuracy"], ".", color=color, alpha=0.45, ms=4)
        return Line2D([], [], label=str(family), **look)

    def caption(self) -> str:
        """What is drawn, and who is on the front."""
        table = self.table()
        front = table[table["on_front"]]
        counts = front["family"].value_counts(sort=False)
        parts = [f"{family}: {count}" for family, count in counts.items()]
        text = (
            f"Accuracy against {self.unit}, {len(table)} networks. Ringed are those on the Pareto "
            f"front, which no other dominates ({'; '.join(parts)})."
        )
        if table["seeds"].max() > 1:
            text += " Large marks are means over seeds with one standard deviation, dots the seeds."
        else:
            text += " One run each: small differences may be chance."
        return text


def pareto_front(
    costs: Sequence[float] | np.ndarray, accuracies: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return which points no other point beats.

    A point is beaten by one that costs no more and is no less accurate, and is better in one of
    the two. Equal points do not beat each other.

    Args:
        costs: Costs, of shape ``(N,)``; lower is better.
        accuracies: Accuracies, of shape ``(N,)``; higher is better.

    Returns:
        Booleans of shape ``(N,)``.

    Raises:
        ValueError: If the lengths differ, or a value is not finite.

    Examples:
        >>> pareto_front([1.0, 2.0, 3.0], [0.8, 0.7, 0.9]).tolist()
        [True, False, True]
    """
    cost, accuracy = np.asarray(costs, dtype=float), np.asarray(accuracies, dtype=float)
    if cost.shape != accuracy.shape or cost.ndim != 1:
        raise ValueError(
            "costs and accuracies must be of one length, got shapes "
            f"{cost.shape} and {accuracy.shape}"
        )
    for name, values in (("costs", cost), ("accuracies", accuracy)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite numbers; leave out what was not measured")
    order = np.lexsort((-accuracy, cost))
    front = np.zeros(len(cost), dtype=bool)
    best = at = -np.inf
    for place in order:
        if accuracy[place] > best:
            best, at = accuracy[place], cost[place]
        front[place] = accuracy[place] == best and cost[place] == at
    return front
