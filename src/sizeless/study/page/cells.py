"""What stands in the cells of a table, and by what they are sorted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

DIGITS = 4
"""Significant digits of the largest number of a column, and of a number on its own."""
FEWER_DIGITS = 3
"""Significant digits of numbers of very different size."""
LEAST_DIGITS = 2
"""Significant digits of the smallest one, or every number is written on its own."""
MOST_DECIMALS = 6
PLAIN = (1e-4, 1e7)
"""Between these a number is written without a power of ten."""
GROUPED = 10_000
"""From here on thousands are set apart."""
DASH = "–"
MINUS = "−"
TIMES = "×"
SIZE = f"\N{NO-BREAK SPACE}{TIMES}\N{NO-BREAK SPACE}"
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: What is read.
        key: What it is sorted by, if that is something else.
        missing: Whether there is no value.
        numeric: Whether it holds a number.
    """

    text: str
    key: str | None = None
    missing: bool = False
    numeric: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its header.
        unit: What its numbers are measured in.
        numeric: Whether it holds numbers only.
        cells: Its cells, from the top.
    """

    name: str
    unit: str
    numeric: bool
    cells: tuple[Cell, ...]


def column(name: str, values: Iterable[Any], *, unit: str = "", spec: str = "") -> Column:
    """Write the values of a column, all numbers in the same way.

    Args:
        name: Its header.
        values: What it holds.
        unit: What its numbers are measured in.
        spec: Format specification of its numbers, chosen by their magnitude if empty.
    """
    values = list(values)
    present = [value for value in values if not is_missing(value)]
    decimals = common_decimals([float(value) for value in present if is_number(value)])
    return Column(
        name,
        unit,
        bool(present) and all(map(is_number, present)),
        tuple(_cell(value, decimals, spec) for value in values),
    )


def _cell(value: Any, decimals: int | None, spec: str) -> Cell:
    if is_missing(value):
        return Cell(DASH, missing=True)
    if is_number(value):
        text = _specified(value, spec) if spec else number(value, decimals, FEWER_DIGITS)
        return Cell(text, key=_key(value), numeric=True)
    return Cell(words(value))


def words(value: Any) -> str:
    r"""Anything as text: truth values as words, tuples of numbers as sizes.

    Examples:
        >>> words(True), words((3, 5)), words("conv1"), words(0.25), words(None)
        ('yes', '3\xa0×\xa05', 'conv1', '0.25', '–')
    """
    if is_missing(value):
        return DASH
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if is_number(value):
        return number(value)
    if isinstance(value, (tuple, list, np.ndarray)):
        apart = SIZE if all(map(is_number, value)) else ", "
        return apart.join(map(words, value))
    return str(value).replace(" × ", SIZE)


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a real number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def is_missing(value: Any) -> bool:
    """Return whether a value is what pandas or Python put where there is none."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def common_decimals(values: Sequence[float]) -> int | None:
    """Decimals that suit all numbers of a column, or ``None`` if there is no such number.

    The largest shows four significant digits, or more if the smallest would not show two.

    Examples:
        >>> common_decimals([0.912, 0.0871]), common_decimals([12.0, 3.0])
        (4, 0)
        >>> common_decimals([0.5, 1e6]) is None
        True
        >>> common_decimals([0.25, -0.5, 0.0])
        2
    """
    finite = [abs(value) for value in values if math.isfinite(value) and value]
    if all(value.is_integer() for value in finite):
        return 0 if max(finite, default=0.0) < PLAIN[1] ** 2 else None
    largest, smallest = math.floor(math.log10(max(finite))), math.floor(math.log10(min(finite)))
    decimals = max(DIGITS - 1 - largest, LEAST_DIGITS - 1 - smallest, 0)
    if max(finite) >= PLAIN[1] or decimals > MOST_DECIMALS or largest + 1 + decimals > 2 * DIGITS:
        return None
    needed = [f"{value:.{decimals}f}".rstrip("0").partition(".")[2] for value in finite]
    return max(map(len, needed))


def number(value: float, decimals: int | None = None, digits: int = DIGITS) -> str:
    """Write a number for people.

    Args:
        value: The number.
        decimals: Decimals; ``None`` for as many as ``digits`` asks for.
        digits: Significant digits.

    Examples:
        >>> number(1234567), number(0.00001234), number(-1.5, 2), number(float("inf"))
        ('1,234,567', '1.234×10⁻⁵', '−1.50', '∞')
    """
    if math.isinf(value):
        return _signed("-∞" if value < 0 else "∞")
    if isinstance(value, Integral):
        return _signed(_grouped(value, 0))
    if decimals is not None:
        return _signed(_grouped(value, decimals))
    if value and not PLAIN[0] <= abs(value) < PLAIN[1]:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return _signed(f"{mantissa}{TIMES}10{str(int(exponent)).translate(SUPERSCRIPTS)}")
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    text = _grouped(value, max(0, places))
    return _signed(text.rstrip("0").rstrip(".") if "." in text else text)


def _specified(value: float, spec: str) -> str:
    if math.isinf(value):
        return number(value)
    # Missing values make a column of integers one of floats.
    return _signed(format(round(value) if spec.endswith("d") else float(value), spec))


def _grouped(value: Any, decimals: int) -> str:
    comma = "," if abs(value) >= GROUPED else ""
    if isinstance(value, Integral):
        return format(int(value), f"{comma}d")
    return format(float(value), f"{comma}.{decimals}f")


def _signed(text: str) -> str:
    """Write a minus as one, and none before a zero."""
    digits = text.removeprefix("-")
    if digits == text or not any(letter in "123456789∞" for letter in digits):
        return digits
    return MINUS + digits


def _key(value: Any) -> str:
    """A number as a browser reads it."""
    if math.isinf(value):
        return "-Infinity" if value < 0 else "Infinity"
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))
