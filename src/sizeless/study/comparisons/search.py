"""One run that learns its sizes against the trials of a search over fixed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sizeless.study import style
from sizeless.study.comparisons.records import POSITIVE, SHARE, checked, frame_of
from sizeless.study.result import Result

UNITS = {"seconds": "training time (s)", "steps": "optimiser steps"}
MARGIN = 0.15
"""Room above and below what is shown, as a share of it."""


@dataclass(frozen=True, eq=False)
class LearnedAgainstSearched(Result):
    """A run that learns its sizes beside a search that trains once for each of many.

    A search knows what validation says. The trial chosen so far is the one with the highest
    validation accuracy, the first of equals, and what counts is that trial's accuracy, on other
    data; it may fall when another trial is chosen. Where there is no ``validation``, trials are
    chosen by the accuracy itself, which flatters the search.

    The table has, per run, ``run`` (``"learned"`` or ``"trial"``), ``seed``, ``trial``, every other
    column given, such as the sizes, ``accuracy``, its cost, and after so many trials ``so_far``,
    the accuracy of the one chosen, and ``spent``, the cost of all together.

    Args:
        learned: A DataFrame, or one mapping per row, with ``accuracy`` (of the test, 0 to 1), the
            cost and, for several runs, ``seed``.
        trials: The same, with ``validation`` (0 to 1) where it is known, ``seed`` for several
            searches, and ``trial``, their order, unless it is that of the rows.
        cost: Column of the cost of a run: ``"seconds"``, ``"steps"`` or any other.

    Raises:
        TypeError: If one of the two is no table.
        ValueError: If a column is missing, a value out of its range, or a row there twice.

    Examples:
        >>> found = LearnedAgainstSearched(
        ...     [{"accuracy": 0.97, "seconds": 20}],
        ...     [
        ...         {"size": 3, "accuracy": 0.8, "validation": 0.82, "seconds": 10},
        ...         {"size": 9, "accuracy": 0.96, "validation": 0.95, "seconds": 15},
        ...     ],
        ... )
        >>> found.summary()[["searched", "learned", "cost_ratio"]].values.tolist()
        [[0.96, 0.97, 1.25]]
    """

    stem = "learned_against_searched"
    title = "Learned against searched"

    learned: pd.DataFrame
    trials: pd.DataFrame
    cost: str = "seconds"

    def __post_init__(self) -> None:
        numbers = {"accuracy": SHARE, self.cost: POSITIVE}
        learned = checked("learned", self.learned, numbers, ("seed",))
        trials = frame_of("trials", self.trials)
        if "seed" not in trials:
            trials["seed"] = 0
        if "trial" not in trials:
            trials["trial"] = trials.groupby("seed").cumcount() + 1
        if "validation" in trials:
            numbers["validation"] = SHARE
        trials = checked("trials", trials, numbers, ("seed", "trial"), ("trial",))
        searches = [
            self._in_order(part) for _, part in trials.groupby("seed", sort=False, dropna=False)
        ]
        object.__setattr__(self, "learned", learned)
        object.__setattr__(self, "trials", pd.concat(searches, ignore_index=True))

    def _in_order(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Trials of one search, with what was chosen and spent after each."""
        trials = trials.sort_values("trial", kind="stable")
        scores = trials["validation" if "validation" in trials else "accuracy"].to_numpy()
        best = np.maximum.accumulate(scores)
        first = np.r_[True, best[1:] > best[:-1]]
        chosen = np.maximum.accumulate(np.where(first, np.arange(len(scores)), 0))
        so_far = trials["accuracy"].to_numpy()[chosen]
        return trials.assign(so_far=so_far, spent=trials[self.cost].cumsum())

    def table(self) -> pd.DataFrame:
        """One row per run: those that learn first, then the trials in their order."""
        learned = self.learned.assign(
            run="learned", so_far=self.learned["accuracy"], spent=self.learned[self.cost]
        )
        both = pd.concat([learned, self.trials.assign(run="trial")], ignore_index=True)
        last = [name for name in ("validation", "accuracy", self.cost) if name in both]
        first = [name for name in ("run", "seed", "trial") if name in both]
        given = [name for name in both if name not in {*first, *last, "so_far", "spent"}]
        return both[[*first, *given, *last, "so_far", "spent"]]

    def summary(self) -> pd.DataFrame:
        """One row per search: what it came to, beside learning.

        ``searched`` is the accuracy of the trial chosen in the end, ``best`` that of the best trial
        of all, which no search can know; ``learned`` that of the learned run of the same seed, or
        the mean of all where there is none. ``cost_ratio`` is the cost of the search over that of
        learning, and ``overtaken`` the number of trials after which what is chosen is first as
        accurate as what is learned; NaN for never.
        """
        runs = self.learned.set_index("seed")
        means = runs[["accuracy", self.cost]].mean()
        rows = []
        for seed, trials in self.trials.groupby("seed", sort=False):
            own = runs.loc[seed] if seed in runs.index else means
            reached = trials["so_far"].to_numpy() >= own["accuracy"]
            rows.append(
                {
                    "seed": seed,
                    "trials": len(trials),
                    "searched": trials["so_far"].iloc[-1],
                    "best": trials["accuracy"].max(),
                    "learned": own["accuracy"],
                    "cost_ratio": _ratio(trials["spent"].iloc[-1], own[self.cost]),
                    "overtaken": 1.0 + reached.argmax() if reached.any() else np.nan,
                }
            )
        return pd.DataFrame(rows)

    def figure(self) -> Figure:
        """The accuracy of what is chosen against the trials made, and against their cost."""
        figure, (left, right) = style.panels(2, columns=2, height=3.4)
        learned, searched = style.shades(2)
        searches = [part for _, part in self.trials.groupby("seed", sort=False)]
        self._over_trials(left, searches, learned, searched)
        self._over_cost(right, searches, learned, searched)
        low, high = self._shown()
        for axes in (left, right):
            axes.set_ylim(low, high)
            axes.set_ylabel("test accuracy")
            style.clean(axes)
        for axes, across in ((left, "number"), (right, "spent")):
            trials = self.trials.assign(number=self.trials.groupby("seed").cumcount() + 1)
            below = trials[trials["accuracy"] < low]
            if not below.empty:
                at = [low] * len(below)
                axes.plot(below[across], at, "v", color=searched, ms=5, clip_on=False)
        figure.legend(
            handles=_legend(learned, searched, bool(self.trials["accuracy"].min() < low)),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=8,
            labelcolor=style.INK,
        )
        return figure

    def _over_trials(
        self, axes: Any, searches: Sequence[pd.DataFrame], learned: Any, searched: Any
    ) -> None:
        """Means over seeds, and bands from the lowest to the highest."""
        most = min(len(search) for search in searches)
        numbers = np.arange(1, most + 1)
        curves = np.stack([search["so_far"].to_numpy()[:most] for search in searches])
        for search in searches:
            places = np.arange(1, len(search) + 1)
            axes.plot(places, search["accuracy"], ".", color=searched, alpha=0.6, ms=6)
        # The last step is drawn as wide as the others.
        ends = np.r_[numbers, most + 1] - 0.5
        axes.stairs(curves.mean(0), ends, color=searched, linewidth=1.8, baseline=None)
        accuracies = self.learned["accuracy"]
        axes.axhline(accuracies.mean(), color=learned, linewidth=1.8)
        if len(searches) > 1:
            axes.stairs(
                curves.max(0), ends, baseline=curves.min(0), fill=True, color=searched, alpha=0.15
            )
        if len(accuracies) > 1:
            axes.axhspan(accuracies.min(), accuracies.max(), color=learned, alpha=0.12, linewidth=0)
        axes.set_xlim(0.5, max(len(search) for search in searches) + 0.5)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("trials of the search")

    def _over_cost(
        self, axes: Any, searches: Sequence[pd.DataFrame], learned: Any, searched: Any
    ) -> None:
        """Every search and every learned run by itself: their costs differ."""
        end = max(self.trials["spent"].max(), self.learned[self.cost].max())
        for search in searches:
            axes.plot(search["spent"], search["accuracy"], ".", color=searched, alpha=0.6, ms=6)
            axes.plot(
                [*search["spent"], end],
                [*search["so_far"], search["so_far"].iloc[-1]],
                color=searched,
                drawstyle="steps-post",
                linewidth=1.8,
            )
        for cost, accuracy in zip(self.learned[self.cost], self.learned["accuracy"], strict=True):
            axes.plot([cost, end], [accuracy] * 2, color=learned, linewidth=1.8)
            axes.plot(cost, accuracy, "o", color=learned, ms=7)
        axes.set_xlim(0, 1.02 * end or 1)
        axes.set_xlabel(f"{UNITS.get(self.cost, self.cost)}, all trials together")

    def _shown(self) -> tuple[float, float]:
        """Accuracies between which most is to be seen: trials may fail altogether."""
        trials = self.trials["accuracy"]
        low = min(trials.quantile(0.25), self.learned["accuracy"].min())
        high = max(trials.max(), self.learned["accuracy"].max())
        room = MARGIN * max(high - low, 0.01)
        return max(0.0, low - room), min(high + room, 1.0 + room / 4)

    def caption(self) -> str:
        """What is drawn, and how both end."""
        rows = self.summary()
        by = "validation accuracy" if "validation" in self.trials else "accuracy itself"
        ratio = rows["cost_ratio"].mean()
        text = (
            f"Learned sizes reach {self.learned['accuracy'].mean():.3f}; the trial with the best "
            f"{by} among {rows['trials'].max()} reaches {rows['searched'].mean():.3f}, and all "
            f"trials together cost {ratio:.3g} times as much as learning. Each dot is a trial, the "
            "stairs are the trial chosen so far."
        )
        if max(len(rows), len(self.learned)) > 1:
            text += " Means over seeds; bands reach from the lowest seed to the highest."
        return text


def _ratio(cost: float, other: float) -> float:
    return cost / other if other > 0 else np.nan


def _legend(learned: Any, searched: Any, fails: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=learned, marker="o", linewidth=1.8, label="sizes learned in one run"),
        Line2D([], [], color=searched, linewidth=1.8, label="chosen so far by the search"),
        Line2D([], [], color=searched, marker=".", linewidth=0, label="one trial"),
    ]
    if fails:
        below = Line2D([], [], color=searched, marker="v", linewidth=0, ms=5, label="below")
        handles.append(below)
    return handles
