"""What an operation on a network did to each of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from textwrap import wrap
from typing import Any

Numbers = tuple[int, ...] | tuple[float, ...]

WIDTH = 120
"""Columns in which reasons are printed."""


@dataclass(frozen=True)
class Change:
    """What became of one layer.

    Attributes:
        name: Path of the layer in the model.
        before: Name of its class before.
        after: Name of the class in its place, or ``""`` where it was left alone.
        size_before: Taps, samples or stride of each axis before.
        size_after: The same afterwards.
        parameters_before: Number of its parameters before.
        parameters_after: The same afterwards.
        macs_before: Multiply-accumulates for the example input before.
        macs_after: The same afterwards, at the present sizes.
        error: Relative error of the kernel or filter in its place, or ``None`` where it is no
            approximation of the old one.
        reason: Why the layer was left alone, or what else should be known.
    """

    name: str
    before: str
    after: str = ""
    size_before: Numbers = ()
    size_after: Numbers = ()
    parameters_before: int = 0
    parameters_after: int = 0
    macs_before: int = 0
    macs_after: int = 0
    error: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """What ``convert`` or ``fold`` did; ``print`` shows it as a table.

    Attributes:
        changes: One entry per layer that was looked at, in the order of the model's modules.
        error: Relative error of the network's output for the example input, the norm of the
            difference over the norm; ``None`` where the new network is meant to compute something
            else, or was not made.
        notes: What concerns the network as a whole.
    """

    changes: tuple[Change, ...]
    error: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def changed(self) -> tuple[Change, ...]:
        """The layers in whose place there is another."""
        return tuple(change for change in self.changes if change.after)

    @property
    def left_alone(self) -> tuple[Change, ...]:
        """The layers that stay as they are, each with its reason."""
        return tuple(change for change in self.changes if not change.after)

    def rows(self) -> list[dict[str, Any]]:
        """The changes as dictionaries, for a table of your own."""
        return [asdict(change) for change in self.changes]

    def __str__(self) -> str:
        """Return a table of what changed, and what did not, for people."""
        changed = self.changed
        text = _table(changed) if changed else []
        counts = [
            short(sum(getattr(change, name) for change in changed))
            for name in ("parameters_before", "parameters_after", "macs_before", "macs_after")
        ]
        text.append(
            f"{len(changed)} of {len(self.changes)} layers changed; in these, parameters "
            f"{counts[0]} -> {counts[1]}, MACs {counts[2]} -> {counts[3]}"
        )
        if self.error is not None:
            text.append(f"relative error of the network's output: {self.error:.1e}")
        text += _by_reason(self.left_alone)
        for note in self.notes:
            text += wrap(note, WIDTH, subsequent_indent="  ")
        return "\n".join(text)


def _table(changes: Sequence[Change]) -> list[str]:
    """Lines of a table, without the columns that are empty."""
    head = ("layer", "before", "after", "size", "parameters", "MACs", "error", "remark")
    columns = zip(head, *map(_cells, changes), strict=True)
    filled = [column for column in columns if any(column[1:])]
    widths = [max(map(len, column)) for column in filled]
    title, *lines = zip(*filled, strict=True)
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (title, ["-" * width for width in widths], *lines)
    ]


def _by_reason(changes: Sequence[Change]) -> list[str]:
    """Lines that name the layers left alone, for each reason."""
    reasons: dict[str, list[str]] = {}
    for change in changes:
        reasons.setdefault(change.reason, []).append(change.name or "(the model)")
    lines = ["left alone:"] if reasons else []
    for reason, names in reasons.items():
        text = f"- {reason}: {listed(names)}"
        lines += wrap(text, WIDTH, subsequent_indent="  ")
    return lines


def listed(names: Sequence[str], most: int = 3) -> str:
    """Some names, and how many more there are.

    Examples:
        >>> listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
        ('a, b', 'a, b, c and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _cells(change: Change) -> tuple[str, ...]:
    def pair(before: str, after: str) -> str:
        return before if before == after else f"{before} -> {after}"

    return (
        change.name or "(the model)",
        change.before,
        change.after,
        pair(by(change.size_before), by(change.size_after)),
        pair(short(change.parameters_before), short(change.parameters_after)),
        pair(short(change.macs_before), short(change.macs_after)),
        "" if change.error is None else f"{change.error:.0e}",
        change.reason,
    )


def by(sizes: Sequence[float]) -> str:
    """Sizes as text: ``3x3``.

    Examples:
        >>> by((3, 3)), by((2.25, 2.0))
        ('3x3', '2.25x2')
    """
    return "x".join(f"{size:.4g}" for size in sizes)


def short(count: float) -> str:
    """A count with three digits and a letter for its power of a thousand.

    Examples:
        >>> short(17), short(1_234_000), short(999_950)
        ('17', '1.23M', '1M')
    """
    for letter in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g}{letter}"
        count /= 1000
    return f"{count:.3g}T"
