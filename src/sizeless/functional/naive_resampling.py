"""The slow, obviously right twin of :func:`sizeless.functional.resample`."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def resample(
    input: Tensor,
    output_size: Sequence[int],
    *,
    cutoff: Sequence[float | Tensor] | None = None,
    transition: Sequence[float | Tensor] | None = None,
    amplitude: str = "mean",
) -> Tensor:
    """Resize a map by summing over signed frequencies, one output sample at a time.

    Same meaning as :func:`sizeless.functional.resample`; ``output_size``, ``cutoff`` and
    ``transition`` are sequences of one value per axis.

    Example:
        >>> import torch
        >>> resample(torch.ones(1, 1, 4), (2,)).tolist()
        [[[1.0, 1.0]]]
    """
    output = input
    for axis, size in enumerate(output_size, start=2):
        window = None
        if cutoff is not None and transition is not None:
            window = (cutoff[axis - 2], transition[axis - 2])
        slices = [_sample(output, axis, q / size, size, window) for q in range(size)]
        gain = output.shape[axis] / size if amplitude == "sum" else 1.0
        output = torch.stack(slices, dim=axis) * gain
    return output


def _sample(
    input: Tensor,
    axis: int,
    position: float,
    output_size: int,
    window: tuple[float | Tensor, float | Tensor] | None,
) -> Tensor:
    """Value of the low-passed interpolant at ``position``, in maps (0 is the first sample)."""
    size = input.shape[axis]
    highest = min(size, output_size) // 2
    total = torch.zeros_like(input.select(axis, 0))
    for k in range(-highest, highest + 1):
        share = 0.5 if 2 * abs(k) == size else 1.0
        weight: float | Tensor = share
        if window is not None and k != 0:
            weight = share * _trapezoid(abs(k), *window)
        for p in range(size):
            turn = cmath.exp(2j * math.pi * k * (position - p / size))
            total = total + weight * turn.real * input.select(axis, p) / size
    return total


def _trapezoid(k: int, cutoff: float | Tensor, transition: float | Tensor) -> float | Tensor:
    if k <= cutoff:
        return 1.0
    if k >= cutoff + transition:
        return 0.0
    return (cutoff + transition - k) / transition
