"""The frequencies at which the networks of NIFF are asked for a filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sizeless.functional.cropped_spectra import half_of
from sizeless.kernels import coordinate_grid


def half_grid(
    sizes: tuple[int, ...],
    waves: tuple[int, ...],
    per_pixel: bool,
    half_sample: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Frequencies of a half spectrum, then their negatives, ``(ndim, -1)``.

    Args:
        sizes: Size of the map.
        waves: Waves that are kept of each axis, the lowest ones; see ``cropped_spectra``.
        per_pixel: Whether in cycles per pixel, or else per map.
        half_sample: Whether those of odd axes are shifted by half a cycle per map.
        dtype: Dtype of the result.
        device: Its device.
    """
    indices = [
        _lowest(n, count, taken, device)
        for n, count, taken in zip(sizes, waves, half_of(waves), strict=True)
    ]
    grids = []
    for sign in (1, -1):
        turned = [(sign * index) % n for index, n in zip(indices, sizes, strict=True)]
        axes = grid_axes(sizes, turned, per_pixel, half_sample, dtype, device)
        grids.append(coordinate_grid(axes).flatten(0, -2))
    return torch.cat(grids).t().contiguous()


def _lowest(n: int, count: int, taken: int, device: torch.device) -> Tensor:
    """Indices of the first ``taken`` of the ``count`` lowest frequencies of an axis."""
    index = torch.arange(taken, device=device)
    return torch.where(index <= count // 2, index, index + (n - count))


def grid_axes(
    sizes: tuple[int, ...],
    indices: Sequence[Tensor],
    per_pixel: bool,
    half_sample: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Tensor]:
    """Signed frequencies at the indices of each axis."""
    axes = []
    for n, index in zip(sizes, indices, strict=True):
        k = torch.where(index < (n + 1) // 2, index, index - n).to(device, dtype)
        if half_sample:
            k = k - 0.5 * (n % 2)
        axes.append(k / n if per_pixel else k)
    return axes
