"""Folding the axis of ``torch.func.vmap`` into another, so that one larger product serves it."""

from __future__ import annotations

from torch import Tensor


def in_front(value: Tensor, dim: int | None, size: int) -> Tensor:
    """Bring the axis to the front; a tensor without one is repeated ``size`` times."""
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)


def in_first(value: Tensor, dim: int | None, size: int) -> Tensor:
    """Fold the axis into the first one: more maps of ``(N, C, *spatial)``, or more kernels."""
    return in_front(value, dim, size).flatten(0, 1)


def in_channels(value: Tensor, dim: int | None, size: int) -> Tensor:
    """Fold the axis into the second one: more channels, one group after the other."""
    return in_front(value, dim, size).movedim(0, 1).flatten(1, 2)
