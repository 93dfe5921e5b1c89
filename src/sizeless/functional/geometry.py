"""Where the taps of a convolution fall: the integers that every method shares."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sizeless.functional.padding import Amounts


class Geometry(NamedTuple):
    """Shape of a zero-padded cross-correlation; tuples have one entry per spatial axis."""

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    amounts: Amounts

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def group_inputs(self) -> int:
        """Input channels per group."""
        return self.in_channels // self.groups

    @property
    def group_outputs(self) -> int:
        """Output channels per group."""
        return self.out_channels // self.groups

    @property
    def taps(self) -> int:
        """Taps of one kernel."""
        return math.prod(self.kernel)

    @property
    def reach(self) -> tuple[int, ...]:
        """Samples from the first to the last tap."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def spans(self) -> tuple[int, ...]:
        """Positions of the kernel in the padded input, before the stride; 0 or less if none."""
        return tuple(
            n + before + after - r
            for n, (before, after), r in zip(self.size, self.amounts, self.reach, strict=True)
        )

    @property
    def output_size(self) -> tuple[int, ...]:
        """Outputs per axis."""
        return tuple((span - 1) // s + 1 for span, s in zip(self.spans, self.stride, strict=True))

    @property
    def periods(self) -> tuple[int, ...]:
        """Shortest circular axes on which nothing wraps round onto anything but padding.

        An input placed after its ``before`` zeros may wrap round into them with the zeros that
        follow it, but no further; and all outputs and the kernel must fit.
        """
        return tuple(
            max(n + max(before, after), r + 1, span)
            for n, (before, after), r, span in zip(
                self.size, self.amounts, self.reach, self.spans, strict=True
            )
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the sum as it is written."""
        return (
            self.batch
            * self.out_channels
            * self.group_inputs
            * self.taps
            * math.prod(self.output_size)
        )

    @property
    def inside(self) -> float:
        """Share of the multiply-accumulates whose tap meets the map, and not its padding."""
        share = 1.0
        for n, k, s, d, pair in zip(
            self.output_size, self.kernel, self.stride, self.dilation, self.amounts, strict=True
        ):
            outside = sum(_outside(amount, n, s) / d for amount in pair)
            share *= 1 - min(outside / (n * k), 1.0)
        return share


def _outside(amount: int, outputs: int, stride: int) -> float:
    """Samples of the padding at one end that all outputs together reach."""
    count = max(min(-(-amount // stride), outputs), 0)
    return count * amount - stride * count * (count - 1) / 2


def geometry_of(
    input: tuple[int, ...] | Tensor,
    weight: tuple[int, ...] | Tensor,
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    amounts: Amounts,
    groups: int,
) -> Geometry:
    """Return the geometry of a correlation of tensors of these shapes.

    Raises:
        ValueError: If the kernel reaches beyond the padded input.
    """
    shape, filters = (
        tuple(part.shape if isinstance(part, Tensor) else part) for part in (input, weight)
    )
    arguments = (shape, filters, stride, dilation, amounts, groups)
    # Compilers trace no lookups, and may leave sizes open.
    if torch.compiler.is_compiling() or any(type(n) is not int for n in (*shape, *filters)):
        return _checked(*arguments)
    return _remembered(*arguments)


def _checked(
    shape: tuple[int, ...],
    filters: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    amounts: Amounts,
    groups: int,
) -> Geometry:
    geometry = Geometry(
        shape[0], shape[1], filters[0], groups, shape[2:], filters[2:], stride, dilation, amounts
    )
    for axis, (span, n, r, pair) in enumerate(
        zip(geometry.spans, geometry.size, geometry.reach, amounts, strict=True)
    ):
        if span < 1:
            raise ValueError(
                f"weight reaches over {r + 1} samples (size and dilation) on spatial axis {axis}, "
                f"but the padded input has {n + sum(pair)}; use a smaller kernel or dilation, or "
                "a larger padding, such as padding='same'"
            )
    return geometry


_remembered = lru_cache(maxsize=4096)(_checked)
