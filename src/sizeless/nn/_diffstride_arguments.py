"""The arguments of DiffStride: what is allowed, and what is meant where nothing is given."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sizeless._validate import float_tuple, number

TRANSITION = 0.25
"""Default width of the exact rule's ramp, as a share of the cutoff."""


def check_ramp(size_rule: str, smoothness: float, transition: float | None) -> tuple[float, float]:
    """Return the ramp's width in cycles per map and as a share, one of which the rule uses."""
    width = number("smoothness", smoothness)
    if width < 1:
        raise ValueError(
            f"smoothness must be at least 1 cycle per map, got {smoothness!r}: no frequency "
            "may lie on a narrower ramp, and the stride would not learn"
        )
    if size_rule == "exact" and width != 4.0:
        raise ValueError(
            f"smoothness={smoothness!r} belongs to size_rule='paper'; with size_rule='exact' "
            "set transition, the width of the ramp as a share of the cutoff"
        )
    if transition is None:
        return width, TRANSITION
    if size_rule == "paper":
        raise ValueError(
            f"transition={transition!r} belongs to size_rule='exact'; with size_rule='paper' "
            "set smoothness, the width of the ramp in cycles per map"
        )
    share = number("transition", transition)
    if not 0 < share <= 1:
        raise ValueError(f"transition must be above 0 and at most 1, got {transition!r}")
    return width, share


def check_limits(low: float, high: float | None) -> tuple[float, float | None]:
    """Return the smallest and largest stride."""
    minimum = number("min_stride", low)
    if minimum < 1:
        raise ValueError(f"min_stride must be at least 1, got {low!r}")
    if high is None:
        return minimum, None
    maximum = number("max_stride", high)
    if maximum < minimum:
        raise ValueError(f"max_stride must be at least min_stride={minimum}, got {high!r}")
    return minimum, maximum


def check_stride(
    stride: float | Sequence[float], ndim: int, shared: bool, limits: tuple[float, float | None]
) -> tuple[float, ...]:
    """Return the initial stride of each axis."""
    strides = float_tuple("stride", stride, ndim)
    if any(s < 1 for s in strides):
        raise ValueError(
            f"stride must be at least 1 on every axis, got {stride!r}; to enlarge a map use "
            "sizeless.functional.resample"
        )
    if shared and len(set(strides)) > 1:
        raise ValueError(f"stride must be the same on every axis when shared=True, got {stride!r}")
    low, high = limits
    if any(not low <= s <= (math.inf if high is None else high) for s in strides):
        raise ValueError(
            f"stride must lie between min_stride={low} and max_stride={high}, got {stride!r}"
        )
    return strides
