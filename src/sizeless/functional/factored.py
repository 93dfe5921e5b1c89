r"""Convolution with kernels that are sums of a few shared functions of space.

Kernels $w_{oi} = \sum_h a_{oih}\, \phi_h$ have spectra $\hat w_{oi} = \sum_h a_{oih}\,
\hat\phi_h$: a few transforms, and a matrix product at each frequency, in place of one transform
for every pair of channels. Kernels and their spectra are never held as a whole: frequencies are
taken in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sizeless.functional.blocks import (
    Blocks,
    add_input_blocks,
    cut,
    input_blocks,
    join_outputs,
    output_blocks,
)
from sizeless.functional.correlation import (
    LAYOUT,
    Layout,
    Numbers,
    correlate,
    flops_of_output,
    geometry_from,
    layout_of,
    run_gradients,
    run_output,
    run_weight_gradient,
)
from sizeless.functional.fft import spectral_dtype
from sizeless.functional.geometry import Geometry
from sizeless.functional.operators import Function, operator
from sizeless.functional.partial_transform import (
    multiplicities,
    spectra_of_taps,
    taps_of_spectra,
)
from sizeless.functional.plans import plan_for, stays_factored
from sizeless.functional.spectral import WORKSPACE, from_rows, rows_first


def render(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Return the kernels ``(out, in / groups, *kernel)``."""
    return torch.tensordot(coefficients, basis, dims=1)


def correlate_factored(
    input: Tensor, coefficients: Tensor, basis: Tensor, geometry: Geometry, method: str = "auto"
) -> Tensor:
    """Correlate with the kernels of ``coefficients (out, in, H)`` and ``basis (H, *kernel)``.

    Kernels are rendered where that costs less. The factors may be more precise than the input.
    """
    result: Tensor = _Output.apply(input, coefficients, basis, layout_of(geometry, method))
    return result


class _Setting(NamedTuple):
    """What both operators make of their arguments."""

    geometry: Geometry
    blocks: Blocks | None
    """How maps are cut, or ``None`` where kernels are rendered."""


def _setting(input: Tensor, coefficients: Tensor, basis: Tensor, layout: Any) -> _Setting:
    shape = (*coefficients.shape[:2], *basis.shape[1:])
    geometry = geometry_from(input, shape, layout)
    device_type, method = input.device.type, layout[-1]
    if not stays_factored(geometry, basis.shape[0], device_type, method):
        return _Setting(geometry, None)
    lengths = plan_for(geometry, device_type, method).output.lengths
    return _Setting(geometry, cut(geometry, lengths))


