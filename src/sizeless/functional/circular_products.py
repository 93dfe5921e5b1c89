"""Circular convolution as one differentiable operation, given filters by their half spectrum."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from sizeless.functional.circular_spectra import (
    Shape,
    blank_filter,
    blank_map,
    gradients,
    output,
)
from sizeless.functional.fft import no_autocast, spectral_dtype, transform_flops
from sizeless.functional.operators import Function, operator
from sizeless.functional.vmapped import in_channels, in_first, in_front

Numbers = list[int]


def convolve_spectra(
    input: Tensor, filter: Tensor, bias: Tensor | None = None, groups: int = 1
) -> Tensor:
    """Convolve circularly, differentiable any number of times.

    Args:
        input: ``(N, C, *map)``.
        filter: Real and imaginary parts of the filters' half spectra, ``(2, out, C / groups,
            *half)``, in float32 or float64.
        bias: ``(out,)`` in the dtype of ``filter``, or ``None``.
        groups: Channel groups.

    Returns:
        Tensor ``(N, out, *map)`` of the dtype and in the memory layout of ``input``.
    """
    result: Tensor = _Output.apply(input, filter, bias, groups, False)
    return result


def circular_flops(
    batch: int, in_channels: int, out_channels: int, groups: int, size: Numbers | tuple[int, ...]
) -> int:
    r"""Operations of one product: real transforms of all channels, and complex multiply-adds.

    $$
    N \Big( (C_{in} + C_{out})\, \tfrac52 n \log_2 n
    + 8 \cdot \tfrac n2 \cdot C_{out}\, C_{in} / G \Big)
    $$
    """
    transforms = (in_channels + out_channels) * transform_flops(size)
    products = 4 * math.prod(size) * out_channels * in_channels // groups
    return batch * (transforms + products)


def _shape(input: Tensor, filter: Tensor, groups: int) -> Shape:
    batch, _, *size = input.shape
    out_channels, inputs = filter.shape[1:3]
    return Shape(batch, groups, inputs, out_channels // groups, tuple(size))


def _shape_of(grad: Tensor, input: Tensor, groups: int) -> Shape:
    batch, channels, *size = input.shape
    return Shape(batch, groups, channels // groups, grad.shape[1] // groups, tuple(size))


def _run_output(
    input: Tensor, filter: Tensor, bias: Tensor | None, groups: int, adjoint: bool
) -> Tensor:
    with no_autocast(input.device.type):
        return output(input, filter, bias, _shape(input, filter, groups), adjoint=adjoint)


def _run_gradients(
    grad: Tensor, input: Tensor, filter: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    with no_autocast(input.device.type):
        shape = _shape(input, filter, groups)
        to_input, to_filter = gradients(grad, input, filter, shape, filter.dtype)
    if to_input is None:
        raise RuntimeError("the gradient of the input needs the filter")
    return to_input, to_filter


def _run_filter_gradient(grad: Tensor, input: Tensor, groups: int) -> Tensor:
    with no_autocast(input.device.type):
        shape = _shape_of(grad, input, groups)
        return gradients(grad, input, None, shape, spectral_dtype(input))[1]


def _shape_of_output(
    input: Tensor, filter: Tensor, _bias: Tensor | None, groups: int, adjoint: bool
) -> Tensor:
    return blank_map(input, filter.shape[2] * groups if adjoint else filter.shape[1])


def _shape_of_gradients(
    _grad: Tensor, input: Tensor, filter: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    shape = _shape(input, filter, groups)
    return blank_map(input, input.shape[1]), blank_filter(input, shape, filter.dtype)


def _shape_of_filter_gradient(grad: Tensor, input: Tensor, groups: int) -> Tensor:
    return blank_filter(input, _shape_of(grad, input, groups), spectral_dtype(input))


def _flops_of_output(
    input: Numbers, filter: Numbers, _bias: Numbers | None, groups: int, _adjoint: bool
) -> int:
    return circular_flops(input[0], filter[2] * groups, filter[1], groups, input[2:])


def _flops_of_filter_gradient(grad: Numbers, input: Numbers, groups: int) -> int:
    return circular_flops(input[0], input[1], grad[1], groups, input[2:])


def _flops_of_gradients(grad: Numbers, input: Numbers, _filter: Numbers, groups: int) -> int:
    return 2 * _flops_of_filter_gradient(grad, input, groups)


_output = operator(
    "circular(Tensor input, Tensor filter, Tensor? bias, int groups, bool adjoint) -> Tensor",
    _run_output,
    _shape_of_output,
    _flops_of_output,
)
_gradients = operator(
    "circular_gradients(Tensor grad, Tensor input, Tensor filter, int groups) -> (Tensor, Tensor)",
    _run_gradients,
    _shape_of_gradients,
    _flops_of_gradients,
)
_filter_gradient = operator(
    "circular_filter_gradient(Tensor grad, Tensor input, int groups) -> Tensor",
    _run_filter_gradient,
    _shape_of_filter_gradient,
    _flops_of_filter_gradient,
)


class _Output(Function):
    """The convolution, or its adjoint."""

    @staticmethod
    def forward(
        input: Tensor, filter: Tensor, bias: Tensor | None, groups: int, adjoint: bool
    ) -> Tensor:
        result: Tensor = _output(input, filter, bias, groups, adjoint)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        input, filter, bias, ctx.groups, ctx.adjoint = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, filter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, filter = ctx.saved_tensors
        needs_input, needs_filter, needs_bias, _, _ = ctx.needs_input_grad
        to_input = to_filter = to_bias = None
        if needs_input and needs_filter and not ctx.adjoint:
            to_input, to_filter = _Gradients.apply(grad, input, filter, ctx.groups)
        else:
            if needs_input:
                to_input = _Output.apply(grad, filter, None, ctx.groups, not ctx.adjoint)
            if needs_filter:
                pair = (input, grad) if ctx.adjoint else (grad, input)
                to_filter = _FilterGradient.apply(*pair, ctx.groups)
        if needs_bias:
            to_bias = grad.sum((0, *range(2, grad.dim())), dtype=ctx.bias_dtype)
        return to_input, to_filter, to_bias, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, filter: Tensor, *rest: Any) -> Any:
        size, (bias, groups, adjoint) = info.batch_size, rest
        if in_dims[1] is None and in_dims[2] is None:
            maps = in_first(input, in_dims[0], size)
            result = _Output.apply(maps, filter, bias, groups, adjoint)
            return result.unflatten(0, (size, -1)), 0
        inputs = in_channels(input, in_dims[0], size)
        filters = in_channels(filter, in_dims[1], size)
        biases = None if bias is None else in_front(bias, in_dims[2], size).flatten()
        result = _Output.apply(inputs, filters, biases, groups * size, adjoint)
        return result.unflatten(1, (size, -1)), 1


class _Gradients(Function):
    """Gradients of input and filter at once, which share a transform."""

    @staticmethod
    def forward(grad: Tensor, input: Tensor, filter: Tensor, groups: int) -> Any:
        return _gradients(grad, input, filter, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        grad, input, filter, ctx.groups = inputs
        ctx.save_for_backward(grad, input, filter)

    @staticmethod
    def backward(ctx: Any, outer_input: Tensor, outer_filter: Tensor) -> Any:
        grad, input, filter = ctx.saved_tensors
        groups = ctx.groups
        to_grad = to_input = to_filter = None
        if ctx.needs_input_grad[0]:
            to_grad = _Output.apply(outer_input, filter, None, groups, False)
            to_grad = to_grad + _Output.apply(input, outer_filter, None, groups, False)
        if ctx.needs_input_grad[1]:
            to_input = _Output.apply(grad, outer_filter, None, groups, True)
        if ctx.needs_input_grad[2]:
            to_filter = _FilterGradient.apply(grad, outer_input, groups)
        return to_grad, to_input, to_filter, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        grad, input, filter, groups = arguments
        size = info.batch_size
        grads, inputs = in_channels(grad, in_dims[0], size), in_channels(input, in_dims[1], size)
        filters = in_channels(filter, in_dims[2], size)
        results = _Gradients.apply(grads, inputs, filters, groups * size)
        return tuple(result.unflatten(1, (size, -1)) for result in results), (1, 1)


class _FilterGradient(Function):
    """Gradient of the filter."""

    @staticmethod
    def forward(grad: Tensor, input: Tensor, groups: int) -> Tensor:
        result: Tensor = _filter_gradient(grad, input, groups)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        grad, input, ctx.groups = inputs
        ctx.save_for_backward(grad, input)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        grad, input = ctx.saved_tensors
        to_grad = to_input = None
        if ctx.needs_input_grad[0]:
            to_grad = _Output.apply(input, outer, None, ctx.groups, False)
        if ctx.needs_input_grad[1]:
            to_input = _Output.apply(grad, outer, None, ctx.groups, True)
        return to_grad, to_input, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad: Tensor, input: Tensor, groups: int) -> Any:
        size = info.batch_size
        grads, inputs = in_channels(grad, in_dims[0], size), in_channels(input, in_dims[1], size)
        result = _FilterGradient.apply(grads, inputs, groups * size)
        return result.unflatten(1, (size, -1)), 1
