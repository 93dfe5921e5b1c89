"""Slow twins of the fast operations: the sums as they are defined, with nothing shared.

They are differentiable and serve as references in tests; use float64.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    causal: bool = False,
) -> Tensor:
    r"""Sum over taps and groups, on an input padded index by index.

    $$
    y[n, o, p] = b[o] + \sum_{i, t} w[o, i, t] \, \tilde x[n, i, s p + d t]
    $$

    Args and shapes are those of [`convolve`][sizeless.functional.convolve]; they are not checked.

    Examples:
        >>> import torch
        >>> convolve(torch.arange(6.0).reshape(1, 1, 6), torch.ones(1, 1, 3)).flatten().tolist()
        [3.0, 6.0, 9.0, 12.0]
    """
    ndim = input.dim() - 2
    strides = [stride] * ndim if isinstance(stride, int) else list(stride)
    dilations = [dilation] * ndim if isinstance(dilation, int) else list(dilation)
    padded, counts = input, []
    for axis in range(ndim):
        extent = dilations[axis] * (weight.shape[2 + axis] - 1)
        if causal:
            before, after = extent, 0
        elif padding == "same":
            before, after = extent // 2, extent - extent // 2
        elif padding == "valid":
            before, after = 0, 0
        else:
            before = after = padding if isinstance(padding, int) else int(padding[axis])
        size = input.shape[2 + axis]
        sources = [_source(i, size, padding_mode) for i in range(-before, size + after)]
        padded = _gather(padded, 2 + axis, sources)
        counts.append((len(sources) - extent - 1) // strides[axis] + 1)

    group_inputs, group_outputs = weight.shape[1], weight.shape[0] // groups
    outputs = []
    for group in range(groups):
        x = padded[:, group * group_inputs : (group + 1) * group_inputs]
        w = weight[group * group_outputs : (group + 1) * group_outputs]
        total = input.new_zeros((input.shape[0], group_outputs, *counts))
        for number, tap in enumerate(itertools.product(*(range(k) for k in weight.shape[2:]))):
            seen = x
            for axis in range(ndim):
                start = dilations[axis] * tap[axis]
                places = [start + strides[axis] * p for p in range(counts[axis])]
                seen = seen.index_select(2 + axis, torch.tensor(places, device=input.device))
            total = total + torch.einsum("oi,ni...->no...", w.flatten(2)[..., number], seen)
        outputs.append(total)
    output = torch.cat(outputs, dim=1)
    return output if bias is None else output + bias.reshape(1, -1, *[1] * ndim)


def _source(position: int, size: int, padding_mode: str) -> int | None:
    """Return the input index that a padded position repeats, None where it is zero."""
    while not 0 <= position < size:
        if padding_mode == "zeros":
            return None
        if padding_mode == "circular":
            position += size if position < 0 else -size
        elif padding_mode == "replicate" or size == 1:
            position = 0 if position < 0 else size - 1
        else:
            position = -position if position < 0 else 2 * (size - 1) - position
    return position


def _gather(input: Tensor, axis: int, sources: list[int | None]) -> Tensor:
    blank = torch.zeros_like(input.select(axis, 0))
    return torch.stack([blank if s is None else input.select(axis, s) for s in sources], dim=axis)


def circular_convolve(
    input: Tensor, real: Tensor, imag: Tensor, bias: Tensor | None = None, groups: int = 1
) -> Tensor:
    r"""Sum the input, rolled by every lag, weighted by the spatial kernel at that lag.

    $$
    y[n, o, p] = b[o] + \sum_{i, m} w[o, i, m] \, x[n, i, (p - m) \bmod N], \qquad
    w[m] = \frac{1}{\prod N} \operatorname{Re} \sum_k W[k]\, e^{2 \pi \mathrm i k m / N}
    $$

    The sum over $k$ is over the full spectrum, whose missing half is the conjugate of the
    one given.

    Args and shapes are those of [`circular_convolve`][sizeless.functional.circular_convolve];
    they are not checked.

    Examples:
        >>> import torch
        >>> impulse = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
        >>> ones = torch.ones(1, 1, 3)
        >>> output = circular_convolve(impulse, ones, torch.zeros(1, 1, 3))
        >>> torch.allclose(output, impulse, atol=1e-6)
        True
    """
    map_size = tuple(input.shape[2:])
    axes = tuple(range(2, input.dim()))
    kernel = _inverse_transform(real, imag, map_size)
    group_inputs, group_outputs = real.shape[1], real.shape[0] // groups
    outputs = []
    for group in range(groups):
        x = input[:, group * group_inputs : (group + 1) * group_inputs]
        w = kernel[group * group_outputs : (group + 1) * group_outputs]
        total = input.new_zeros((input.shape[0], group_outputs, *map_size))
        for number, lag in enumerate(itertools.product(*(range(n) for n in map_size))):
            rolled = torch.roll(x, lag, axes)
            total = total + torch.einsum("oi,ni...->no...", w.flatten(2)[..., number], rolled)
        outputs.append(total)
    output = torch.cat(outputs, dim=1)
    return output if bias is None else output + bias.reshape(1, -1, *[1] * len(axes))


def _inverse_transform(real: Tensor, imag: Tensor, map_size: tuple[int, ...]) -> Tensor:
    """Return the real part of the inverse DFT, frequency by frequency, in real arithmetic."""
    grids = [torch.arange(n, dtype=real.dtype, device=real.device) for n in map_size]
    places = torch.meshgrid(*grids, indexing="ij")
    kernel = real.new_zeros((*real.shape[:2], *map_size))
    for k in itertools.product(*(range(n) for n in map_size)):
        given, sign = k, 1.0
        if k[-1] >= real.shape[-1]:
            given, sign = tuple(-i % n for i, n in zip(k, map_size, strict=True)), -1.0
        turns = torch.zeros_like(places[0])
        for frequency, place, n in zip(k, places, map_size, strict=True):
            turns = turns + frequency * place / n
        at: tuple[Any, ...] = (..., *given, *[None] * len(map_size))
        wave = real[at] * (2 * math.pi * turns).cos()
        kernel = kernel + wave - sign * imag[at] * (2 * math.pi * turns).sin()
    return kernel / math.prod(map_size)


def resample(
    input: Tensor,
    output_size: Sequence[int],
    *,
    cutoff: Sequence[float | Tensor] | None = None,
    transition: Sequence[float | Tensor] | None = None,
    amplitude: str = "mean",
) -> Tensor:
    """Resize a map by summing over signed frequencies, one output sample at a time.

    Same meaning as ``sizeless.functional.resample``; ``output_size``, ``cutoff`` and
    ``transition`` are sequences of one value per axis.

    Examples:
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
