"""Amounts of work and memory: a number, and how it changes with the relaxed sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sizeless._calls import CONVOLUTIONS, Call, Strides, passes
from sizeless.functional.circular_operators import circular_flops
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd, SpectralPoolNd


@dataclass(frozen=True)
class Factor:
    """A size before rounding that an amount is proportional to.

    Attributes:
        module: The layer that has learned it.
        number: Which pass through a learned stride it is of, counted from 1; 0 for a kernel.
        input_size: The map that the stride divides.
    """

    module: FlexConvNd | DiffStrideNd
    number: int = 0
    input_size: tuple[int, ...] = ()

    def relaxed(self) -> Tensor:
        """The size of each axis, ``(ndim,)``, differentiable."""
        if isinstance(self.module, FlexConvNd):
            return self.module.window.relaxed_size()
        return self.module.relaxed_size(self.input_size)


Slopes = Mapping[Factor, tuple[float, ...]]


@dataclass(frozen=True)
class Amount:
    """A number at integer sizes, with the slopes of its relaxation.

    Attributes:
        value: The number.
        slopes: Its derivative by the logarithm of every axis of the relaxed sizes.
    """

    value: float
    slopes: Slopes

    def times(self, factor: float) -> Amount:
        """This amount, ``factor`` times."""
        slopes = {key: tuple(factor * s for s in axes) for key, axes in self.slopes.items()}
        return Amount(factor * self.value, slopes)

    def tensor(self, device: torch.device) -> Tensor:
        """The number as a tensor of shape ``()``, differentiable in the size parameters."""
        with torch.enable_grad():
            total = torch.tensor(self.value, dtype=torch.float32, device=device)
            for factor, slopes in self.slopes.items():
                relaxed = factor.relaxed()
                # Of value 0, with the gradient of the logarithm.
                change = relaxed / relaxed.detach() - 1
                total = total + (change * change.new_tensor(slopes)).sum().to(total)
        return total


def proportional(value: float, factors: Iterable[Factor]) -> Amount:
    """An amount that is proportional to every axis of all ``factors``."""
    return Amount(value, {factor: (float(value),) * factor.module.ndim for factor in factors})


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts."""
    value, slopes = 0.0, dict[Factor, tuple[float, ...]]()
    for amount in amounts:
        value += amount.value
        for key, axes in amount.slopes.items():
            before = slopes.get(key, (0.0,) * len(axes))
            slopes[key] = tuple(a + b for a, b in zip(before, axes, strict=True))
    return Amount(value, slopes)


def macs_of(call: Call) -> Amount:
    """Multiply-accumulates of a call."""
    module, batch = call.module, math.prod(call.output_shape)
    upstream = _factors(call.strides_of(call.output_shape))
    if isinstance(module, FlexConvNd):
        taps = module.in_channels // module.groups * math.prod(module.size)
        return proportional(batch * taps, [*upstream, Factor(module)])
    if isinstance(module, NIFFConvNd):
        return proportional(_filter_macs(module, call.output_shape), upstream)
    if isinstance(module, (DiffStrideNd, SpectralPoolNd)):
        # One matrix product per axis, in the order in which they are done.
        steps, shape = [], list(call.input_shape)
        for axis in range(2, len(shape)):
            length, shape[axis] = shape[axis], call.output_shape[axis]
            steps.append(float(math.prod(shape) * length))
        return _along_axes(call, steps, upstream, done_in_turn=True)
    if isinstance(module, CONVOLUTIONS):
        side, channels = call.output_shape, module.in_channels
        if module.transposed:
            side, channels = call.input_shape, module.out_channels
        taps = channels // module.groups * math.prod(module.kernel_size)
        return proportional(math.prod(side) * taps, upstream)
    return proportional(batch * call.input_shape[-1], upstream)


def bytes_of(call: Call) -> Amount:
    """Bytes of a call's input, weights and output."""
    read = call.input_bytes * math.prod(call.input_shape)
    written = call.output_bytes * math.prod(call.output_shape)
    return total(
        (
            proportional(read, _factors(call.strides_of(call.input_shape))),
            _weights(call),
            proportional(written, _output_factors(call)),
        )
    )


def _factors(strides: Strides) -> list[Factor]:
    return [Factor(pool, number, size) for (pool, number), size in strides.items()]


def _output_factors(call: Call) -> list[Factor]:
    module = call.module
    if isinstance(module, SpectralPoolNd) and module.stride is None:
        return []
    factors = _factors(call.strides_of(call.output_shape))
    return [*factors, _own(call)] if isinstance(module, DiffStrideNd) else factors


def _own(call: Call) -> Factor:
    """The size that a learned stride gives in this call."""
    pool = call.module
    if not isinstance(pool, DiffStrideNd):
        raise TypeError(f"{type(pool).__name__} has no learned stride")
    return Factor(pool, passes(pool, call.strides) + 1, call.input_shape[2:])


def _filter_macs(module: NIFFConvNd, shape: tuple[int, ...]) -> float:
    """Half the operations of transforms and products."""
    channels = module.in_channels, module.out_channels, module.groups
    return circular_flops(shape[0], *channels, shape[2:]) / 2


def _along_axes(
    call: Call, steps: list[float], upstream: list[Factor], *, done_in_turn: bool = False
) -> Amount:
    """A sum over axes that is proportional to the output size of each.

    ``done_in_turn``: what is done for an axis is done on maps that have become smaller along all
    axes before it.
    """
    amount = proportional(sum(steps), upstream)
    if not isinstance(call.module, DiffStrideNd):
        return amount
    axes = [sum(steps[axis:]) if done_in_turn else steps[axis] for axis in range(len(steps))]
    return Amount(amount.value, {**amount.slopes, _own(call): tuple(axes)})


def _weights(call: Call) -> Amount:
    """Bytes of what a call convolves or multiplies with."""
    module = call.module
    if isinstance(module, (DiffStrideNd, SpectralPoolNd)):
        pairs = zip(call.input_shape[2:], call.output_shape[2:], strict=True)
        matrices = [float(_precise(call.input_bytes) * m * n) for m, n in pairs]
        return _along_axes(call, matrices, _factors(call.strides_of(call.output_shape)))
    bias = _bytes(module.bias)
    if isinstance(module, FlexConvNd):
        pairs_of_channels = module.out_channels * module.in_channels // module.groups
        width = module.kernel.output.weight.element_size()
        kernel = width * pairs_of_channels * math.prod(module.size)
        return total((proportional(kernel, [Factor(module)]), proportional(bias, ())))
    if isinstance(module, NIFFConvNd):
        filters = module.out_channels * module.in_channels // module.groups
        *rows, last = call.input_shape[2:]
        points = math.prod(rows) * (last if module.boundary == "zeros" else 2 * (last // 2 + 1))
        width = _precise(module.real.output.weight.element_size())
        filter = proportional(
            width * filters * points, _factors(call.strides_of(call.output_shape))
        )
        return total((filter, proportional(bias, ())))
    return proportional(_bytes(module.weight) + bias, ())


def _bytes(parameter: Tensor | nn.Module | None) -> int:
    if not isinstance(parameter, Tensor):
        return 0
    return parameter.numel() * parameter.element_size()


def _precise(width: int) -> int:
    """Bytes of an element of what is computed in float32 or better."""
    return max(width, torch.float32.itemsize)
