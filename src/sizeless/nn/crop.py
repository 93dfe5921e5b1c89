"""Which taps of a windowed kernel are kept, and the buckets that a compiled forward uses instead.

The size of a kernel is counted in arms, taps on each side of the middle one, or causally in taps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

THRESHOLD = 0.1
"""Window value below which a tap is cropped (the paper's choice)."""

REACH = math.sqrt(-2 * math.log(THRESHOLD))
"""Half-width of the kept part in standard deviations, 2.146."""

EDGE = 1.02
"""A bucket grows as soon as a window larger by this factor would not fit into it."""

ROOM = 1.1
"""A bucket with room fits a window larger by this factor."""

SLACK = 1.25
"""A bucket shrinks as soon as a window larger by this factor would fit into a smaller one."""

Bounds = tuple[tuple[int, int], ...]
"""First tap, and one past the last, for each axis."""

Place = tuple[float, float]
"""Width and centre of a window along one axis, in units of half the axis."""


def spacing(taps: int) -> float:
    """Distance of neighbouring taps of an axis that spans [-1, 1]."""
    return 2.0 / max(taps - 1, 1)


def largest(taps: int, causal: bool) -> int:
    """Size of the whole axis."""
    return taps if causal else (taps - 1) // 2


def kept(sigma: float, center: float, taps: int, causal: bool, factor: float = 1.0) -> int:
    """Size of an axis after the crop, for a window that reaches ``factor`` times as far."""
    everything = largest(taps, causal)
    if causal:
        root = center - REACH * sigma
        reach = factor * (1 - root)
        if abs(root) >= 1:
            return everything
        return min(max(math.ceil(reach / spacing(taps)), 1), everything)
    reach = factor * (abs(center) + REACH * sigma)
    if reach >= 1:
        return everything
    return min(max(math.ceil(reach / spacing(taps)) - 1, 0), everything)


def kept_tensor(sigma: Tensor, center: Tensor, taps: int, causal: bool) -> Tensor:
    """``kept`` as a tensor, by the same arithmetic."""
    everything = largest(taps, causal)
    if causal:
        root = center - REACH * sigma
        size = ((1 - root) / spacing(taps)).ceil().clamp(1, everything)
        return torch.where(root.abs() >= 1, everything, size)
    reach = center.abs() + REACH * sigma
    size = ((reach / spacing(taps)).ceil() - 1).clamp(0, everything)
    return torch.where(reach >= 1, everything, size)


def bounds(size: int, taps: int, causal: bool) -> tuple[int, int]:
    """First tap of an axis of ``size``, and one past the last."""
    if causal:
        return taps - size, taps
    middle = (taps - 1) // 2
    return middle - size, middle + size + 1


def inside(size: Tensor, start: int, stop: int, taps: int, causal: bool) -> Tensor:
    """Which taps from ``start`` to ``stop - 1`` belong to an axis of ``size``, a tensor."""
    places = torch.arange(start, stop, device=size.device)
    if causal:
        return places >= taps - size
    return (places - (taps - 1) // 2).abs() <= size


def rung(size: int, everything: int) -> int:
    """Return the smallest bucket that holds ``size``: 1, 2, 3, 4, 6, 8, 12, 16, ... or all.

    Examples:
        >>> [rung(size, 20) for size in (0, 1, 5, 7, 13, 16, 17, 20)]
        [1, 1, 6, 8, 16, 16, 20, 20]
    """
    power = 1 << (max(size, 1) - 1).bit_length()
    lower = 3 * power // 4
    return min(lower if lower >= max(size, 3) else power, everything)


def next_bucket(
    now: int | None,
    sigma: float,
    center: float,
    taps: int,
    causal: bool,
    *,
    with_room: bool = False,
) -> int:
    """Return the bucket that should follow ``now``, most often the same.

    It grows before the window touches its end, and shrinks only where a smaller one leaves room,
    so that a window at the edge of a bucket does not flap between two.

    Args:
        now: Present bucket, or ``None`` to choose anew.
        sigma: Width of the window.
        center: Its centre.
        taps: Taps of the whole axis.
        causal: Whether the window looks back from the last tap.
        with_room: Whether one that is chosen anew leaves room to grow.
    """

    def bucket(factor: float) -> int:
        size = kept(sigma, center, taps, causal, factor)
        return rung(size, largest(taps, causal))

    if now is None:
        return bucket(ROOM if with_room else EDGE)
    if now < kept(sigma, center, taps, causal, EDGE) or bucket(SLACK) < now:
        return bucket(EDGE)
    return now
