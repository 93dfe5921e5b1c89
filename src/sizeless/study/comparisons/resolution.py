"""Networks trained at one resolution and tested at another."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import nn

from sizeless._validate import positive_int
from sizeless.sizes import change_resolution_
from sizeless.sizes import sizes as learned_sizes
from sizeless.study import style
from sizeless.study.comparisons.records import POSITIVE, SHARE, checked
from sizeless.study.result import Result

LIGHT, DARK = "#fdfdfd", "#101010"
"""Numbers in cells, which keep their colours where a page changes its own."""

ROW = 0.5
"""Height of a row of the map, in inches."""


@dataclass(frozen=True, eq=False)
class ResolutionMap(Result):
    r"""Accuracy of networks trained at one resolution and tested at any.

    With $a_{st}$ the accuracy of a network trained at $s$ and tested at $t$, the table has, per
    pair that was measured, ``train``, ``test``, ``accuracy`` and ``spread`` (mean and standard
    deviation over ``seeds`` seeds; NaN for one), ``change`` and ``change_spread`` (the same of
    $a_{st} - a_{ss}$, what the very same network loses away from its own resolution) and ``gap``
    ($\bar a_{st} - \bar a_{tt}$, what it lacks beside networks trained at $t$); both are NaN where
    the diagonal was not measured.

    Args:
        records: A DataFrame, or one mapping per row, with ``train``, ``test`` (resolutions),
            ``accuracy`` (0 to 1) and, for several runs, ``seed``. A pair that is not there is an
            empty cell.
        unit: What resolutions are counted in.

    Raises:
        TypeError: If ``records`` is no table.
        ValueError: If a column is missing, a value out of its range, or a row there twice.

    Examples:
        >>> rows = [(16, 16, 0.9), (16, 32, 0.8), (32, 32, 0.95)]
        >>> keys = "train", "test", "accuracy"
        >>> found = ResolutionMap([dict(zip(keys, row)) for row in rows])
        >>> found.table()[["train", "test", "change", "gap"]].round(2).values.tolist()
        [[16.0, 16.0, 0.0, 0.0], [16.0, 32.0, -0.1, -0.15], [32.0, 32.0, 0.0, 0.0]]
    """

    stem = "resolutions"
    title = "Any-to-any resolution"

    records: pd.DataFrame
    unit: str = "pixels"

    def __post_init__(self) -> None:
        frame = checked(
            "records",
            self.records,
            {"train": POSITIVE, "test": POSITIVE, "accuracy": SHARE},
            ("train", "test", "seed"),
        )
        object.__setattr__(self, "records", frame)

    def table(self) -> pd.DataFrame:
        """One row per pair of resolutions; accuracies from 0 to 1."""
        runs: pd.DataFrame = self.records
        own = runs[runs["train"] == runs["test"]].set_index(["train", "seed"])["accuracy"]
        places = pd.MultiIndex.from_frame(runs[["train", "seed"]])
        change = runs["accuracy"] - own.reindex(places).to_numpy()
        cells = runs.assign(change=change).groupby(["train", "test"])
        table = cells["accuracy"].agg(accuracy="mean", spread="std", seeds="count")
        table["change"], table["change_spread"] = cells["change"].mean(), cells["change"].std()
        table = table.reset_index()
        trained_there = own.groupby(level="train").mean()
        table["gap"] = table["accuracy"] - trained_there.reindex(table["test"]).to_numpy()
        return table

    def figure(self) -> Figure:
        """Rows trained at, columns tested at: the accuracy, and its change."""
        table = self.table()
        rows = table["train"].nunique()
        away = table.loc[table["train"] != table["test"], "change"]
        count = 2 if away.notna().any() else 1
        figure, every = style.panels(count, columns=2, height=max(2.4, 1.2 + ROW * rows))
        self._heat(every[0], table, "accuracy", "spread", "{:.1f}")
        every[0].set_title("accuracy (%)")
        if count == 2:
            largest = max(0.005, away.abs().max())
            self._heat(every[1], table, "change", "change_spread", "{:+.1f}", largest)
            every[1].set_title("change from the resolution trained at (points)")
        for axes in every:
            style.clean(axes)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        return figure

    def _heat(
        self,
        axes: Any,
        table: pd.DataFrame,
        column: str,
        spread: str,
        form: str,
        largest: float | None = None,
    ) -> None:
        """Draw a map of percents, on a scale about 0 if the largest magnitude is given."""
        values = table.pivot(index="train", columns="test", values=column)
        spreads = table.pivot(index="train", columns="test", values=spread).to_numpy()
        cells = np.ma.masked_invalid(values.to_numpy())
        scale = Normalize(*((cells.min(), cells.max()) if largest is None else (-largest, largest)))
        colors = colormaps[style.SEQUENTIAL if largest is None else style.DIVERGING]
        axes.pcolormesh(cells, cmap=colors, norm=scale)
        for row, col in np.ndindex(cells.shape):
            value, deviation = cells[row, col], spreads[row, col]
            if value is np.ma.masked:
                axes.text(col + 0.5, row + 0.5, "–", ha="center", va="center", color=style.INK)
                continue
            text = form.format(100 * value).replace("-", "−").replace("+0.0", "0")
            if np.isfinite(deviation):
                text += f"\n±{100 * deviation:.1f}"
            axes.text(
                col + 0.5,
                row + 0.5,
                text,
                ha="center",
                va="center",
                fontsize=8,
                color=_readable_on(colors(scale(value))),
                fontweight="bold" if values.index[row] == values.columns[col] else "normal",
            )
        axes.set_xticks(np.arange(cells.shape[1]) + 0.5, [f"{at:g}" for at in values.columns])
        axes.set_yticks(np.arange(cells.shape[0]) + 0.5, [f"{at:g}" for at in values.index])
        axes.invert_yaxis()
        axes.set_xlabel(f"tested at ({self.unit})")
        axes.set_ylabel(f"trained at ({self.unit})")

    def caption(self) -> str:
        """What is drawn, and the largest loss."""
        table = self.table()
        seeds = int(table["seeds"].max())
        away = table[(table["train"] != table["test"]) & table["change"].notna()]
        text = (
            "Accuracy of networks trained at the resolution of the row and tested at that of the "
            "column; in bold where these are one."
        )
        if not away.empty:
            text += (
                " On the right, how much of it the same network gains or loses away from the "
                "resolution that it was trained at."
            )
        if seeds > 1:
            text += f" Mean and standard deviation over up to {seeds} seeds."
        if not away.empty:
            worst = away.loc[away["change"].idxmin()]
            text += (
                f" The lowest change, {100 * worst['change']:+.1f} points, is that "
                f"from {worst['train']:g} to {worst['test']:g} {self.unit}."
            )
        return text


def measure_resolutions(
    evaluate: Callable[[nn.Module, int], float],
    networks: Mapping[int, nn.Module | Sequence[nn.Module]],
    sizes: Sequence[int] = (),
    *,
    unit: str = "pixels",
) -> ResolutionMap:
    """Test every network at every resolution.

    A copy of the network is brought to each resolution, its kernels rendered anew as by
    ``sizeless.change_resolution_``; a network without such kernels stays as it is.

    Args:
        evaluate: Returns the accuracy (0 to 1) of a network on samples of a size; a size is the
            number of samples along an axis.
        networks: Trained networks by the size that they were trained at; several of one size are
            seeds 0, 1, ...
        sizes: Sizes to test at; empty for those of ``networks``.
        unit: What sizes are counted in.

    Raises:
        TypeError: If a size is no int.
        ValueError: If there is no network, a size is not positive, or an accuracy is not from 0 to
            1.

    Examples:
        >>> import sizeless
        >>> network = sizeless.FlexConv1d(1, 1, kernel_size=9, init_size=5)
        >>> def evaluate(network, size):
        ...     return network.kernel_size[0] / size
        >>> found = measure_resolutions(evaluate, {16: network}, sizes=[16, 32])
        >>> found.table()["accuracy"].tolist()
        [0.5625, 0.53125]
    """
    records = []
    for trained, given in networks.items():
        seeds = [given] if isinstance(given, nn.Module) else list(given)
        for tested in sizes or networks:
            factor = positive_int("sizes", tested) / positive_int("networks", trained)
            for seed, network in enumerate(seeds):
                accuracy = evaluate(_at(network, factor), tested)
                records.append(
                    {"train": trained, "test": tested, "accuracy": accuracy, "seed": seed}
                )
    return ResolutionMap(records, unit)


def resolution_map(folders: Iterable[Path | str]) -> ResolutionMap:
    """Read what runs came to at other resolutions.

    Args:
        folders: Run folders that ``sizeless test DIR --resolution PIXELS`` wrote
            ``metrics-PIXELS.json`` in. What each run came to at its own resolution is in
            ``metrics.json``, with its seed.

    Raises:
        TypeError: If ``folders`` is one path.
        ValueError: If a folder has none of these files, or one of them is damaged or says not at
            which resolution the run was trained.
    """
    if isinstance(folders, (str, Path)):
        raise TypeError(f"folders must be a sequence of run folders, got {folders!r}; use a list")
    return ResolutionMap([record for folder in folders for record in _records(Path(folder))])


def _at(network: nn.Module, factor: float) -> nn.Module:
    copy = deepcopy(network)
    if factor != 1 and any(row.kind == "kernel size" for row in learned_sizes(copy)):
        change_resolution_(copy, factor)
    return copy


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    """What a run came to at each resolution, its own included."""
    files = [file for file in sorted(folder.glob("metrics-*.json")) if _pixels(file)]
    if not files:
        raise ValueError(
            f"{folder} holds no metrics-PIXELS.json; write some with: sizeless test {folder} "
            "--resolution PIXELS"
        )
    run = _read(folder / "metrics.json", ("seed", "test/accuracy"))
    found, own = dict[float, float](), set[float]()
    for file in files:
        tested = _read(file, ("resolution", "trained_resolution", "test/accuracy"))
        own.add(tested["trained_resolution"])
        found[tested["resolution"]] = tested["test/accuracy"]
    if len(own) > 1:
        raise ValueError(
            f"{folder} says that its run was trained at {sorted(own)}: its metrics-PIXELS.json are "
            "of several runs; write them anew"
        )
    (trained,) = own
    for resolution, accuracy in {trained: run["test/accuracy"], **found}.items():
        yield {"train": trained, "test": resolution, "accuracy": accuracy, "seed": run["seed"]}


def _pixels(file: Path) -> bool:
    return re.fullmatch(r"metrics-\d+\.json", file.name) is not None


def _read(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """The metrics in a file, which must have some of them."""
    try:
        metrics = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; test the run again") from error
    missing = [key for key in keys if metrics.get(key) is None]
    if missing:
        raise ValueError(
            f"{path} does not say {missing[0]!r}; write it anew with: sizeless test {path.parent}"
            + (f" --resolution {path.stem.removeprefix('metrics-')}" if "-" in path.stem else "")
        )
    return metrics


def _readable_on(color: tuple[float, ...]) -> str:
    """A colour of text for a background, by its luminance."""
    red, green, blue = color[:3]
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else LIGHT
