"""What the positions of a tensor see of a network's input, along each of its axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

Shape = tuple[int, ...]

SLACK = 1e-6
"""What counts as rounding, in samples, and relative to a jump."""

GATES = "gates that see the whole input are not counted"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Window:
    """Positions of an axis that a layer puts together.

    Output ``p`` sees the positions from ``step * p + first`` to ``step * p + last``.
    """

    step: float = 1.0
    first: float = 0.0
    last: float = 0.0
    taps: int = 1
    dilation: int = 1


def covering(spans: Iterable[tuple[int, int]], step: float) -> Window:
    """Return the smallest window that holds what every output sees; empty spans see nothing."""
    seen = [(p, first, last) for p, (first, last) in enumerate(spans) if first <= last]
    return Window(
        step,
        min(first - step * p for p, first, _ in seen),
        max(last - step * p for p, _, last in seen),
        max(last - first + 1 for _, first, last in seen),
    )


@dataclass(frozen=True)
class Reach:
    """Samples of one axis of the input that the positions of a tensor see.

    Position ``q`` along ``dims`` sees from ``low + q * jump`` to ``high + q * jump``. With no
    ``dims`` all see the same.

    Attributes:
        size: Samples of the input along the axis.
        jump: Samples from one position to the next; NaN with no ``dims``.
        low: First sample that position 0 sees; minus infinity where all see the whole axis.
        high: Last sample that it sees.
        dims: The axis of the tensor that runs along this axis of the input; several where
            ``lost``, which share its positions in an unknown way.
        lost: 0, or a number that tells since when it is unknown which position is where.
    """

    size: int
    jump: float
    low: float
    high: float
    dims: tuple[int, ...] = ()
    lost: int = 0

    @property
    def whole(self) -> bool:
        """Whether every position sees the whole axis."""
        return math.isinf(self.low) and math.isinf(self.high)

    @property
    def field(self) -> int:
        """Samples that one position sees."""
        return self.size if self.whole else math.floor(self.high - self.low + SLACK) + 1

    def at(self, position: int) -> tuple[float, float]:
        """First and last sample that a position sees, which may lie outside of the input."""
        if self.whole:
            return 0.0, self.size - 1.0
        shift = position * self.jump if self.dims else 0.0
        return self.low + shift, self.high + shift

    def through(self, window: Window) -> Reach:
        """What the outputs of a layer see whose inputs see this."""
        return replace(
            self,
            jump=self.jump * window.step,
            low=self.low + window.first * self.jump,
            high=self.high + window.last * self.jump,
        )

    def fixed(self, count: int = 1) -> Reach:
        """What the first ``count`` positions see together."""
        low, high = self.low, self.high
        if self.dims:
            high += (count - 1) * self.jump
        if self.lost or (low <= SLACK and high >= self.size - 1 - SLACK):
            low, high = -math.inf, math.inf
        return Reach(self.size, math.nan, low, high)

    def everything(self) -> Reach:
        """The whole axis, seen from the same positions."""
        if self.lost:
            return self.fixed()
        return replace(self, low=-math.inf, high=math.inf)


@dataclass(frozen=True)
class Fact:
    """What is known of a tensor: a ``Reach`` for each axis of the input, and remarks."""

    reaches: tuple[Reach, ...]
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every position sees the whole input."""
        return all(reach.whole for reach in self.reaches)

    @property
    def is_map(self) -> bool:
        """Whether it has an axis for every axis of the input."""
        return all(len(reach.dims) == 1 and not reach.lost for reach in self.reaches)

    def noted(self, *notes: str) -> Fact:
        """The same with remarks that it does not have yet."""
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *filter(None, notes)))))

    def each(self, change: Callable[[Reach], Reach]) -> Fact:
        """The same with every reach changed."""
        return replace(self, reaches=tuple(change(reach) for reach in self.reaches))

    def touches(self, dims: Collection[int]) -> bool:
        """Whether one of these axes runs along the input, and less than the whole is seen."""
        return any(not set(dims).isdisjoint(r.dims) and not r.whole for r in self.reaches)

    def through(self, windows: Mapping[int, Window], place: str) -> Fact:
        """What the outputs of a layer see, by its window on each axis."""
        lost = [
            r
            for r in self.reaches
            if r.lost and not r.whole and not set(windows).isdisjoint(r.dims)
        ]

        def change(reach: Reach) -> Reach:
            if reach in lost:
                return reach.everything()
            window = windows.get(reach.dims[0]) if reach.dims else None
            return reach if window is None or reach.lost else reach.through(window)

        return self.each(change).noted(unknown(place) if lost else "")

    def gathered(self, dims: Collection[int], shape: Shape) -> Fact:
        """What a sum over some axes of a tensor of this shape sees; these axes stay, of size 1."""

        def change(reach: Reach) -> Reach:
            return reach if set(dims).isdisjoint(reach.dims) else reach.fixed(shape[reach.dims[0]])

        return self.each(change)

    def mixed(self, dims: Collection[int]) -> Fact:
        """What is seen where every position of some axes sees all of them."""
        return self.each(lambda r: r if set(dims).isdisjoint(r.dims) else r.everything())

    def moved(self, where: Mapping[int, int]) -> Fact:
        """The same with axes elsewhere; those that are not mentioned had one position."""

        def change(reach: Reach) -> Reach:
            dims = tuple(where[dim] for dim in reach.dims if dim in where)
            if reach.dims and not dims:
                return reach.fixed()
            # Several axes in another order count their positions in another way.
            turned = reach.lost and list(dims) != sorted(dims)
            lost = next(_numbers) if turned else reach.lost
            return replace(reach, dims=tuple(sorted(dims)), lost=lost)

        return self.each(change)

    def shuffled(self, dims: Collection[int]) -> Fact:
        """The same with the positions of some axes in an unknown order."""
        return self.each(
            lambda r: r if set(dims).isdisjoint(r.dims) else replace(r, lost=next(_numbers))
        )

    def reshaped(self, before: Shape, after: Shape) -> Fact:
        """The same for a tensor of another shape with its values in the same order."""
        old, new = _digits(before), _digits(after)

        def change(reach: Reach) -> Reach:
            spans = [old[dim] for dim in reach.dims]
            if all(span in new for span in spans) and all(a < b for a, b in spans):
                return replace(reach, dims=tuple(new.index(span) for span in spans))
            dims = tuple(
                dim
                for dim, (a, b) in enumerate(new)
                if a < b and any(a < d and c < b for c, d in spans)
            )
            if not dims:
                return reach.fixed() if reach.dims else reach
            return replace(reach, dims=dims, lost=next(_numbers))

        return self.each(change)

    def everywhere(self, note: str = "") -> Fact:
        """The whole input, seen from positions that nobody knows."""
        reaches = (Reach(r.size, math.nan, -math.inf, math.inf) for r in self.reaches)
        return Fact(tuple(reaches), self.notes).noted(note)


