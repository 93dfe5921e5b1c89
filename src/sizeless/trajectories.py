"""How learned sizes and cost moved during training: ``sizes.csv`` and ``costs.csv`` of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from torch import nn

from sizeless._files import write_text
from sizeless.sizes import sizes

Track = tuple[str, int]


@dataclass(frozen=True)
class SizePoint:
    """One learned size, of one layer along one axis, at one moment of training.

    Attributes:
        epoch: Epochs finished; 0 is the network before training.
        step: Optimiser steps finished.
        name: Path of the layer in the network, as in ``named_modules``.
        layer: Class of the layer.
        kind: What is learned: ``"kernel size"``, ``"filter extent"`` or ``"stride"``.
        axis: Spatial axis, 0 first.
        size: The size: taps for a kernel, a factor for a stride.
        window: Standard deviation of the window that decides the size, in taps, if there is one.
        center: Centre of that window in taps; see ``sizeless.nn.Size``.
        low: Smallest size that training can reach.
        high: Largest; infinite where only the map limits it.
    """

    epoch: int
    step: int
    name: str
    layer: str
    kind: str
    axis: int
    size: float
    window: float | None
    center: float | None
    low: float
    high: float


COLUMNS = tuple(field.name for field in fields(SizePoint))


@dataclass(frozen=True)
class CostPoint:
    """What one sample cost at one moment of training.

    Attributes:
        epoch: Epochs finished; 0 is the network before training.
        step: Optimiser steps finished.
        macs: Multiply-accumulates.
    """

    epoch: int
    step: int
    macs: float


COST_COLUMNS = tuple(field.name for field in fields(CostPoint))


def snapshot(model: nn.Module, epoch: int = 0, step: int = 0) -> list[SizePoint]:
    """Return the sizes that ``model`` has now, one point per layer and axis.

    A layer whose size is not known yet, such as a filter that has seen no map, gives no point.
    """
    points = []
    for row in sizes(model):
        for axis, size in enumerate(row.size):
            low, high = row.limits[axis]
            points.append(
                SizePoint(
                    epoch=epoch,
                    step=step,
                    name=row.name,
                    layer=row.layer,
                    kind=row.kind,
                    axis=axis,
                    size=float(size),
                    window=None if row.window is None else float(row.window[axis]),
                    center=None if row.center is None else float(row.center[axis]),
                    low=float(low),
                    high=float(high),
                )
            )
    return points


def write_points(path: Path, points: Iterable[SizePoint]) -> None:
    """Write ``points`` to the CSV file ``path``, atomically; an unknown number is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points:
        writer.writerow([_cell(getattr(point, column)) for column in COLUMNS])
    write_text(path, text.getvalue())


def read_points(path: Path) -> list[SizePoint]:
    """Return the points in the CSV file ``path``.

    Raises:
        ValueError: If the file does not hold the columns of ``SizePoint``.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{path} is no table of learned sizes: its columns are {reader.fieldnames}, "
                f"expected {list(COLUMNS)}"
            )
        return [_point(row) for row in reader]


def write_costs(path: Path, points: Iterable[CostPoint]) -> None:
    """Write ``points`` to the CSV file ``path``, atomically."""
    rows = [",".join((str(p.epoch), str(p.step), f"{p.macs:.12g}")) for p in points]
    write_text(path, "".join(f"{row}\n" for row in (",".join(COST_COLUMNS), *rows)))


def read_costs(path: Path) -> list[CostPoint]:
    """Return the points in the CSV file ``path``.

    Raises:
        ValueError: If the file does not hold the columns of ``CostPoint``.
    """
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = list(csv.reader(file)) or [[]]
    if tuple(columns) != COST_COLUMNS:
        raise ValueError(
            f"{path} is no table of costs: its columns are {columns}, expected {list(COST_COLUMNS)}"
        )
    return [CostPoint(int(epoch), int(step), float(macs)) for epoch, step, macs in rows]


def tracks(points: Sequence[SizePoint], kind: str | None = None) -> dict[Track, list[SizePoint]]:
    """Group ``points`` by layer and axis, in the order of first appearance, sorted by step."""
    groups: dict[Track, list[SizePoint]] = {}
    for point in points:
        if kind is None or point.kind == kind:
            groups.setdefault((point.name, point.axis), []).append(point)
    return {track: sorted(group, key=lambda point: point.step) for track, group in groups.items()}


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value


def _point(row: dict[str, str]) -> SizePoint:
    return SizePoint(
        epoch=int(row["epoch"]),
        step=int(row["step"]),
        name=row["name"],
        layer=row["layer"],
        kind=row["kind"],
        axis=int(row["axis"]),
        size=float(row["size"]),
        window=float(row["window"]) if row["window"] else None,
        center=float(row["center"]) if row["center"] else None,
        low=float(row["low"]),
        high=float(row["high"]),
    )
