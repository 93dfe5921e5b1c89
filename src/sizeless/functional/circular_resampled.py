"""Circular convolution of which only a smaller, low-passed map is wanted, in one step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sizeless.functional.circular_products import convolve_spectra
from sizeless.functional.constants import constant
from sizeless.functional.cropped_spectra import half_of, waves_of

Size = tuple[int, ...]


def convolve_resampled(
    input: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    gains: Tensor,
    size: Size,
    groups: int = 1,
) -> Tensor:
    r"""Convolve circularly and resize the output, with one transform and a smaller inverse one.

    $$
    y = \mathcal F_m^{-1}\big(\operatorname{crop}(g \odot W_H \odot \mathcal F_n(x))\big)
    $$

    Filters and gains are needed at the frequencies of the output alone.

    Args:
        input: ``(N, C, *map)``.
        filter: Real and imaginary parts of the filters' half spectra at these frequencies,
            ``(2, out, C / groups, *half_of(waves_of(map, size)))``, in float32 or float64.
        bias: ``(out,)`` in the dtype of ``filter``, or ``None``; added before the map is resized.
        gains: Gain of every kept wave of each axis, as ``low_pass`` has them.
        size: Size of the output, along no axis more than that of the map.
        groups: Channel groups.

    Returns:
        Tensor ``(N, out, *size)`` of the dtype and in the memory layout of ``input``,
        differentiable any number of times in all tensors.

    Examples:
        >>> from sizeless.functional.low_pass import plain_gains
        >>> gains = plain_gains((8,), (4,), "mean", torch.float32, torch.device("cpu"))
        >>> filter = torch.stack([torch.ones(2, 1, 3), torch.zeros(2, 1, 3)])
        >>> convolve_resampled(torch.ones(1, 2, 8), filter, None, gains, (4,), groups=2).shape
        torch.Size([1, 2, 4])
    """
    before = tuple(input.shape[2:])
    weights = _weights(gains.to(filter.dtype), before, size)
    if bias is not None:
        bias = bias * (weights.flatten()[0] * (math.prod(before) / math.prod(size)))
    return convolve_spectra(input, filter * weights, bias, groups, size)


def _weights(gains: Tensor, before: Size, size: Size) -> Tensor:
    """Factor of each frequency of the output's half spectrum."""
    waves = waves_of(before, size)
    weights = gains.new_ones(())
    for axis, (n, m, kept) in enumerate(zip(before, size, half_of(waves), strict=True)):
        places = constant(_places, waves[axis], kept, gains.device)
        factors = constant(_factors, n, m, waves[axis], gains.dtype, gains.device)
        along = gains[axis, : len(factors)] * factors
        weights = weights.unsqueeze(-1) * along.index_select(0, places)
    return weights


def _places(waves: int, kept: int, device: torch.device) -> Tensor:
    """Which wave has the gain of each of the first ``kept`` frequencies of an axis."""
    frequency = torch.arange(kept, device=device)
    return (2 * torch.minimum(frequency, waves - frequency) - 1).clamp_min(0)


def _factors(n: int, m: int, waves: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a frequency counts for beside the gain of its wave, which is that of unit waves."""
    factors = torch.full((waves,), math.sqrt(m / n), dtype=dtype, device=device)
    if waves % 2 == 0:
        # Alone at its frequency, the last wave counts in full.
        factors[-1] *= 2
    return factors
