"""Grids of coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def coordinate_axis(size: int, start: int, stop: int, like: Tensor) -> Tensor:
    """Coordinates of the taps ``start`` to ``stop - 1`` of ``size`` taps spread over [-1, 1].

    Args:
        size: Taps of the whole axis; the first is at -1 and the last at +1. A single tap is at 0.
        start: First tap wanted.
        stop: One past the last tap wanted.
        like: Tensor that gives dtype and device.

    Returns:
        Tensor of shape ``(stop - start,)``.

    Examples:
        >>> import torch
        >>> coordinate_axis(5, 1, 4, torch.zeros(1))
        tensor([-0.5000,  0.0000,  0.5000])
    """
    # Integers, and one division: exact at both ends and exactly 0 in the middle.
    first, last = 2 * start - (size - 1), 2 * stop - (size - 1)
    doubled = torch.arange(first, last, 2, dtype=like.dtype, device=like.device)
    return doubled / max(size - 1, 1)


def coordinate_grid(axes: Sequence[Tensor]) -> Tensor:
    """Stack coordinate axes into a grid of shape ``(*sizes, ndim)``, rows first.

    Examples:
        >>> import torch
        >>> coordinate_grid([torch.zeros(3), torch.ones(5)]).shape
        torch.Size([3, 5, 2])
    """
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def stack_axes(axes: Sequence[Tensor]) -> Tensor:
    """Stack coordinate axes into rows, padded with zeros behind, so that one operation serves all.

    Examples:
        >>> import torch
        >>> stack_axes([torch.ones(2), torch.ones(3)]).tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    """
    longest = max(len(axis) for axis in axes)
    return torch.stack(
        [axis if len(axis) == longest else F.pad(axis, (0, longest - len(axis))) for axis in axes]
    )


def unstack_axes(values: Tensor, axes: Sequence[Tensor], dim: int = 0) -> list[Tensor]:
    """Take values at stacked axes apart again.

    Args:
        values: Values at ``stack_axes(axes)``, with the axes along ``dim`` and the taps after it.
        axes: What was stacked.
        dim: Where the axes lie.

    Returns:
        One tensor for each axis, with its taps along ``dim``.

    Examples:
        >>> import torch
        >>> axes = [torch.ones(2), torch.ones(3)]
        >>> [row.tolist() for row in unstack_axes(2 * stack_axes(axes), axes)]
        [[2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    return [
        part if part.shape[dim] == len(axis) else part.narrow(dim, 0, len(axis))
        for part, axis in zip(values.unbind(dim), axes, strict=True)
    ]