def _digits(shape: Shape) -> list[tuple[int, int]]:
    """Products of the sizes up to each axis, without and with it: its place in the order."""
    products = [1, *itertools.accumulate(shape, lambda a, b: a * b)]
    return list(itertools.pairwise(products))


def unknown(place: str) -> str:
    """The remark on a tensor that nobody knows how to follow."""
    return f"not followed through {place}: taken for the whole input"


def meet(
    parts: Sequence[tuple[Fact, Shape]], shape: Shape, place: str, *, gates: bool = True
) -> Fact:
    """What is seen by a function of several tensors, position by position, as they broadcast.

    Args:
        parts: What each of them sees, and its shape.
        shape: Shape of the output.
        place: The function, for remarks.
        gates: Whether one number for all positions, made from the whole input, counts.
    """
    counted = parts if gates else _without_gates(parts)
    facts = [_broadcast(fact, before, shape) for fact, before in counted]
    together = facts[0]
    for fact in facts[1:]:
        pairs = zip(together.reaches, fact.reaches, strict=True)
        met = [_union(one, other, shape, place) for one, other in pairs]
        together = Fact(tuple(reach for reach, _ in met), together.notes)
        together = together.noted(*fact.notes, *(note for _, note in met))
    return together.noted(GATES if len(counted) < len(parts) else "")


def _without_gates(parts: Sequence[tuple[Fact, Shape]]) -> Sequence[tuple[Fact, Shape]]:
    """The parts that are maps, or all of them where none is."""
    maps = [fact for fact, _ in parts if fact.is_map]
    if not maps:
        return parts
    back = [
        reach.dims[0] - len(shape) for fact, shape in parts if fact.is_map for reach in fact.reaches
    ]
    return [
        (fact, shape)
        for fact, shape in parts
        if fact.is_map or any(dim >= -len(shape) and shape[dim] > 1 for dim in back)
    ]


def _broadcast(fact: Fact, before: Shape, after: Shape) -> Fact:
    shift = len(after) - len(before)

    def change(reach: Reach) -> Reach:
        if len(reach.dims) == 1 and before[reach.dims[0]] < after[reach.dims[0] + shift]:
            return reach.fixed()
        return replace(reach, dims=tuple(dim + shift for dim in reach.dims))

    return fact.each(change)


def _union(one: Reach, other: Reach, shape: Shape, place: str) -> tuple[Reach, str]:
    """The smallest interval that holds both at every position, and a remark."""
    if one == other or (one.whole and other.whole and one.dims == other.dims):
        return one, ""
    if one.whole or other.whole:
        return next((r for r in (one, other) if r.dims and not r.lost), one).everything(), ""
    low, high = min(one.low, other.low), max(one.high, other.high)
    if (one.dims, one.lost) == (other.dims, other.lost):
        if not one.dims:
            return replace(one, low=low, high=high).fixed(), ""
        wide, narrow = (one, other) if one.jump >= other.jump else (other, one)
        if math.isclose(one.jump, other.jump, rel_tol=SLACK):
            return replace(one, low=low, high=high), ""
        if not one.lost:
            # What moves on more slowly falls behind the other, by this much at the last position.
            behind = (shape[one.dims[0]] - 1) * (wide.jump - narrow.jump)
            low = min(wide.low, narrow.low - behind)
            return replace(wide, low=low, high=high), f"maps of different jumps meet in {place}"
    moving = next((r for r in (one, other) if r.dims and not r.lost), one)
    return moving.everything(), unknown(place)
