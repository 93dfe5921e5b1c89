"""Tables of runs that a user brings: what they must hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from sizeless._validate import quoted

Records: TypeAlias = pd.DataFrame | Iterable[Mapping[str, Any]]
"""A table, or one mapping per row."""
Range = tuple[float, float]

SHARE: Range = (0.0, 1.0)
POSITIVE: Range = (0.0, math.inf)
"""Any finite number from 0 on."""


def checked(
    name: str,
    records: Records,
    numbers: Mapping[str, Range],
    keys: Sequence[str],
    labels: Sequence[str] = (),
) -> pd.DataFrame:
    """Return records as a table of their own whose numbers are finite and in their ranges.

    A column ``seed`` is added where there is none; it is 0.

    Args:
        name: What the records are called in errors.
        records: A table, or one mapping per row.
        numbers: Columns that must hold numbers, and from where to where.
        keys: Columns that together name a row.
        labels: Further columns that must be there.

    Raises:
        TypeError: If ``records`` is no table.
        ValueError: If it is empty, a column is missing, a value is none of its range, or two rows
            have the same keys.
    """
    frame = frame_of(name, records)
    if frame.empty:
        raise ValueError(f"{name} must hold at least one row, got none")
    needed = [*labels, *numbers]
    missing = [column for column in needed if column not in frame]
    if missing:
        raise ValueError(
            f"{name} must have the columns {', '.join(needed)}; {quoted(missing)} is missing among "
            f"{list(frame.columns)}"
        )
    frame = frame.reset_index(drop=True)
    if "seed" not in frame:
        frame["seed"] = 0
    for column in (*labels, "seed"):
        if frame[column].isna().any():
            raise ValueError(f"{name}: column {column!r} must have a value in every row")
    for column, limits in numbers.items():
        frame[column] = _numbers(name, frame[column], limits)
    twice = frame[frame.duplicated(list(keys))]
    if not twice.empty:
        where = ", ".join(f"{key} {twice[key].iloc[0]}" for key in keys)
        raise ValueError(
            f"{name} must have one row for each {', '.join(keys)}, got two for {where}; runs that "
            "differ by chance alone differ in a column 'seed'"
        )
    return frame


def frame_of(name: str, records: Records) -> pd.DataFrame:
    """Return records as a table of their own.

    Raises:
        TypeError: If they are no table.
    """
    if isinstance(records, pd.DataFrame):
        return records.copy()
    rows: list[Any] | None = list(records) if isinstance(records, Iterable) else None
    if rows is None or not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(
            f"{name} must be a DataFrame or a sequence of mappings, one per row, got "
            f"{type(records).__name__}"
        )
    return pd.DataFrame(rows)


def _numbers(name: str, column: pd.Series, limits: Range) -> pd.Series:
    low, high = limits
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        above = f"from {low:g} to {high:g}" if math.isfinite(high) else f"from {low:g} on"
        raise ValueError(
            f"{name}: {column.name!r} must be a finite number {above} in every row, got "
            f"{column.iloc[row]!r} in row {row}; leave out what was not measured"
        )
    return values
