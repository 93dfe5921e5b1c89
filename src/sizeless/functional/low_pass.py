"""Gains of the waves of an axis that is resized: amplitude, Nyquist, and a low-pass window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sizeless._validate import number, positive_int, real_tensor
from sizeless.functional.constants import constant, tensors_last
from sizeless.functional.limits import EDGE, ramp
from sizeless.functional.operators import Function

MARGIN = 0.01
"""Cycles per map by which the ramp is taken as wider, so that rounding loses no wave."""

FAR = float(1 << 30)
"""How far below the ramp the constant wave is put: a window never takes from the mean."""


def low_pass_window(
    frequencies: int, cutoff: Tensor | float, transition: Tensor | float, like: Tensor
) -> Tensor:
    r"""Weights of the frequencies 0, 1, ..., ``frequencies - 1`` (cycles per map) of one axis.

    $$
    m_k = \operatorname{ramp}\big((c + t - k) / t\big), \qquad m_0 = 1
    $$

    Args:
        frequencies: How many frequencies, counted from 0.
        cutoff: End of the pass band $c$, in cycles per map.
        transition: Width of the linear ramp $t$, in cycles per map.
        like: Tensor that gives dtype and device.

    Returns:
        Tensor of shape ``(frequencies,)``, differentiable in ``cutoff`` and ``transition``.

    Raises:
        TypeError: If ``frequencies`` is no int, an edge no number, or a tensor not floating-point.
        ValueError: If a count, number or shape is out of range. The values of tensors are not read.

    Examples:
        >>> import torch
        >>> low_pass_window(6, 2.0, 2.0, torch.zeros(1))
        tensor([1.0000, 1.0000, 1.0000, 0.5000, 0.0000, 0.0000])
    """
    positive_int("frequencies", frequencies)
    real_tensor("like", like)
    _check_edge("cutoff", cutoff)
    _check_edge("transition", transition, above=0)
    cycles = torch.arange(1, frequencies, dtype=like.dtype, device=like.device)
    weights = ramp((cutoff + transition - cycles) / transition).to(like.dtype)
    return torch.cat([torch.ones(1, dtype=like.dtype, device=like.device), weights])


def _check_edge(name: str, value: Tensor | float, above: float = -math.inf) -> None:
    if not isinstance(value, Tensor):
        number(name, value, above=above)
    elif real_tensor(name, value).dim() > 1 or value.numel() != 1:
        raise ValueError(
            f"{name} must hold one number, got a tensor of shape {tuple(value.shape)}; make one "
            "window per axis"
        )


def count_waves(size: int, output_size: int) -> int:
    """How many waves of an axis of ``size`` samples a resampling keeps."""
    return min(2 * (min(size, output_size) // 2) + 1, size)


def plain_gains(
    sizes: tuple[int, ...],
    output_sizes: tuple[int, ...],
    amplitude: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Gain of every kept wave of every axis where there is no window; beyond, 0."""
    pairs = list(zip(sizes, output_sizes, strict=True))
    rows = []
    for size, output_size in pairs:
        factor = math.sqrt(output_size / size if amplitude == "mean" else size / output_size)
        row = [factor] * count_waves(size, output_size)
        if len(row) == size and size % 2 == 0:
            row[-1] /= 2
        rows.append(row + [0.0] * (max(count_waves(*pair) for pair in pairs) - len(row)))
    return torch.tensor(rows, dtype=dtype, device=device)


def windowed(gains: Tensor, end: Tensor, width: Tensor) -> Tensor:
    """Multiply the gains of every axis by its window.

    Args:
        gains: ``(ndim, waves)``.
        end: Where the ramp of each axis reaches 0, ``(ndim,)``, in cycles per map.
        width: Its width, likewise.

    Returns:
        ``(ndim, waves)``, differentiable in ``end`` and ``width``, at both ends of the ramp too.
    """
    cycles = constant(_cycles, gains.shape[1], gains.dtype, gains.device)
    result: Tensor = _Windowed.apply(gains, end, width, cycles)
    return result


def cutoff(octaves: Tensor, limits: Tensor) -> Tensor:
    """Half the samples that strides leave of a map: the highest frequency, in cycles per map.

    Args:
        octaves: Logarithm to base 2 of the stride of each axis, ``(ndim,)``.
        limits: Its least and most, and half the size of the map, ``(3, ndim)``.

    Returns:
        ``(ndim,)``, with a gradient that is that of the limit however far beyond it a stride is.
    """
    result: Tensor = _Cutoff.apply(octaves, limits)
    return result


class _Cutoff(Function):
    """In one step, with the gradient straight through the limits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(octaves: Tensor, limits: Tensor) -> Tensor:
        least, most, half = limits.unbind()
        return half * octaves.clamp(least, most).neg().exp2()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (edge,) = ctx.saved_tensors
        return grad * edge * -math.log(2), None


class _Windowed(Function):
    """``ramp`` and what leads to it, in one step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gains: Tensor, end: Tensor, width: Tensor, cycles: Tensor) -> Tensor:
        return _heights(end, width, cycles).clamp(0, 1).to(gains.dtype) * gains

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        gains, end, width, cycles = ctx.saved_tensors
        heights = _heights(end, width, cycles)
        on_ramp = (heights >= -EDGE) & (heights <= 1 + EDGE)
        to_end = grad * gains * on_ramp / width[:, None]
        return None, to_end.sum(1).to(end), -(to_end * heights).sum(1).to(width), None


def _heights(end: Tensor, width: Tensor, cycles: Tensor) -> Tensor:
    return (end[:, None] - cycles) / width[:, None]


def _cycles(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cycles per map of every wave."""
    cycles = ((torch.arange(count, device=device) + 1) // 2).to(dtype)
    cycles[0] = -FAR
    return cycles


def all_waves(count: int, device: torch.device) -> Tensor:
    """Indices of all waves of an axis."""
    return constant(_indices, 0, count, device)


def waves_on_ramp(
    window: tuple[Tensor, Tensor], widest: Sequence[float], counts: Sequence[int]
) -> list[Tensor]:
    """Indices of the waves of each axis whose gain depends on the window.

    Args:
        window: Where the ramp of each axis reaches 0 and its width, ``(ndim,)``, in cycles per map.
        widest: Upper bound of each width: as many waves are taken as it may hold.
        counts: How many waves each axis keeps.
    """
    most = [
        min(2 * (math.floor(limit * (1 + 2 * EDGE) + 2 * MARGIN) + 1), count)
        for limit, count in zip(widest, counts, strict=True)
    ]
    # Beyond the waves that are kept there is nothing to learn.
    last = [count - taken for count, taken in zip(counts, most, strict=True)]
    end, width = (edge.detach() for edge in window)
    device = end.device
    if device.type == "cpu" and tensors_last():
        edges = zip(end.tolist(), width.tolist(), strict=True)
        first = [2 * math.ceil(at - wide * (1 + EDGE) - MARGIN) - 1 for at, wide in edges]
        starts = [min(max(start, 0), bound) for start, bound in zip(first, last, strict=True)]
        return [constant(_indices, *part, device) for part in zip(starts, most, strict=True)]
    lowest = (end - width * (1 + EDGE) - MARGIN).ceil().long()
    return [
        start.clamp(0, bound) + constant(_indices, 0, taken, device)
        for start, bound, taken in zip((2 * lowest - 1).unbind(), last, most, strict=True)
    ]


def _indices(start: int, count: int, device: torch.device) -> Tensor:
    return torch.arange(start, start + count, device=device)
