"""What the rows come to: how often our choice is right, and which bars are met."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from sizeless.bench.rows import Row

NEAR = 1.10
"""Our choice may be this much slower than the best way ..."""

FAR = 1.30
"""... on most points, and this much on none."""

SHARE = 0.95
"""Share of the points that must be near."""

NOISE = 0.02
"""Share by which a measured ratio may exceed a bar and still meet it."""

PLAIN = {"torch", "torch converted", "sizeless direct"}
"""Torch's own convolution: where it is the best, a package may beat us by calling it."""


@dataclass(frozen=True)
class Verdict:
    """One point of the suite ``convolve``.

    Attributes:
        ours: Our row.
        best: The fastest way to the same sum that is not a package: torch in both layouts, FFT by
            the textbook, and ours with the method prescribed.
        ratio: Our time over that one's.
        peer: The fastest package, or ``None``.
        apart: The slower of two measurements of our very call over the faster one, or ``None``.
    """

    ours: Row
    best: Row
    ratio: float
    peer: Row | None
    apart: float | None = None

    @property
    def lost_to_a_peer(self) -> bool:
        """Whether a package is faster, although the best way is not plain torch."""
        beaten = self.peer is not None and ratio_of(self.peer) > 1 + NOISE
        return beaten and self.best.contender not in PLAIN


def ratio_of(row: Row) -> float:
    """Our time over that of a row that was measured."""
    if row.ours_over_this is None:
        raise ValueError(f"{row.contender} was not measured in {row.case}")
    return row.ours_over_this


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """Judge every point of which ours and another way were measured."""
    points: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.ours_over_this is not None:
            points.setdefault((row.case, row.mode), []).append(row)
    found = []
    for measured in points.values():
        ours = [row for row in measured if row.role == "ours"]
        ways = [row for row in measured if row.role in {"baseline", "forced"}]
        packages = [row for row in measured if row.role == "peer"]
        if ours and ways:
            best = max(ways, key=ratio_of)
            peer = max(packages, key=ratio_of, default=None)
            again = [ratio_of(row) for row in measured if row.role == "again"]
            apart = max(again[0], 1 / again[0]) if again else None
            found.append(Verdict(ours[0], best, ratio_of(best), peer, apart))
    return found


@dataclass(frozen=True)
class Summary:
    """Several verdicts in numbers.

    Attributes:
        points: How many.
        near: Share of them at most 1.10 times slower than the best way.
        worst: Largest ratio.
        lost: How many were lost to a package although the best way is not plain torch.
        steady: Share of the points where two measurements of our very call were at most 1.10 times
            apart, the most that ``near`` can be expected to reach; ``None`` where there are none.
    """

    points: int
    near: float
    worst: float
    lost: int
    steady: float | None = None

    @property
    def met(self) -> bool:
        """Whether all that is asked for is met."""
        return self.near >= SHARE and self.worst < FAR and not self.lost


def summarise(found: Sequence[Verdict]) -> Summary:
    """Count.

    Raises:
        ValueError: If there is nothing to count.
    """
    if not found:
        raise ValueError("no point was measured")
    ratios = [verdict.ratio for verdict in found]
    near = sum(ratio <= NEAR for ratio in ratios) / len(ratios)
    lost = sum(verdict.lost_to_a_peer for verdict in found)
    twice = [verdict.apart for verdict in found if verdict.apart is not None]
    steady = sum(apart <= NEAR for apart in twice) / len(twice) if twice else None
    return Summary(len(ratios), near, max(ratios), lost, steady)


def meets(row: Row) -> bool | None:
    """Whether a row meets its bars, or ``None`` if it has none or one of them was not measured."""
    pairs = [(row.ours_over_this, row.bar), (row.ours_memory_over_this, row.memory_bar)]
    asked = [(value, bar) for value, bar in pairs if bar is not None]
    shares = [value / bar for value, bar in asked if value is not None]
    if not asked or len(shares) < len(asked):
        return None
    return max(shares) <= 1 + NOISE


