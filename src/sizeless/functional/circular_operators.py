"""The operators of circular convolution, as tracing and counting see them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sizeless.functional.circular_kept import blank_kept
from sizeless.functional.circular_spectra import (
    Shape,
    blank_filter,
    blank_map,
    gradients,
    output,
)
from sizeless.functional.fft import no_autocast, spectral_dtype, transform_flops
from sizeless.functional.operators import operator

Numbers = list[int]
Size = Sequence[int]


def circular_flops(
    batch: int,
    in_channels: int,
    out_channels: int,
    groups: int,
    size: Size,
    target: Size | None = None,
) -> int:
    r"""Operations of one product: real transforms of all channels, and complex multiply-adds.

    $$
    N \Big( C_{in} \, \tfrac52 n \log_2 n + C_{out}\, \tfrac52 m \log_2 m
    + 8 \cdot \tfrac m2 \cdot C_{out}\, C_{in} / G \Big)
    $$

    for maps of $n$ points that become of $m$.
    """
    target = size if target is None else target
    transforms = _transforms(in_channels, out_channels, size, target)
    points = min(math.prod(size), math.prod(target))
    products = 4 * points * out_channels * in_channels // groups
    return batch * (transforms + products)


def _transforms(in_channels: int, out_channels: int, size: Size, target: Size) -> int:
    return in_channels * transform_flops(size) + out_channels * transform_flops(target)


def shape_of(input: Tensor, filter: Tensor, groups: int, size: Size) -> Shape:
    """Counts of the convolution of maps before."""
    out_channels, inputs = filter.shape[1:3]
    outputs = out_channels // groups
    return Shape(input.shape[0], groups, inputs, outputs, tuple(input.shape[2:]), tuple(size))


def _shape_behind(grad: Tensor, input: Tensor, groups: int) -> Shape:
    batch, channels, *size = input.shape
    outputs = grad.shape[1] // groups
    return Shape(batch, groups, channels // groups, outputs, tuple(size), tuple(grad.shape[2:]))


def _turned(shape: Shape) -> Shape:
    return shape._replace(size=shape.target, target=shape.size)


def _run_output(
    input: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    groups: int,
    adjoint: bool,
    size: Size | None = None,
) -> Tensor:
    shape = shape_of(input, filter, groups, input.shape[2:] if size is None else size)
    with no_autocast(input.device.type):
        return output(input, filter, bias, _turned(shape) if adjoint else shape, adjoint=adjoint)


def _run_gradients(
    grad: Tensor, input: Tensor, filter: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    with no_autocast(input.device.type):
        shape = _shape_behind(grad, input, groups)
        to_input, to_filter = gradients(grad, input, filter, shape, filter.dtype)
    if to_input is None:
        raise RuntimeError("the gradient of the input needs the filter")
    return to_input, to_filter


def _run_filter_gradient(grad: Tensor, input: Tensor, groups: int) -> Tensor:
    with no_autocast(input.device.type):
        shape = _shape_behind(grad, input, groups)
        return gradients(grad, input, None, shape, spectral_dtype(input))[1]


def _shape_of_output(
    input: Tensor,
    filter: Tensor,
    _bias: Tensor | None,
    groups: int,
    adjoint: bool,
    size: Size | None = None,
) -> Tensor:
    channels = filter.shape[2] * groups if adjoint else filter.shape[1]
    return blank_map(input, channels, tuple(input.shape[2:] if size is None else size))


def _shape_of_gradients(
    grad: Tensor, input: Tensor, filter: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    shape = _shape_behind(grad, input, groups)
    to_input = blank_map(input, input.shape[1], shape.size)
    return to_input, blank_filter(input, shape, filter.dtype)


def _shape_of_filter_gradient(grad: Tensor, input: Tensor, groups: int) -> Tensor:
    return blank_filter(input, _shape_behind(grad, input, groups), spectral_dtype(input))


def _flops_of_output(
    input: Numbers,
    filter: Numbers,
    _bias: Numbers | None,
    groups: int,
    adjoint: bool,
    size: Numbers | None = None,
) -> int:
    sizes = input[2:], input[2:] if size is None else size
    if adjoint:
        sizes = sizes[::-1]
    return circular_flops(input[0], filter[2] * groups, filter[1], groups, *sizes)


def _flops_of_filter_gradient(grad: Numbers, input: Numbers, groups: int) -> int:
    return circular_flops(input[0], input[1], grad[1], groups, input[2:], grad[2:])


def _flops_of_gradients(grad: Numbers, input: Numbers, _filter: Numbers, groups: int) -> int:
    return 2 * _flops_of_filter_gradient(grad, input, groups)


def _run_kept(
    input: Tensor, filter: Tensor, bias: Tensor | None, groups: int, size: Size
) -> tuple[Tensor, Tensor]:
    shape = shape_of(input, filter, groups, size)
    kept = blank_kept(input, shape, filter.dtype)
    spectra = torch.view_as_complex(kept)
    with no_autocast(input.device.type):
        return output(input, filter, bias, shape, adjoint=False, kept=spectra), kept


def _shape_of_kept(
    input: Tensor, filter: Tensor, _bias: Tensor | None, groups: int, size: Size
) -> tuple[Tensor, Tensor]:
    shape = shape_of(input, filter, groups, size)
    return blank_map(input, filter.shape[1], shape.target), blank_kept(input, shape, filter.dtype)


def _shape_of_pair(grad: Tensor, groups: int, size: Size) -> Shape:
    batch, channels = grad.shape[:2]
    return Shape(batch, groups, 1, channels // groups, tuple(size), tuple(grad.shape[2:]))


def _run_kept_gradients(
    grad: Tensor, spectra: Tensor, filter: Tensor | None, groups: int, size: Size
) -> tuple[Tensor, Tensor]:
    shape, values = _shape_of_pair(grad, groups, size), torch.view_as_complex(spectra)
    with no_autocast(grad.device.type):
        to_input, to_filter = gradients(grad, values, filter, shape, spectra.dtype)
    return grad.new_empty(0) if to_input is None else to_input, to_filter


def _shape_of_kept_gradients(
    grad: Tensor, spectra: Tensor, filter: Tensor | None, groups: int, size: Size
) -> tuple[Tensor, Tensor]:
    shape = _shape_of_pair(grad, groups, size)
    to_input = grad.new_empty(0) if filter is None else blank_map(grad, groups, shape.size)
    return to_input, blank_filter(grad, shape, spectra.dtype)


def _flops_of_kept(
    input: Numbers, filter: Numbers, bias: Numbers | None, groups: int, size: Numbers
) -> int:
    return _flops_of_output(input, filter, bias, groups, False, size)


def _flops_of_kept_gradients(
    grad: Numbers, _spectra: Numbers, filter: Numbers | None, groups: int, size: Numbers
) -> int:
    """Both products, and the transforms of the gradients alone: those of the input are kept."""
    batch, outputs, *target = grad
    both = circular_flops(batch, groups, outputs, groups, size, target)
    product = both - batch * _transforms(groups, outputs, size, target)
    if filter is None:
        return batch * _transforms(0, outputs, size, target) + product
    return both + product


output_operator = operator(
    "circular(Tensor input, Tensor filter, Tensor? bias, int groups, bool adjoint, "
    "SymInt[]? size=None) -> Tensor",
    _run_output,
    _shape_of_output,
    _flops_of_output,
)
gradients_operator = operator(
    "circular_gradients(Tensor grad, Tensor input, Tensor filter, int groups) -> (Tensor, Tensor)",
    _run_gradients,
    _shape_of_gradients,
    _flops_of_gradients,
)
filter_gradient_operator = operator(
    "circular_filter_gradient(Tensor grad, Tensor input, int groups) -> Tensor",
    _run_filter_gradient,
    _shape_of_filter_gradient,
    _flops_of_filter_gradient,
)
kept_operator = operator(
    "circular_kept(Tensor input, Tensor filter, Tensor? bias, int groups, SymInt[] size) "
    "-> (Tensor, Tensor)",
    _run_kept,
    _shape_of_kept,
    _flops_of_kept,
)
kept_gradients_operator = operator(
    "circular_kept_gradients(Tensor grad, Tensor spectra, Tensor? filter, int groups, "
    "SymInt[] size) -> (Tensor, Tensor)",
    _run_kept_gradients,
    _shape_of_kept_gradients,
    _flops_of_kept_gradients,
)
