"""Cosines and sines of one axis: as tables, and by fast transforms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sizeless.functional.constants import constant
from sizeless.functional.fft import irfftn, rfftn, spectral_dtype, transform_flops
from sizeless.functional.operators import Function, operator


def waves(size: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    r"""Values of the first ``count`` real waves of an axis of ``size`` samples.

    The constant, then cosine and minus sine of 1, 2, ... cycles per map, the order of real and
    imaginary parts in a half spectrum:

    $$
    \frac{1}{\sqrt n}, \quad \sqrt{\tfrac 2 n} \cos \frac{2 \pi k q}{n}, \quad
    -\sqrt{\tfrac 2 n} \sin \frac{2 \pi k q}{n}, \quad k = 1, 2, \dots
    $$

    Below $n / 2$ cycles they are orthonormal.

    Args:
        size: Samples $n$ of the axis.
        count: How many waves.
        dtype: Of the result.
        device: Of the result.

    Returns:
        Tensor of shape ``(count, size)``.

    Examples:
        >>> waves(2, 2, torch.float32, torch.device("cpu"))
        tensor([[ 0.7071,  0.7071],
                [ 1.0000, -1.0000]])
    """
    return constant(_waves, size, count, dtype, device)


def _waves(size: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    row = torch.arange(count, device=device)[:, None]
    positions = torch.arange(size, device=device)
    # Reduced to one turn in integers, angles stay exact.
    turns = ((row + 1) // 2 * positions).remainder(size)
    angle = turns.to(dtype) * (2 * math.pi / size)
    values = torch.where(row % 2 == 1, angle.cos(), -angle.sin()) * math.sqrt(2 / size)
    return torch.where(row == 0, 1 / math.sqrt(size), values)


def to_waves(input: Tensor, count: int, axis: int) -> Tensor:
    """Multiply every line along ``axis`` by ``waves(size, count)``, by a fast transform.

    Args:
        input: Tensor with at least ``count`` samples along ``axis``.
        count: How many waves.
        axis: Axis, counted from the end.

    Returns:
        Contiguous tensor with ``count`` amplitudes along ``axis``.
    """
    output: Tensor = _ToWaves.apply(input, count, axis)
    return output


def from_waves(amplitudes: Tensor, size: int, axis: int) -> Tensor:
    """Sum the waves of an axis of ``size`` samples; the adjoint of ``to_waves``.

    Args:
        amplitudes: Tensor with at most ``size`` amplitudes along ``axis``.
        size: Samples of the result.
        axis: Axis, counted from the end.

    Returns:
        Contiguous tensor with ``size`` samples along ``axis``.
    """
    output: Tensor = _FromWaves.apply(amplitudes, size, axis)
    return output


def _run_to_waves(input: Tensor, count: int, axis: int) -> Tensor:
    size = input.shape[axis]
    lines = input.movedim(axis, -1).to(spectral_dtype(input))
    spectrum = rfftn(lines, [size], [-1])[..., : count // 2 + 1]
    parts = torch.view_as_real(spectrum).flatten(-2)
    # The imaginary part of the mean is left out.
    amplitudes = parts[..., 1 : count + 1] * math.sqrt(2 / size)
    amplitudes[..., 0] = parts[..., 0] / math.sqrt(size)
    return amplitudes.to(input.dtype).movedim(-1, axis).contiguous()


def _run_from_waves(amplitudes: Tensor, size: int, axis: int) -> Tensor:
    lines = amplitudes.movedim(axis, -1).to(spectral_dtype(amplitudes))
    count = lines.shape[-1]
    parts = lines.new_zeros((*lines.shape[:-1], 2 * (count // 2 + 1)))
    parts[..., 1 : count + 1] = lines * math.sqrt(size / 2)
    parts[..., 0] = lines[..., 0] * math.sqrt(size)
    parts[..., 1] = 0
    if count == size and size % 2 == 0:
        # An inverse transform counts this frequency once, and the others twice.
        parts[..., -2] *= 2
    spectrum = torch.view_as_complex(parts.unflatten(-1, (-1, 2)))
    samples = irfftn(spectrum, [size], [-1])
    samples = samples.to(amplitudes.dtype).movedim(-1, axis).contiguous()
    # A plain view could not be changed in place afterwards, by an activation say.
    return torch.ops.aten._unsafe_view(samples, samples.shape)


def _resized(input: Tensor, size: int, axis: int) -> Tensor:
    shape = list(input.shape)
    shape[axis] = size
    return input.new_empty(shape)


def _flops_to_waves(input: list[int], _count: int, axis: int) -> int:
    return transform_flops([input[axis]]) * math.prod(input) // max(input[axis], 1)


def _flops_from_waves(amplitudes: list[int], size: int, axis: int) -> int:
    return transform_flops([size]) * math.prod(amplitudes) // max(amplitudes[axis], 1)


_to_waves = operator(
    "to_waves(Tensor input, SymInt count, int axis) -> Tensor",
    _run_to_waves,
    _resized,
    _flops_to_waves,
)
_from_waves = operator(
    "from_waves(Tensor input, SymInt size, int axis) -> Tensor",
    _run_from_waves,
    _resized,
    _flops_from_waves,
)


class _ToWaves(Function):
    """Samples to amplitudes."""

    @staticmethod
    def forward(input: Tensor, count: int, axis: int) -> Tensor:
        output: Tensor = _to_waves(input, count, axis)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        input, _, ctx.axis = inputs
        ctx.size = input.shape[ctx.axis]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return from_waves(grad, ctx.size, ctx.axis), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, count: int, axis: int) -> Any:
        return to_waves(input.movedim(in_dims[0], 0), count, axis), 0


class _FromWaves(Function):
    """Amplitudes to samples."""

    @staticmethod
    def forward(amplitudes: Tensor, size: int, axis: int) -> Tensor:
        output: Tensor = _from_waves(amplitudes, size, axis)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        amplitudes, _, ctx.axis = inputs
        ctx.count = amplitudes.shape[ctx.axis]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return to_waves(grad, ctx.count, ctx.axis), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, amplitudes: Tensor, size: int, axis: int) -> Any:
        return from_waves(amplitudes.movedim(in_dims[0], 0), size, axis), 0
