"""The three products of a convolution by torch's own operations, in either memory layout."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional.fft import result_dtype
from sizeless.functional.geometry import Geometry
from sizeless.functional.operators import somebody_looks
from sizeless.functional.padding import Amounts

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}

LANES = 16
"""Channels that a vector holds: fewer outputs leave lanes idle."""

_WIDEST_FAST_PADDING = 6
"""Padding beyond which oneDNN's forward convolutions in torch's usual layout take 2 to 15 times as
long as those of a map that was padded beforehand."""

_SMALL = 3
_FEW_SAMPLES = 20480
"""Limits of torch's heuristic for leaving a convolution to its plain implementation."""


def output(
    input: Tensor,
    weight: Tensor,
    geometry: Geometry,
    bias: Tensor | None = None,
    *,
    channels_last: bool,
) -> Tensor:
    """Return the cross-correlation, ``(N, out, *output_size)``, in the layout asked for."""
    if _may_hang(input, geometry):
        input, channels_last = input.contiguous(), False
    first = input.device.type == "cpu" and pads_first(geometry, channels_last=channels_last)
    inner, outer = _shares(geometry.amounts, first)
    padded = F.pad(input, outer) if any(outer) else input
    stride, dilation, groups = geometry.stride, geometry.dilation, geometry.groups
    if _is_passed_over(padded, geometry):
        padded = turned(padded) if channels_last else padded
        return torch.mkldnn_convolution(padded, weight, bias, inner, stride, dilation, groups)
    convolution = turned_convolution if channels_last else CONVOLUTIONS[geometry.ndim]
    return convolution(padded, weight, bias, stride, inner, dilation, groups)


def turned_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """Convolve with channels last in memory; a sequence becomes an image of one row."""
    if input.dim() > 3:
        convolution = CONVOLUTIONS[input.dim() - 2]
        return convolution(turned(input), weight, bias, stride, padding, dilation, groups)
    image = input.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    options = (1, *stride), (0, *padding), (1, *dilation), groups
    return CONVOLUTIONS[2](image, weight.unsqueeze(2), bias, *options).squeeze(2)


def input_gradient(
    grad: Tensor, weight: Tensor, geometry: Geometry, *, channels_last: bool
) -> Tensor:
    """Return the gradient of the input.

    With stride 1 it is also a convolution with the kernels flipped and the channels swapped.
    """
    if grad.device.type == "cpu" and flips(geometry, channels_last=channels_last):
        axes = tuple(range(2, grad.dim()))
        swapped = weight.unflatten(0, (geometry.groups, -1)).transpose(1, 2).flatten(0, 1)
        mirrored = tuple(
            (r - before, r - after)
            for r, (before, after) in zip(geometry.reach, geometry.amounts, strict=True)
        )
        back = geometry._replace(
            in_channels=geometry.out_channels,
            out_channels=geometry.in_channels,
            size=geometry.output_size,
            amounts=mirrored,
        )
        return output(grad, swapped.flip(axes), back, channels_last=channels_last)
    shape = (geometry.batch, geometry.in_channels, *geometry.size)
    like = grad.new_empty(()).expand(shape)
    return _backward(grad, like, weight, geometry, wanted=0, last=channels_last)


def weight_gradient(
    grad: Tensor, input: Tensor, geometry: Geometry, *, channels_last: bool
) -> Tensor:
    """Return the gradient of the weight."""
    shape = (geometry.out_channels, geometry.group_inputs, *geometry.kernel)
    weight = grad.new_empty(()).expand(shape)
    return _backward(grad, input, weight, geometry, wanted=1, last=channels_last)


def turned(values: Tensor) -> Tensor:
    """Return a map with its channels last in memory, which no operation has to turn again."""
    row = values.dim() == 3
    values = values.unsqueeze(2) if row else values
    values = values.contiguous(memory_format=FORMATS[values.dim() - 2])
    return values.squeeze(2) if row else values


def flips(geometry: Geometry, *, channels_last: bool) -> bool:
    """Whether a CPU had better compute the gradient of the input as a convolution.

    Torch's operation for it is slow where the output has few channels, in depthwise convolutions
    of volumes, and beyond wide padding; elsewhere turning the kernels round is work for nothing.
    """
    if set(geometry.stride) != {1}:
        return False
    if channels_last or _is_wide(geometry) or is_passed_over(geometry):
        return True
    if geometry.groups > 1:
        return min(geometry.group_inputs, geometry.group_outputs) == 1 and geometry.ndim == 3
    return geometry.out_channels < LANES


