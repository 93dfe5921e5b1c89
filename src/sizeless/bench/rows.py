"""Rows of results, and the file that they are kept in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sizeless._files import write_text


@dataclass(frozen=True)
class Row:
    """One contender in one case.

    Attributes:
        suite: ``"convolve"``, ``"layers"`` or ``"models"``.
        kind: What the case belongs to, such as ``"2-D depthwise"``.
        case: Name of the case.
        mode: ``"forward"`` (no gradients) or ``"training"`` (forward, and backward to inputs and
            weights).
        shape: Shape of the input.
        layout: Memory layout of the input.
        kernel: Taps per axis, where the case has a kernel.
        contender: What was measured.
        role: ``"ours"``, ``"again"`` (ours once more), ``"forced"`` (ours, with the method
            prescribed), ``"baseline"``, ``"peer"`` (another package), ``"layout"`` (given its
            input in another layout) or ``"limit"``.
        status: ``"ok"``, ``"once"`` (hopeless, measured once), ``"skipped"``, ``"not installed"``,
            ``"n/a"``, ``"wrong"`` or ``"failed"``.
        note: Why, where the status is not ``"ok"``.
        rounds: Number of interleaved rounds.
        median_ms: Median time of one run in milliseconds.
        low_ms: Lower quartile.
        high_ms: Upper quartile.
        ours_over_this: Median over the rounds of our time over this one's: below 1, ours is faster.
        bar: The largest ``ours_over_this`` that the project asks for.
        peak_mib: Peak memory of one run beyond its inputs, in MiB.
        ours_memory_over_this: Our peak over this one's.
        memory_bar: The largest ``ours_memory_over_this`` that the project asks for.
        limit: What bounds the time: ``"sgemm"``, ``"copy"`` or ``"transforms"``.
        limit_ms: That bound in milliseconds.
        ratio_to_limit: ``median_ms / limit_ms``.
    """

    suite: str
    kind: str
    case: str
    mode: str
    shape: str
    layout: str
    kernel: int | None
    contender: str
    role: str
    status: str
    note: str = ""
    rounds: int = 0
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    ours_over_this: float | None = None
    bar: float | None = None
    peak_mib: float | None = None
    ours_memory_over_this: float | None = None
    memory_bar: float | None = None
    limit: str = ""
    limit_ms: float | None = None
    ratio_to_limit: float | None = None


COLUMNS = [field.name for field in fields(Row)]
_CONVERT: dict[str, type] = {
    field.name: next(kind for kind in (str, int, float) if kind.__name__ in str(field.type))
    for field in fields(Row)
}
_OPTIONAL = {field.name for field in fields(Row) if "None" in str(field.type)}


def by(sizes: Iterable[int]) -> str:
    """Return sizes as text."""
    return "x".join(map(str, sizes))


def to_csv(rows: Iterable[Row]) -> str:
    """Return rows as CSV text, floats with five digits."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _shown(value) for name, value in asdict(row).items()})
    return buffer.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Read rows.

    Args:
        path: A file of results, or none: then there are no rows.

    Raises:
        ValueError: If the file has other columns, or a line that cannot be read.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    header, *lines = csv.reader(io.StringIO(text)) if text else [[]]
    if header != COLUMNS:
        raise ValueError(f"{path} has other columns than this version of sizeless writes")
    if not text.endswith("\n"):
        raise ValueError(f"{path} ends in the middle of a line")
    rows: list[Row] = []
    try:
        rows.extend(map(_row, lines))
    except ValueError as error:
        raise ValueError(f"{path} is damaged in line {len(rows) + 2}: {error}") from error
    return rows


class Results:
    """The rows of one suite; every addition is on disk at once.

    Rows gather in ``NAME.partial.csv`` and become ``NAME.csv`` when all are there, so that a whole
    table is never replaced by half of one. Both files are replaced as a whole, so that a run which
    is killed leaves all rows of a case or none.

    Args:
        path: Where the finished table goes.
        resume: Whether to keep the rows that are there.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.partial = self.partial_of(path)
        self.rows: list[Row] = []
        if resume:
            self.rows = read_rows(self.partial) or read_rows(self.path)

    @staticmethod
    def partial_of(path: Path) -> Path:
        """Where rows gather until the table at ``path`` is complete."""
        return path.with_name(f"{path.stem}.partial.csv")

    def holds(self, case: str, mode: str) -> bool:
        """Return whether the case has been measured."""
        return any((row.case, row.mode) == (case, mode) for row in self.rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Append the rows of one case."""
        self.rows.extend(rows)
        write_text(self.partial, to_csv(self.rows))

    def finish(self) -> None:
        """Put the finished table in its place."""
        write_text(self.path, to_csv(self.rows))
        self.partial.unlink(missing_ok=True)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _row(line: Sequence[str]) -> Row:
    values: dict[str, Any] = {}
    for name, text in zip(COLUMNS, line, strict=True):
        absent = text == "" and name in _OPTIONAL
        values[name] = None if absent else _CONVERT[name](text)
    return Row(**values)
