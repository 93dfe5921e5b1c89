"""Zero-padded cross-correlation as one differentiable operation, with a plan for each product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sizeless.functional import direct, spectral
from sizeless.functional.blocks import cut
from sizeless.functional.fft import spectral_dtype
from sizeless.functional.geometry import Geometry, geometry_of
from sizeless.functional.measured import Run, tuned_plan
from sizeless.functional.operators import Function, operator, somebody_looks
from sizeless.functional.plans import Plan, Step
from sizeless.functional.vmapped import in_channels, in_first

Numbers = list[int]
Amount = tuple[int, ...]
Layout = tuple[Amount, Amount, Amount, Amount, int, str]
"""Stride, padding before and after, dilation, groups and method, as operators take them."""

LAYOUT = "int[] stride, int[] before, int[] after, int[] dilation, int groups, str method"


def correlate(input: Tensor, weight: Tensor, geometry: Geometry, method: str) -> Tensor:
    """Return the cross-correlation ``(N, out, *output_size)``, differentiable any number of times.

    Args:
        input: ``(N, C, *size)``.
        weight: ``(out, C / groups, *kernel)``.
        geometry: Where the taps fall.
        method: ``"auto"``, ``"direct"``, ``"channels_last"`` or ``"fft"``, for all three products.
    """
    if torch.is_grad_enabled() or somebody_looks((input, weight)):
        result: Tensor = _Output.apply(input, weight, layout_of(geometry, method))
        return result
    return _one_output(input, weight, geometry, _plan(geometry, input, method).output)


def layout_of(geometry: Geometry, method: str) -> Layout:
    """Return what an operator needs to know beside its tensors."""
    return (
        geometry.stride,
        tuple(before for before, _ in geometry.amounts),
        tuple(after for _, after in geometry.amounts),
        geometry.dilation,
        geometry.groups,
        method,
    )


def geometry_from(input: Any, weight: Any, layout: Layout) -> Geometry:
    """Return the geometry of tensors, or shapes, under an operator's arguments."""
    stride, before, after, dilation, groups, _ = layout
    amounts = tuple(zip(before, after, strict=True))
    return geometry_of(input, weight, tuple(stride), tuple(dilation), amounts, groups)


def _plan(geometry: Geometry, like: Tensor, method: str) -> Plan:
    return tuned_plan(geometry, like, method, lambda: _runner(geometry, like))


def _runner(geometry: Geometry, like: Tensor) -> Run:
    """Return what computes products of tensors of a geometry."""
    weight = like.new_ones(geometry.out_channels, geometry.group_inputs, *geometry.kernel)
    input = like.new_ones(geometry.batch, geometry.in_channels, *geometry.size)
    grad = like.new_ones(geometry.batch, geometry.out_channels, *geometry.output_size)

    def run(products: tuple[str, ...], step: Step) -> object:
        if len(products) == 2:
            return _by_fft(grad, input, weight, geometry, step)
        if products == ("output",):
            return _one_output(input, weight, geometry, step)
        if products == ("input_gradient",):
            return _one_input_gradient(grad, weight, geometry, step)
        return _one_weight_gradient(grad, input, geometry, step)

    return run


def run_output(input: Tensor, weight: Tensor, *layout: Any) -> Tensor:
    """Compute the output, without autograd."""
    geometry = geometry_from(input, weight, layout)
    step = _plan(geometry, input, layout[-1]).output
    return _one_output(input, weight, geometry, step)


def _one_output(input: Tensor, weight: Tensor, geometry: Geometry, step: Step) -> Tensor:
    """Compute the output as ``step`` says."""
    if step.method == "fft":
        dtype = spectral_dtype(input)
        blocks = cut(geometry, step.lengths)
        return spectral.output(input.to(dtype), weight.to(dtype), geometry, blocks).to(input.dtype)
    last = step.method == "channels_last"
    return direct.output(input, weight, geometry, channels_last=last)


def run_gradients(
    grad: Tensor, input: Tensor, weight: Tensor, *layout: Any
) -> tuple[Tensor, Tensor]:
    """Compute both gradients, without autograd."""
    geometry = geometry_from(input, weight, layout)
    plan = _plan(geometry, input, layout[-1])
    first, second = plan.input_gradient, plan.weight_gradient
    if first == second and first.method == "fft":
        to_input, to_weight = _by_fft(grad, input, weight, geometry, first)
        return to_input, to_weight
    if first.method == second.method == "channels_last":
        grad = direct.turned(grad)
    return (
        _one_input_gradient(grad, weight, geometry, first),
        _one_weight_gradient(grad, input, geometry, second),
    )


def _by_fft(
    grad: Tensor, input: Tensor | None, weight: Tensor | None, geometry: Geometry, step: Step
) -> Any:
    dtype = spectral_dtype(grad)
    wide = [None if part is None else part.to(dtype) for part in (input, weight)]
    blocks = cut(geometry, step.lengths)
    results = spectral.gradients(grad.to(dtype), wide[0], wide[1], geometry, blocks)
    return [None if result is None else result.to(grad.dtype) for result in results]


