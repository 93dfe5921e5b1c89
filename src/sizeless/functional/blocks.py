"""Cutting maps into overlapping blocks, and putting them together again (overlap-save)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from sizeless.functional.geometry import Geometry
from sizeless.functional.partial_transform import spread


class Blocks(NamedTuple):
    """How the axes are cut: each block of ``lengths`` inputs gives ``steps`` outputs."""

    lengths: tuple[int, ...]
    steps: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def half(self) -> tuple[int, ...]:
        """Shape of the half spectrum of one block."""
        return (*self.lengths[:-1], self.lengths[-1] // 2 + 1)

    @property
    def frequencies(self) -> int:
        """Points of the half spectrum of one block."""
        return math.prod(self.half)

    @property
    def per_map(self) -> int:
        """Blocks per map."""
        return math.prod(self.counts)

    @property
    def covered(self) -> tuple[int, ...]:
        """Padded inputs per axis that the blocks cover."""
        return tuple(
            (count - 1) * step + length
            for length, step, count in zip(self.lengths, self.steps, self.counts, strict=True)
        )


def cut(geometry: Geometry, lengths: tuple[int, ...]) -> Blocks:
    """Return blocks of these lengths; one of a whole period or more is the only one."""
    steps, counts = [], []
    for length, period, span, reach in zip(
        lengths, geometry.periods, geometry.spans, geometry.reach, strict=True
    ):
        step = span if length >= period else length - reach
        steps.append(step)
        counts.append(-(-span // step))
    return Blocks(lengths, tuple(steps), tuple(counts))


def input_blocks(input: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Return the padded input's blocks ``(N, C, *counts, *lengths)``: a view, they overlap."""
    padded = F.pad(input, _margins(geometry, blocks))
    for axis, (length, step, count) in enumerate(zip(*blocks, strict=True), start=2):
        padded = padded.unfold(axis, length, step) if count > 1 else padded.unflatten(axis, (1, -1))
        if count == 1:
            padded = padded.movedim(axis + 1, -1)
    return padded


def add_input_blocks(values: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Add up blocks ``(N, C, *counts, *lengths)`` where they overlap: adjoint of the cut."""
    ndim = geometry.ndim
    for axis in reversed(range(ndim)):
        # From (..., *counts, *lengths, *whole) the last count and length make one whole axis.
        values = _overlap_add(
            values.movedim((2 + axis, 2 + 2 * axis + 1), (-2, -1)), blocks.steps[axis]
        )
    order = tuple(reversed(range(2, 2 + ndim)))
    values = values.permute(0, 1, *order)
    return F.pad(values, [-margin for margin in _margins(geometry, blocks)])


def _overlap_add(values: Tensor, step: int) -> Tensor:
    """Turn blocks ``(..., count, length)``, one every ``step``, into their sum ``(..., total)``."""
    count, length = values.shape[-2:]
    if count == 1:
        return values.squeeze(-2)
    pieces = -(-length // step)
    values = F.pad(values, (0, pieces * step - length))
    total = values.new_zeros(*values.shape[:-2], count + pieces - 1, step)
    for index in range(pieces):
        piece = values[..., index * step : (index + 1) * step]
        total[..., index : index + count, :] += piece
    return total.flatten(-2)[..., : (count - 1) * step + length]


def output_blocks(grad: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Return the outputs of each block, ``(N, C, *counts, *steps)``, with zeros between strides."""
    grad = spread(grad, geometry.stride)
    covered = [count * step for count, step in zip(blocks.counts, blocks.steps, strict=True)]
    missing = [n - size for n, size in zip(covered, grad.shape[2:], strict=True)]
    if any(missing):
        grad = F.pad(grad, [amount for n in reversed(missing) for amount in (0, n)])
    return _split_steps(grad, blocks)


def _split_steps(values: Tensor, blocks: Blocks) -> Tensor:
    """View ``(N, C, *(counts * steps))`` as ``(N, C, *counts, *steps)``."""
    ndim = len(blocks.steps)
    for axis in reversed(range(ndim)):
        values = values.unflatten(2 + axis, (blocks.counts[axis], blocks.steps[axis]))
    order = [*range(2, 2 + 2 * ndim, 2), *range(3, 3 + 2 * ndim, 2)]
    return values.permute(0, 1, *order)


def join_outputs(values: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Return ``(N, C, *output_size)``, which blocks ``(N, C, *counts, *lengths)`` start with."""
    ndim = geometry.ndim
    for axis, step in enumerate(blocks.steps, start=2 + ndim):
        values = values.narrow(axis, 0, step)
    if blocks.per_map > 1:
        covered = [count * step for count, step in zip(blocks.counts, blocks.steps, strict=True)]
        whole = values.new_empty(*values.shape[:2], *covered)
        _split_steps(whole, blocks).copy_(values)
        values = whole
    else:
        values = values.flatten(2, 2 + ndim)
    places: list[Any] = [
        slice(0, span, stride) for span, stride in zip(geometry.spans, geometry.stride, strict=True)
    ]
    return values[(..., *places)]


def _margins(geometry: Geometry, blocks: Blocks) -> list[int]:
    """Samples to add to the input, in the order of ``torch.nn.functional.pad``; may be negative."""
    margins = []
    for n, (before, _), covered in zip(
        geometry.size, geometry.amounts, blocks.covered, strict=True
    ):
        margins.append((before, covered - n - before))
    return [amount for pair in reversed(margins) for amount in pair]