def _spectra(basis: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Spectra of the basis functions, ``(frequencies, H)``."""
    spectra = spectra_of_taps(
        basis.unsqueeze(1), blocks.lengths, geometry.dilation, conjugate=False
    )
    return spectra.squeeze(-1)


def _chunks(geometry: Geometry, blocks: Blocks) -> Iterator[slice]:
    """Ranges of frequencies for which the kernels' spectra fit in the workspace."""
    pairs = geometry.out_channels * geometry.group_inputs
    step = max(WORKSPACE // (8 * pairs), 1)
    for start in range(0, blocks.frequencies, step):
        yield slice(start, min(start + step, blocks.frequencies))


def _run_output(input: Tensor, coefficients: Tensor, basis: Tensor, *layout: Any) -> Tensor:
    geometry, blocks = _setting(input, coefficients, basis, layout)
    if blocks is None:
        rendered: Tensor = run_output(input, _rendered(input, coefficients, basis), *layout)
        return rendered
    dtype = spectral_dtype(input)
    parts = [part.to(dtype) for part in (input, coefficients, basis)]
    signal = rows_first(input_blocks(parts[0], geometry, blocks), geometry, blocks)
    mixing = _mixing(parts[1])
    filters = _spectra(parts[2], geometry, blocks).conj_physical_()
    product = signal.new_empty(*signal.shape[:2], geometry.group_outputs)
    for chunk in _chunks(geometry, blocks):
        rows = slice(chunk.start * geometry.groups, chunk.stop * geometry.groups)
        kernels = _kernels(filters[chunk], mixing, geometry)
        torch.bmm(signal[rows], kernels.mT, out=product[rows])
    values = from_rows(product, geometry, blocks)
    return join_outputs(values, geometry, blocks).to(input.dtype).contiguous()


def _rendered(input: Tensor, coefficients: Tensor, basis: Tensor) -> Tensor:
    return render(coefficients, basis).to(input.dtype)


def _mixing(coefficients: Tensor) -> Tensor:
    """Coefficients as a complex matrix ``(H, out * in)``."""
    return coefficients.flatten(0, 1).t().to(coefficients.dtype.to_complex()).contiguous()


def _kernels(spectra: Tensor, mixing: Tensor, geometry: Geometry) -> Tensor:
    """Spectra of the kernels at some frequencies, ``(frequencies * groups, out, in)``."""
    return (spectra @ mixing).view(-1, geometry.group_outputs, geometry.group_inputs)


def _run_gradients(
    grad: Tensor,
    input: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    needs_input: bool,
    *layout: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    geometry, blocks = _setting(input, coefficients, basis, layout)
    if blocks is None:
        return _rendered_gradients(grad, input, coefficients, basis, needs_input, layout)
    dtype = spectral_dtype(input)
    parts = [part.to(dtype) for part in (input, coefficients, basis)]
    values = output_blocks(grad.to(parts[0].dtype), geometry, blocks)
    answer = rows_first(values, geometry, blocks)
    signal = rows_first(input_blocks(parts[0], geometry, blocks), geometry, blocks)
    mixing, filters = _mixing(parts[1]), _spectra(parts[2], geometry, blocks)
    weighted = filters.conj() * multiplicities(blocks.lengths, filters)
    to_mixing, to_filters = torch.zeros_like(mixing.T), torch.empty_like(filters)
    for chunk in _chunks(geometry, blocks):
        rows = slice(chunk.start * geometry.groups, chunk.stop * geometry.groups)
        kernels = _kernels(filters[chunk], mixing, geometry)
        here, there = answer[rows], signal[rows]
        # The input's spectrum is not needed again: its place takes the gradient's.
        to_kernels = torch.bmm(here.conj_physical().mT, there).view(len(filters[chunk]), -1)
        if needs_input:
            torch.bmm(here, kernels, out=there)
        to_mixing.addmm_(to_kernels.T, weighted[chunk])
        torch.mm(to_kernels, mixing.T, out=to_filters[chunk])
    to_input = parts[0].new_empty(0)
    if needs_input:
        to_input = add_input_blocks(from_rows(signal, geometry, blocks), geometry, blocks)
    taps = taps_of_spectra(
        to_filters.unsqueeze(-1), geometry.kernel, blocks.lengths, geometry.dilation
    )
    return (
        to_input.to(input.dtype).contiguous(),
        to_mixing.real.reshape(coefficients.shape).to(coefficients.dtype).contiguous(),
        taps.squeeze(1).to(basis.dtype).contiguous(),
    )


def _rendered_gradients(
    grad: Tensor,
    input: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    needs_input: bool,
    layout: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    weight = _rendered(input, coefficients, basis)
    if needs_input:
        to_input, to_weight = run_gradients(grad, input, weight, *layout)
    else:
        to_input = input.new_empty(0)
        to_weight = run_weight_gradient(grad, input, list(weight.shape[2:]), *layout)
    to_weight = to_weight.to(coefficients.dtype).flatten(2)
    to_basis = coefficients.flatten(0, 1).t() @ to_weight.flatten(0, 1)
    return to_input, to_weight @ basis.flatten(1).t(), to_basis.view(basis.shape)


def _shape_of_output(input: Tensor, coefficients: Tensor, basis: Tensor, *layout: Any) -> Tensor:
    shape = (*coefficients.shape[:2], *basis.shape[1:])
    size = geometry_from(input, shape, layout).output_size
    return input.new_empty(input.shape[0], coefficients.shape[0], *size)


def _shape_of_gradients(
    _grad: Tensor,
    input: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    needs_input: bool,
    *_layout: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    to_input = input.new_empty(input.shape if needs_input else (0,))
    return to_input, coefficients.new_empty(coefficients.shape), basis.new_empty(basis.shape)


def _flops_of_output(input: Numbers, coefficients: Numbers, basis: Numbers, *layout: Any) -> int:
    kernels = [*coefficients[:2], *basis[1:]]
    rendering = 2 * math.prod(coefficients) * math.prod(basis[1:])
    return flops_of_output(input, kernels, *layout) + rendering


def _flops_of_gradients(
    _grad: Numbers,
    input: Numbers,
    coefficients: Numbers,
    basis: Numbers,
    needs_input: bool,
    *layout: Any,
) -> int:
    kernels = [*coefficients[:2], *basis[1:]]
    rendering = 2 * math.prod(coefficients) * math.prod(basis[1:])
    return (1 + needs_input) * flops_of_output(input, kernels, *layout) + 2 * rendering


_output = operator(
    f"correlate_factored(Tensor input, Tensor coefficients, Tensor basis, {LAYOUT}) -> Tensor",
    _run_output,
    _shape_of_output,
    _flops_of_output,
    any_layout=True,
)
_gradients = operator(
    "correlate_factored_gradients(Tensor grad, Tensor input, Tensor coefficients, Tensor basis, "
    f"bool needs_input, {LAYOUT}) -> (Tensor, Tensor, Tensor)",
    _run_gradients,
    _shape_of_gradients,
    _flops_of_gradients,
    any_layout=True,
)


class _Output(Function):
    """Output from input, coefficients and basis."""

    @staticmethod
    def forward(input: Tensor, coefficients: Tensor, basis: Tensor, layout: Layout) -> Tensor:
        result: Tensor = _output(input, coefficients, basis, *layout)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        tensors, ctx.layout = inputs[:-1], inputs[-1]
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        needs_input = ctx.needs_input_grad[0]
        gradients = _Gradients.apply(grad, *ctx.saved_tensors, needs_input, ctx.layout)
        return *(gradients if needs_input else (None, *gradients)), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        tensors, layout = arguments[:-1], arguments[-1]

        def plainly(input: Tensor, coefficients: Tensor, basis: Tensor) -> Tensor:
            return _plainly(input, coefficients, basis, layout)

        return torch.func.vmap(plainly, in_dims[:-1])(*tensors), 0


class _Gradients(Function):
    """All gradients, or all but the input's; theirs are those of the sums with rendered kernels."""

    @staticmethod
    def forward(
        grad: Tensor,
        input: Tensor,
        coefficients: Tensor,
        basis: Tensor,
        needs_input: bool,
        layout: Layout,
    ) -> Any:
        gradients = _gradients(grad, input, coefficients, basis, needs_input, *layout)
        return gradients if needs_input else gradients[1:]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.needs_input, ctx.layout = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        gradients = _plain_gradients(ctx.needs_input, ctx.layout)
        pull: Any = torch.func.vjp(gradients, *ctx.saved_tensors)[1]
        return *pull(tuple(outer)), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        *tensors, needs_input, layout = arguments
        gradients = _plain_gradients(needs_input, layout)
        results = torch.func.vmap(gradients, tuple(in_dims[:-2]))(*tensors)
        return results, (0,) * len(results)


def _plain_gradients(needs_input: bool, layout: Layout) -> Callable[..., Any]:
    """Return the function that computes the gradients with rendered kernels."""

    def gradients(grad: Tensor, input: Tensor, coefficients: Tensor, basis: Tensor) -> Any:
        def output(*parts: Tensor) -> Tensor:
            whole = parts if needs_input else (input, *parts)
            return _plainly(whole[0], whole[1], whole[2], layout)

        wanted = (input, coefficients, basis) if needs_input else (coefficients, basis)
        pull: Any = torch.func.vjp(output, *wanted)[1]
        return pull(grad)

    return gradients


def _plainly(input: Tensor, coefficients: Tensor, basis: Tensor, layout: Layout) -> Tensor:
    """The same correlation with rendered kernels."""
    weight = _rendered(input, coefficients, basis)
    return correlate(input, weight, geometry_from(input, weight, layout), layout[-1])
