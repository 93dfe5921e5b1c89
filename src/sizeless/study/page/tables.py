"""The columns of a table, written."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from sizeless.study.page.blocks import Table
from sizeless.study.page.cells import Column, column


def columns(table: Table) -> list[Column]:
    """Write the columns of a table, named levels of its index first.

    Raises:
        ValueError: If a unit or a format is for a column that is not there, or is no format of
            numbers.
    """
    frame = table.frame
    sources = [
        (level, frame.index.get_level_values(place))
        for place, level in enumerate(frame.index.names)
        if level is not None
    ]
    sources += [(name, frame.iloc[:, place]) for place, name in enumerate(frame.columns)]
    named = [(_name(name), values) for name, values in sources]
    _check_names(table, {name for name, _ in named})
    return [
        _column(name, values, table.units.get(name, ""), table.formats.get(name, ""))
        for name, values in named
    ]


def _column(name: str, values: Iterable[Any], unit: str, spec: str) -> Column:
    try:
        return column(name, list(values), unit=unit, spec=spec)
    except ValueError as error:
        raise ValueError(
            f"formats[{name!r}] must be a format specification of numbers such as '.2f', got "
            f"{spec!r}"
        ) from error


def _name(name: Hashable) -> str:
    """The header of a column; those of several levels are joined."""
    return (
        ", ".join(str(part) for part in name if part != "")
        if isinstance(name, tuple)
        else str(name)
    )


def _check_names(table: Table, names: set[str]) -> None:
    for argument, given in (("units", table.units), ("formats", table.formats)):
        unknown = sorted(set(given) - names)
        if unknown:
            raise ValueError(
                f"{argument} names {unknown[0]!r}, which is no column of the table: it has "
                f"{', '.join(map(repr, sorted(names))) or 'none'}"
            )
