"""What each layer of a network costs at its present size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from sizeless._example import arguments_of, tensors_in
from sizeless.cost import cost
from sizeless.study import style
from sizeless.study.groups import product
from sizeless.study.result import Result

MOST_BARS = 40
"""Layers that one picture has room for."""


@dataclass(frozen=True)
class LayerCosts(Result):
    """Work and memory traffic of every call of a counted layer, for one sample.

    The table has, per call, the layer, its class, the shapes of input and output, multiply-
    accumulates (millions) and bytes (mebibytes) with their shares of the whole, and the time that
    the roofline of ``sizeless.cost`` gives (milliseconds).

    Attributes:
        rows: The table.
    """

    stem = "cost"
    title = "Cost"

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """One row per call of a counted layer, in the order of the calls."""
        return self.rows

    def figure(self) -> Figure:
        """Shares of work and bytes, a bar per call; of more than 40, the 40 with most work."""
        rows = self.rows
        if len(rows) > MOST_BARS:
            rows = rows.nlargest(MOST_BARS, "MMACs").sort_index()
        figure = Figure(
            figsize=(style.WIDTH, 1.0 + 0.17 * len(rows)), dpi=120, layout="constrained"
        )
        left, right = figure.subplots(1, 2, sharey=True)
        places = range(len(rows))
        for axes, column, label in (
            (left, "share of MACs", "share of multiply-accumulates"),
            (right, "share of bytes", "share of bytes read and written"),
        ):
            axes.barh(places, rows[column], color=style.shades(3)[1], height=0.7)
            axes.set_xlabel(label)
            style.clean(axes)
        left.set_yticks(places, [_short(name) for name in rows["layer"]], fontsize=7)
        left.invert_yaxis()
        return figure

    def caption(self) -> str:
        """What the whole comes to."""
        macs, size = self.rows["MMACs"].sum(), self.rows["MiB"].sum()
        heaviest = self.rows.loc[self.rows["MMACs"].idxmax()]
        return (
            f"One sample takes {macs:,.4g} million multiply-accumulates and reads and writes "
            f"{size:,.4g} MiB; the largest share of the work, {heaviest['share of MACs']:.0%}, is "
            f"that of {heaviest['layer']}."
        )


@torch.no_grad()
def layer_costs(model: nn.Module, example_input: Tensor | tuple[Any, ...]) -> LayerCosts:
    """Return what each layer costs for one sample; see ``sizeless.cost``.

    Args:
        model: Any network.
        example_input: Inputs, or a tuple of all positional arguments; of a batch, the first sample
            counts: of every tensor whose first axis is as long as that of the first tensor.

    Raises:
        TypeError: If ``example_input`` is neither tensor nor tuple.
        ValueError: If no layer that is counted was called.

    Examples:
        >>> import torch
        >>> found = layer_costs(torch.nn.Conv2d(1, 2, 3, padding=1), torch.zeros(4, 1, 10, 10))
        >>> float(found.table()["MMACs"].sum())
        0.0018
    """
    first = _first_sample(arguments_of(example_input))
    rows = [
        {
            "layer": row.name or row.layer,
            "class": row.layer,
            "input": product(row.input_shape[1:]),
            "output": product(row.output_shape[1:]),
            "MMACs": float(row.macs) / 1e6,
            "MiB": float(row.bytes) / 2**20,
            "estimated ms": float(row.latency) * 1e3,
        }
        for row in cost(model, first).rows
    ]
    table = pd.DataFrame(rows)
    for column, share in (("MMACs", "share of MACs"), ("MiB", "share of bytes")):
        table[share] = table[column] / table[column].sum()
    return LayerCosts(table)


def _first_sample(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    batch = next(tensors_in(arguments)).shape[:1]

    def first(value: Any) -> Any:
        return value[:1] if isinstance(value, Tensor) and value.shape[:1] == batch else value

    return tuple(map(first, arguments))


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"