def convolve_tables(rows: Iterable[Row]) -> list[Table]:
    """Return a table of all kinds of convolution, and one of the points that fall short."""
    found = verdicts(rows)
    if not found:
        return []
    table = _table("convolve: our choice over the best of torch and FFT")
    columns = "kind", "points", f"within {NEAR:.2f}×", "worst", "lost to a package", "itself", ""
    for column in columns:
        table.add_column(column, justify="left" if column in {"kind", ""} else "right")
    kinds = sorted({verdict.ours.kind for verdict in found})
    for kind in kinds:
        part = [verdict for verdict in found if verdict.ours.kind == kind]
        table.add_row(kind, *_cells(summarise(part)))
    table.add_section()
    table.add_row("all", *_cells(summarise(found)))
    table.caption = f"itself: the very same call, measured twice, within {NEAR:.2f}×"
    short = [v for v in found if v.ratio > NEAR or v.lost_to_a_peer]
    if not short:
        return [table]
    points = _table("convolve: points that fall short")
    for column in ("point", "mode", "ours ms", "best ms", "best", "ratio", "package", "ratio"):
        text = column in {"point", "mode", "best", "package"}
        points.add_column(column, justify="left" if text else "right")
    for verdict in sorted(short, key=lambda v: -v.ratio):
        lost = verdict.peer if verdict.lost_to_a_peer else None
        points.add_row(
            verdict.ours.case,
            verdict.ours.mode,
            _number(verdict.ours.median_ms),
            _number(verdict.best.median_ms),
            verdict.best.contender,
            f"{verdict.ratio:.2f}",
            lost.contender if lost else "",
            f"{ratio_of(lost):.2f}" if lost else "",
        )
    return [table, points]


def bar_table(suite: str, rows: Iterable[Row]) -> Table:
    """Return a table with one row for every alternative of a suite of layers or models."""
    rows = list(rows)
    table = _table(f"{suite}: how many times faster, and how much less memory")
    for column in ("case", "mode", "against", "ours ms", "this ms", "faster", "asked"):
        text = column in {"case", "mode", "against"}
        table.add_column(column, justify="left" if text else "right")
    for column in ("memory", "asked", ""):
        table.add_column(column, justify="right")
    ours = {(row.case, row.mode): row.median_ms for row in rows if row.role == "ours"}
    for row in rows:
        if row.role in {"ours", "limit"} or row.status == "n/a":
            continue
        table.add_row(
            row.case,
            row.mode,
            row.contender,
            _number(ours.get((row.case, row.mode))),
            _number(row.median_ms),
            _inverse(row.ours_over_this) if row.median_ms else row.status,
            _inverse(row.bar),
            _inverse(row.ours_memory_over_this),
            _inverse(row.memory_bar),
            _fate(row),
        )
    asked = [row for row in rows if _has_bar(row)]
    if asked:
        table.caption = f"{sum(meets(row) is True for row in asked)} of {len(asked)} bars met"
    return table


def _has_bar(row: Row) -> bool:
    return row.bar is not None or row.memory_bar is not None


def _fate(row: Row) -> str:
    met = meets(row)
    if met is None:
        return "not measured" if _has_bar(row) else ""
    return "[green]met[/]" if met else "[red]missed[/]"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _cells(summary: Summary) -> list[str]:
    verdict = "[green]met[/]" if summary.met else "[red]missed[/]"
    return [
        str(summary.points),
        f"{summary.near:.0%}",
        f"{summary.worst:.2f}",
        str(summary.lost),
        "" if summary.steady is None else f"{summary.steady:.0%}",
        verdict,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _inverse(ratio: float | None) -> str:
    if ratio is None or not math.isfinite(ratio) or ratio <= 0:
        return ""
    return f"{1 / ratio:.3g}×"
