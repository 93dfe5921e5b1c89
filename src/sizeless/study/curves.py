"""How loss and accuracy moved over a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sizeless.study import style
from sizeless.study.result import Result

QUANTITIES = ("loss", "accuracy")
SPLITS = {"train": style.CONTROL, "val": style.INK}


@dataclass(frozen=True)
class LearningCurves(Result):
    """Loss and accuracy by epoch, as the run logged them.

    The table has a row per epoch; columns ``train/loss``, ``val/loss``, ``train/accuracy`` and
    ``val/accuracy``, as far as they were logged.

    Attributes:
        rows: The table.
    """

    stem = "learning"
    title = "Learning curves"

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """One row per epoch."""
        return self.rows

    def figure(self) -> Figure:
        """A panel for the loss, one for the accuracy."""
        shown = [q for q in QUANTITIES if any(c.endswith(q) for c in self.rows.columns)]
        figure, panels = style.panels(len(shown), columns=2)
        for axes, quantity in zip(panels, shown, strict=True):
            for split, color in SPLITS.items():
                column = f"{split}/{quantity}"
                if column in self.rows:
                    part = self.rows[["epoch", column]].dropna()
                    label = "training" if split == "train" else "validation"
                    marker = "." if len(part) < 30 else None
                    axes.plot(part["epoch"], part[column], color=color, marker=marker, label=label)
            axes.set_xlabel("epoch")
            axes.set_ylabel(quantity)
            axes.locator_params(axis="x", integer=True)
            axes.legend(frameon=False, fontsize=8, labelcolor=style.INK)
            style.clean(axes)
        return figure

    def caption(self) -> str:
        """Where the curves end."""
        last = self.rows.iloc[-1]
        known = [column for column in self.rows.columns[1:] if pd.notna(last[column])]
        ends = [f"{column} {last[column]:.4g}" for column in known]
        return f"By epoch; at the last one, {int(last['epoch'])}: {', '.join(ends)}."


def learning_curves(folder: Path | str) -> LearningCurves:
    """Read the curves from the CSV logs of a run folder, those of all its parts in turn.

    Args:
        folder: A run folder.

    Raises:
        ValueError: If the run has left no log of loss or accuracy.
    """
    logs = sorted(
        Path(folder).glob("logs/csv/version_*/metrics.csv"),
        key=lambda path: int(path.parent.name.rpartition("_")[2]),
    )
    wanted = [f"{split}/{quantity}" for split in SPLITS for quantity in QUANTITIES]
    parts = []
    for log in logs:
        try:
            part = pd.read_csv(log)
        except pd.errors.EmptyDataError:
            continue
        kept = [column for column in wanted if column in part]
        if kept and "epoch" in part:
            parts.append(part[["epoch", *kept]].dropna(subset=kept, how="all"))
    if not parts or not sum(map(len, parts)):
        raise ValueError(f"{folder} has no log of loss or accuracy in logs/csv")
    logged = pd.concat(parts, ignore_index=True)
    # Of the batches of an epoch the mean; of validations, one each, that of the last part.
    how = {c: "mean" if c.startswith("train/") else "last" for c in wanted if c in logged}
    rows = logged.groupby("epoch", as_index=False).agg(how)
    # The epoch that is logged is the number of those before it.
    rows["epoch"] = rows["epoch"].astype(int) + 1
    return LearningCurves(rows)