def _one_input_gradient(grad: Tensor, weight: Tensor, geometry: Geometry, step: Step) -> Tensor:
    if step.method == "fft":
        result: Tensor = _by_fft(grad, None, weight, geometry, step)[0]
        return result
    last = step.method == "channels_last"
    return direct.input_gradient(grad, weight, geometry, channels_last=last)


def _one_weight_gradient(grad: Tensor, input: Tensor, geometry: Geometry, step: Step) -> Tensor:
    if step.method == "fft":
        result: Tensor = _by_fft(grad, input, None, geometry, step)[1]
        return result
    last = step.method == "channels_last"
    return direct.weight_gradient(grad, input, geometry, channels_last=last)


def _run_input_gradient(grad: Tensor, weight: Tensor, size: Numbers, *layout: Any) -> Tensor:
    shape = (grad.shape[0], weight.shape[1] * layout[4], *size)
    geometry = geometry_from(shape, weight, layout)
    step = _plan(geometry, grad, layout[-1]).input_gradient
    return _one_input_gradient(grad, weight, geometry, step)


def run_weight_gradient(grad: Tensor, input: Tensor, kernel: Numbers, *layout: Any) -> Tensor:
    """Compute the gradient of kernels of size ``kernel``, without autograd."""
    shape = (grad.shape[1], input.shape[1] // layout[4], *kernel)
    geometry = geometry_from(input, shape, layout)
    step = _plan(geometry, grad, layout[-1]).weight_gradient
    return _one_weight_gradient(grad, input, geometry, step)


def _shape_of_output(input: Tensor, weight: Tensor, *layout: Any) -> Tensor:
    geometry = geometry_from(input, weight, layout)
    return input.new_empty(input.shape[0], weight.shape[0], *geometry.output_size)


def _shape_of_gradients(
    grad: Tensor, input: Tensor, weight: Tensor, *_layout: Any
) -> tuple[Tensor, Tensor]:
    return grad.new_empty(input.shape), grad.new_empty(weight.shape)


def _shape_of_input_gradient(grad: Tensor, weight: Tensor, size: Numbers, *layout: Any) -> Tensor:
    return grad.new_empty(grad.shape[0], weight.shape[1] * layout[4], *size)


def _shape_of_weight_gradient(grad: Tensor, input: Tensor, kernel: Numbers, *layout: Any) -> Tensor:
    return grad.new_empty(grad.shape[1], input.shape[1] // layout[4], *kernel)


def flops_of_output(input: Numbers, weight: Numbers, *layout: Any) -> int:
    """Operations of the sum that a convolution computes, by whatever method, as torch counts."""
    return 2 * geometry_from(tuple(input), tuple(weight), layout).macs


def _flops_of_gradients(_grad: Numbers, input: Numbers, weight: Numbers, *layout: Any) -> int:
    return 2 * flops_of_output(input, weight, *layout)


def _flops_of_input_gradient(grad: Numbers, weight: Numbers, size: Numbers, *layout: Any) -> int:
    return flops_of_output([grad[0], weight[1] * layout[4], *size], weight, *layout)


def _flops_of_weight_gradient(grad: Numbers, input: Numbers, kernel: Numbers, *layout: Any) -> int:
    return flops_of_output(input, [grad[1], input[1] // layout[4], *kernel], *layout)


_output = operator(
    f"correlate(Tensor input, Tensor weight, {LAYOUT}) -> Tensor",
    run_output,
    _shape_of_output,
    flops_of_output,
    any_layout=True,
)
_gradients = operator(
    f"correlate_gradients(Tensor grad, Tensor input, Tensor weight, {LAYOUT}) -> (Tensor, Tensor)",
    run_gradients,
    _shape_of_gradients,
    _flops_of_gradients,
    any_layout=True,
)
_input_gradient = operator(
    f"correlate_input_gradient(Tensor grad, Tensor weight, int[] size, {LAYOUT}) -> Tensor",
    _run_input_gradient,
    _shape_of_input_gradient,
    _flops_of_input_gradient,
    any_layout=True,
)
_weight_gradient = operator(
    f"correlate_weight_gradient(Tensor grad, Tensor input, int[] kernel, {LAYOUT}) -> Tensor",
    run_weight_gradient,
    _shape_of_weight_gradient,
    _flops_of_weight_gradient,
    any_layout=True,
)


class _Output(Function):
    """Output from input and weight."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, layout: Layout) -> Tensor:
        result: Tensor = _output(input, weight, *layout)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        input, weight, ctx.layout = inputs
        ctx.save_for_backward(input, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, _ = ctx.needs_input_grad
        if needs_input and needs_weight:
            return *_Gradients.apply(grad, input, weight, ctx.layout), None
        to_input = to_weight = None
        if needs_input:
            to_input = _InputGradient.apply(grad, weight, list(input.shape[2:]), ctx.layout)
        if needs_weight:
            to_weight = _WeightGradient.apply(grad, input, list(weight.shape[2:]), ctx.layout)
        return to_input, to_weight, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, weight: Tensor, layout: Layout) -> Any:
        size = info.batch_size
        if in_dims[1] is None:
            output = _Output.apply(in_first(input, in_dims[0], size), weight, layout)
            return output.unflatten(0, (size, -1)), 0
        inputs, weights = in_channels(input, in_dims[0], size), in_first(weight, in_dims[1], size)
        output = _Output.apply(inputs, weights, _grouped(layout, size))
        return output.unflatten(1, (size, -1)), 1


class _InputGradient(Function):
    """Gradient of the input, from that of the output and the weight."""

    @staticmethod
    def forward(grad: Tensor, weight: Tensor, size: Numbers, layout: Layout) -> Tensor:
        result: Tensor = _input_gradient(grad, weight, size, *layout)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        grad, weight, _, ctx.layout = inputs
        ctx.save_for_backward(grad, weight)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        grad, weight = ctx.saved_tensors
        to_grad = to_weight = None
        if ctx.needs_input_grad[0]:
            to_grad = _Output.apply(outer, weight, ctx.layout)
        if ctx.needs_input_grad[1]:
            kernel = list(weight.shape[2:])
            to_weight = _WeightGradient.apply(grad, outer, kernel, ctx.layout)
        return to_grad, to_weight, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad: Tensor, weight: Tensor, *rest: Any) -> Any:
        size, (extent, layout) = info.batch_size, rest
        if in_dims[1] is None:
            result = _InputGradient.apply(in_first(grad, in_dims[0], size), weight, extent, layout)
            return result.unflatten(0, (size, -1)), 0
        grads, weights = in_channels(grad, in_dims[0], size), in_first(weight, in_dims[1], size)
        result = _InputGradient.apply(grads, weights, extent, _grouped(layout, size))
        return result.unflatten(1, (size, -1)), 1


class _WeightGradient(Function):
    """Gradient of the weight, from that of the output and the input."""

    @staticmethod
    def forward(grad: Tensor, input: Tensor, kernel: Numbers, layout: Layout) -> Tensor:
        result: Tensor = _weight_gradient(grad, input, kernel, *layout)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        grad, input, _, ctx.layout = inputs
        ctx.save_for_backward(grad, input)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        grad, input = ctx.saved_tensors
        to_grad = to_input = None
        if ctx.needs_input_grad[0]:
            to_grad = _Output.apply(input, outer, ctx.layout)
        if ctx.needs_input_grad[1]:
            to_input = _InputGradient.apply(grad, outer, list(input.shape[2:]), ctx.layout)
        return to_grad, to_input, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad: Tensor, input: Tensor, *rest: Any) -> Any:
        size, (kernel, layout) = info.batch_size, rest
        grads, inputs = (
            in_channels(value, dim, size)
            for value, dim in ((grad, in_dims[0]), (input, in_dims[1]))
        )
        result = _WeightGradient.apply(grads, inputs, kernel, _grouped(layout, size))
        return result.unflatten(0, (size, -1)), 0


class _Gradients(Function):
    """Both gradients at once, which may share transforms."""

    @staticmethod
    def forward(grad: Tensor, input: Tensor, weight: Tensor, layout: Layout) -> Any:
        return _gradients(grad, input, weight, *layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        grad, input, weight, ctx.layout = inputs
        ctx.save_for_backward(grad, input, weight)

    @staticmethod
    def backward(ctx: Any, outer_input: Tensor, outer_weight: Tensor) -> Any:
        grad, input, weight = ctx.saved_tensors
        layout = ctx.layout
        to_grad = to_input = to_weight = None
        if ctx.needs_input_grad[0]:
            to_grad = _Output.apply(outer_input, weight, layout)
            to_grad = to_grad + _Output.apply(input, outer_weight, layout)
        if ctx.needs_input_grad[1]:
            to_input = _InputGradient.apply(grad, outer_weight, list(input.shape[2:]), layout)
        if ctx.needs_input_grad[2]:
            kernel = list(weight.shape[2:])
            to_weight = _WeightGradient.apply(grad, outer_input, kernel, layout)
        return to_grad, to_input, to_weight, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        grad, input, weight, layout = arguments
        size = info.batch_size
        pairs = ((grad, in_dims[0]), (input, in_dims[1]))
        grads, inputs = (in_channels(value, dim, size) for value, dim in pairs)
        weights = in_first(weight, in_dims[2], size)
        results = _Gradients.apply(grads, inputs, weights, _grouped(layout, size))
        return (results[0].unflatten(1, (size, -1)), results[1].unflatten(0, (size, -1))), (1, 0)


def _grouped(layout: Layout, size: int) -> Layout:
    return (*layout[:4], layout[4] * size, layout[5])
