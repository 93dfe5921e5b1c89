"""Grids of coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
    taps = torch.arange(start, stop, device=like.device)
    return (2 * taps - (size - 1)).to(like.dtype) / max(size - 1, 1)


def coordinate_grid(axes: Sequence[Tensor]) -> Tensor:
    """Stack coordinate axes into a grid of shape ``(*sizes, ndim)``, rows first.

    Examples:
        >>> import torch
        >>> coordinate_grid([torch.zeros(3), torch.ones(5)]).shape
        torch.Size([3, 5, 2])
    """
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
