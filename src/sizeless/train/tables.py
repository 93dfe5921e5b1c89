"""What a run came to, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import JustifyMethod, OverflowMethod
from rich.table import Table

from sizeless.trajectories import SizePoint, tracks


def size_table(points: Sequence[SizePoint]) -> Table:
    """Return a table with one row per layer: its size at the start and at the end, and its limits.

    The window is its standard deviation in taps.

    Args:
        points: Sizes over training.
    """
    table = Table(title="Learned sizes", title_justify="left", title_style="bold")
    for column in ("layer", "kind", "start", "learned", "window", "limits"):
        text = column in {"layer", "kind"}
        # A path that is cut short could be another layer's.
        overflow: OverflowMethod = "fold" if column == "layer" else "ellipsis"
        justify: JustifyMethod = "left" if text else "right"
        table.add_column(column, justify=justify, no_wrap=not text, overflow=overflow)
    layers: dict[str, list[list[SizePoint]]] = {}
    for (name, _), track in tracks(points).items():
        layers.setdefault(name, []).append(track)
    for name, axes in layers.items():
        last = [track[-1] for track in axes]
        table.add_row(
            name,
            last[0].kind,
            " × ".join(_size(track[0]) for track in axes),
            f"[bold]{' × '.join(_size(point) for point in last)}[/bold]",
            _window(last) if last[0].window is not None else "–",
            _limits(last),
        )
    return table


def metric_line(metrics: Mapping[str, Any]) -> str:
    """Return the test metrics as one line, and the epoch that validation chose.

    Args:
        metrics: The content of ``metrics.json``.

    Examples:
        >>> metric_line({"test/accuracy": 0.991, "test/loss": 0.0324, "epoch": 12, "epochs": 20})
        'Test accuracy 0.9910, loss 0.0324; validation chose epoch 12 of 20.'
    """
    line = f"Test accuracy {metrics['test/accuracy']:.4f}, loss {metrics['test/loss']:.4f}"
    if "epoch" in metrics:
        line += f"; validation chose epoch {metrics['epoch']} of {metrics['epochs']}"
    return line + "."


def _size(point: SizePoint) -> str:
    return f"{point.size:.2f}" if point.kind == "stride" else f"{point.size:.0f}"


def _window(points: Sequence[SizePoint]) -> str:
    return " × ".join(f"{point.window:.2f}" for point in points)


def _limits(points: Sequence[SizePoint]) -> str:
    pairs = [f"{point.low:g}–{_upper(point.high)}" for point in points]
    return pairs[0] if len(set(pairs)) == 1 else " × ".join(pairs)


def _upper(value: float) -> str:
    return "map" if math.isinf(value) else f"{value:g}"