def has_best_derivative(geometry: Geometry, device_type: str, *, channels_last: bool) -> bool:
    """Whether torch's own derivative of its operation is as fast as our products one by one.

    With channels last it turns gradient and input once for both.
    """
    if device_type != "cpu":
        return not channels_last
    if channels_last:
        mixed = geometry.group_inputs > 1 or geometry.ndim < 3
        return mixed and not is_passed_over(geometry)
    return not flips(geometry, channels_last=False)


def pads_first(geometry: Geometry, *, channels_last: bool) -> bool:
    """Whether a CPU had better pad a map before a forward convolution than by it.

    With channels last, in 3-D and in groups, taps that fall outside the map are passed over.
    """
    return (
        not channels_last
        and geometry.ndim < 3
        and (geometry.groups == 1 or geometry.group_inputs == 1)
        and _is_wide(geometry)
    )


def padding_of_one_call(
    input: Tensor, geometry: Geometry, *, channels_last: bool
) -> tuple[int, ...] | None:
    """Return the padding with which torch's operation alone gives the output, if it does."""
    if _may_hang(input, geometry) or _is_passed_over(input, geometry):
        return None
    first = input.device.type == "cpu" and pads_first(geometry, channels_last=channels_last)
    inner, outer = _shares(geometry.amounts, first)
    return None if any(outer) else inner


def is_passed_over(geometry: Geometry) -> bool:
    """Whether torch computes a convolution on a CPU without its fast library.

    It does so with one dense map, a small kernel, and few samples but for the last axis; with a
    volume these are many, and the library takes a tenth of the time.
    """
    small = min(geometry.kernel[-2:]) <= _SMALL
    counted = geometry.in_channels * math.prod(geometry.size[:-1])
    return (
        geometry.ndim == 3
        and geometry.groups == geometry.batch == 1
        and small
        and counted <= _FEW_SAMPLES
    )


def _is_passed_over(input: Tensor, geometry: Geometry) -> bool:
    return (
        input.device.type == "cpu"
        and result_dtype(input) == torch.float32
        and is_passed_over(geometry)
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
        and not somebody_looks((input,))
    )


def _may_hang(input: Tensor, geometry: Geometry) -> bool:
    """Whether torch's operation might never return.

    So it is with oneDNN 3.13 in bfloat16, depthwise, with channels last and 15 taps or more.
    """
    half = result_dtype(input) not in (torch.float32, torch.float64)
    depthwise = geometry.groups > 1 and geometry.group_inputs == 1
    return half and depthwise and input.device.type == "cpu"


def _is_wide(geometry: Geometry) -> bool:
    return max(min(pair) for pair in geometry.amounts) > _WIDEST_FAST_PADDING


def _shares(amounts: Amounts, before: bool = False) -> tuple[tuple[int, ...], list[int]]:
    """Return the padding that the operation can do, and the rest as ``F.pad`` takes it."""
    inner = tuple(0 if before else max(min(pair), 0) for pair in amounts)
    outer = [
        amount - both
        for pair, both in reversed(list(zip(amounts, inner, strict=True)))
        for amount in pair
    ]
    return inner, outer


def _backward(
    grad: Tensor, input: Tensor, weight: Tensor, geometry: Geometry, *, wanted: int, last: bool
) -> Tensor:
    """Return torch's gradient of the input (``wanted`` 0) or weight (1) of a padded map."""
    stride, dilation = geometry.stride, geometry.dilation
    if _may_hang(grad, geometry):
        grad, input, last = grad.contiguous(), input.contiguous(), False
    inner, outer = _shares(geometry.amounts)
    padded = F.pad(input, outer) if any(outer) else input
    if last and geometry.ndim == 1:
        grad, padded, weight = grad.unsqueeze(2), padded.unsqueeze(2), weight.unsqueeze(2)
        stride, dilation, inner = (1, *stride), (1, *dilation), (0, *inner)
    if last:
        layout = FORMATS[len(stride)]
        grad = grad.contiguous(memory_format=layout)
        padded = padded.contiguous(memory_format=layout)
    mask = [wanted == 0, wanted == 1, False]
    gradient = torch.ops.aten.convolution_backward(
        grad, padded, weight, None, stride, inner, dilation, False, [0], geometry.groups, mask
    )[wanted]
    if last and geometry.ndim == 1:
        gradient = gradient.squeeze(2)
    if wanted == 1:
        return gradient.contiguous()
    return F.pad(gradient, [-amount for amount in outer])
