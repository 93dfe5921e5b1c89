"""Where the taps of a convolution fall: the integers that every method shares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

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

    def numbers(self) -> Iterator[list[int]]:
        """Yield what an operator's schema can hold besides two tensors, in its order."""
        yield list(self.stride)
        yield [before for before, _ in self.amounts]
        yield [after for _, after in self.amounts]
        yield list(self.dilation)


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
    shape = tuple(input.shape) if isinstance(input, Tensor) else input
    filters = tuple(weight.shape) if isinstance(weight, Tensor) else weight
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
