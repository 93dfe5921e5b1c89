"""Circular convolution as one differentiable operation, given filters by their half spectrum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sizeless.functional.circular_kept import kept_maps, kept_spectra_of, may_keep
from sizeless.functional.circular_operators import (
    filter_gradient_operator,
    gradients_operator,
    kept_gradients_operator,
    kept_operator,
    output_operator,
    shape_of,
)
from sizeless.functional.circular_spectra import Shape
from sizeless.functional.operators import Function
from sizeless.functional.vmapped import in_channels, in_first, in_front


def convolve_spectra(
    input: Tensor,
    filter: Tensor,
    bias: Tensor | None = None,
    groups: int = 1,
    size: tuple[int, ...] | None = None,
) -> Tensor:
    """Convolve circularly, differentiable any number of times.

    With filters of single channels that learn, the spectra of the input are kept for the backward
    pass in place of the input, unless they are much larger, as those of half precision are.

    Args:
        input: ``(N, C, *map)``.
        filter: Real and imaginary parts of the filters' half spectra, ``(2, out, C / groups,
            *half)``, in float32 or float64.
        bias: ``(out,)`` in the dtype of ``filter``, or ``None``.
        groups: Channel groups.
        size: Size of the output, at most that of the map: its spectrum is then the lowest
            frequencies alone, with the values, not the amplitudes, of the map's own spectrum times
            the filters, which are given for these frequencies (see ``cropped_spectra``).

    Returns:
        Tensor ``(N, out, *size)`` of the dtype and in the memory layout of ``input``.
    """
    size = tuple(input.shape[2:]) if size is None else size
    if _learns(filter) and may_keep(input, filter, shape_of(input, filter, groups, size)):
        kept: Tensor = _Kept.apply(input, filter, bias, groups, size)[0]
        return kept
    result: Tensor = _Output.apply(input, filter, bias, groups, False, size)
    return result


def _learns(filter: Tensor) -> bool:
    """Whether a gradient of the filters may be asked for; in a transformation it is not known."""
    if not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return False
    return filter.requires_grad or torch._C._functorch.peek_interpreter_stack() is not None


class _Output(Function):
    """The convolution, or its adjoint."""

    @staticmethod
    def forward(
        input: Tensor,
        filter: Tensor,
        bias: Tensor | None,
        groups: int,
        adjoint: bool,
        size: tuple[int, ...],
    ) -> Tensor:
        result: Tensor = output_operator(input, filter, bias, groups, adjoint, size)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        input, filter, bias, ctx.groups, ctx.adjoint, _ = inputs
        ctx.size = tuple(input.shape[2:])
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, filter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, filter = ctx.saved_tensors
        needs_input, needs_filter, needs_bias = ctx.needs_input_grad[:3]
        to_input = to_filter = to_bias = None
        if needs_input and needs_filter and not ctx.adjoint:
            to_input, to_filter = _Gradients.apply(grad, input, filter, ctx.groups)
        else:
            if needs_input:
                to_input = _Output.apply(grad, filter, None, ctx.groups, not ctx.adjoint, ctx.size)
            if needs_filter:
                pair = (input, grad) if ctx.adjoint else (grad, input)
                to_filter = _FilterGradient.apply(*pair, ctx.groups)
        if needs_bias:
            to_bias = _bias_gradient(grad, ctx.bias_dtype)
        return to_input, to_filter, to_bias, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, filter: Tensor, *rest: Any) -> Any:
        size, (bias, groups, *others) = info.batch_size, rest
        if in_dims[1] is None and in_dims[2] is None:
            maps = in_first(input, in_dims[0], size)
            result = _Output.apply(maps, filter, bias, groups, *others)
            return result.unflatten(0, (size, -1)), 0
        inputs = in_channels(input, in_dims[0], size)
        filters = in_channels(filter, in_dims[1], size)
        biases = None if bias is None else in_front(bias, in_dims[2], size).flatten()
        result = _Output.apply(inputs, filters, biases, groups * size, *others)
        return result.unflatten(1, (size, -1)), 1


def _bias_gradient(grad: Tensor, dtype: torch.dtype) -> Tensor:
    return grad.sum((0, *range(2, grad.dim())), dtype=dtype)


class _Kept(Function):
    """The convolution, and the spectra of its input."""

    @staticmethod
    def forward(
        input: Tensor, filter: Tensor, bias: Tensor | None, groups: int, size: tuple[int, ...]
    ) -> Any:
        return kept_operator(input, filter, bias, groups, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        input, filter, bias, ctx.groups, size = inputs
        ctx.shape = shape_of(input, filter, ctx.groups, size)
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(output[1], filter)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, to_spectra: Tensor | None) -> Any:
        spectra, filter = ctx.saved_tensors
        needs_input, needs_filter, needs_bias = ctx.needs_input_grad[:3]
        to_input = to_filter = to_bias = None
        if grad is not None and needs_filter:
            used = filter if needs_input else None
            to_input, to_filter = _KeptGradients.apply(grad, spectra, used, ctx.shape)
        elif grad is not None and needs_input:
            to_input = _Output.apply(grad, filter, None, ctx.groups, True, ctx.shape.size)
        if grad is not None and needs_bias:
            to_bias = _bias_gradient(grad, ctx.bias_dtype)
        if not needs_input:
            to_input = None
        elif to_spectra is not None:
            maps = kept_maps(to_spectra, ctx.shape)
            to_input = maps if to_input is None else to_input + maps
        return to_input, to_filter, to_bias, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, filter: Tensor, *rest: Any) -> Any:
        size, (bias, groups, target) = info.batch_size, rest
        if in_dims[1] is None and in_dims[2] is None:
            maps = in_first(input, in_dims[0], size)
            results = _Kept.apply(maps, filter, bias, groups, target)
            return tuple(result.unflatten(0, (size, -1)) for result in results), (0, 0)
        inputs = in_channels(input, in_dims[0], size)
        filters = in_channels(filter, in_dims[1], size)
        biases = None if bias is None else in_front(bias, in_dims[2], size).flatten()
        results = _Kept.apply(inputs, filters, biases, groups * size, target)
        return tuple(result.unflatten(1, (size, -1)) for result in results), (1, 1)


class _KeptGradients(Function):
    """Gradients of the input, if the filter is given, and of the filter."""

    @staticmethod
    def forward(grad: Tensor, spectra: Tensor, filter: Tensor | None, shape: Shape) -> Any:
        return kept_gradients_operator(grad, spectra, filter, shape.groups, shape.size)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        grad, spectra, filter, ctx.shape = inputs
        ctx.save_for_backward(grad, spectra, filter)

    @staticmethod
    def backward(ctx: Any, outer_input: Tensor, outer_filter: Tensor) -> Any:
        grad, spectra, filter = ctx.saved_tensors
        shape = ctx.shape
        groups, size, target = shape.groups, shape.size, shape.target
        to_grad = to_spectra = to_filter = None
        if ctx.needs_input_grad[0]:
            input = kept_maps(spectra, shape).to(grad.dtype)
            to_grad = _Output.apply(input, outer_filter, None, groups, False, target)
            if filter is not None:
                more = _Output.apply(outer_input, filter, None, groups, False, target)
                to_grad = to_grad + more
        if ctx.needs_input_grad[1]:
            to_input = _Output.apply(grad, outer_filter, None, groups, True, size)
            to_spectra = kept_spectra_of(to_input, shape)
        if ctx.needs_input_grad[2]:
            to_filter = _FilterGradient.apply(grad, outer_input, groups)
        return to_grad, to_spectra, to_filter, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, grad: Tensor, spectra: Tensor, filter: Any, shape: Shape
    ) -> Any:
        size = info.batch_size
        grads, kept = in_channels(grad, in_dims[0], size), in_channels(spectra, in_dims[1], size)
        filters = None if filter is None else in_channels(filter, in_dims[2], size)
        wider = shape._replace(groups=shape.groups * size)
        to_input, to_filter = _KeptGradients.apply(grads, kept, filters, wider)
        if filter is None:
            return (to_input, to_filter.unflatten(1, (size, -1))), (None, 1)
        return tuple(result.unflatten(1, (size, -1)) for result in (to_input, to_filter)), (1, 1)


class _Gradients(Function):
    """Gradients of input and filter at once, which share a transform."""

    @staticmethod
    def forward(grad: Tensor, input: Tensor, filter: Tensor, groups: int) -> Any:
        return gradients_operator(grad, input, filter, groups)

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
            target = tuple(grad.shape[2:])
            to_grad = _Output.apply(outer_input, filter, None, groups, False, target)
            to_grad = to_grad + _Output.apply(input, outer_filter, None, groups, False, target)
        if ctx.needs_input_grad[1]:
            size = tuple(input.shape[2:])
            to_input = _Output.apply(grad, outer_filter, None, groups, True, size)
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
        result: Tensor = filter_gradient_operator(grad, input, groups)
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
            to_grad = _Output.apply(input, outer, None, ctx.groups, False, tuple(grad.shape[2:]))
        if ctx.needs_input_grad[1]:
            to_input = _Output.apply(grad, outer, None, ctx.groups, True, tuple(input.shape[2:]))
        return to_grad, to_input, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad: Tensor, input: Tensor, groups: int) -> Any:
        size = info.batch_size
        grads, inputs = in_channels(grad, in_dims[0], size), in_channels(input, in_dims[1], size)
        result = _FilterGradient.apply(grads, inputs, groups * size)
        return result.unflatten(1, (size, -1)), 1
