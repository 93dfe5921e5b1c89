"""The three products of a convolution by torch's own operations, in either memory layout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional.geometry import Geometry
from sizeless.functional.padding import Amounts

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}

# With a wider padding, oneDNN leaves its compiled depthwise kernels and takes 10 times as long;
# the same convolution of an input padded beforehand does not.
_WIDEST_FAST_PADDING = 6


def output(
    input: Tensor,
    weight: Tensor,
    geometry: Geometry,
    bias: Tensor | None = None,
    *,
    channels_last: bool,
) -> Tensor:
    """Return the cross-correlation, ``(N, out, *output_size)``, in the layout asked for."""
    padded, inner = _padded(input, geometry.amounts)
    stride, dilation = geometry.stride, geometry.dilation
    row = channels_last and geometry.ndim == 1
    if row:
        padded, weight = padded.unsqueeze(2), weight.unsqueeze(2)
        stride, dilation, inner = (1, *stride), (1, *dilation), (0, *inner)
    if channels_last:
        padded = padded.contiguous(memory_format=_FORMATS[len(stride)])
    convolution = _CONVOLUTIONS[len(stride)]
    values = convolution(padded, weight, bias, stride, inner, dilation, geometry.groups)
    return values.squeeze(2) if row else values


def input_gradient(
    grad: Tensor, weight: Tensor, geometry: Geometry, *, channels_last: bool
) -> Tensor:
    """Return the gradient of the input.

    On a CPU, with stride 1, it is a convolution with the kernels flipped and the channels swapped:
    those run faster than the gradient operation.
    """
    if grad.device.type == "cpu" and set(geometry.stride) == {1}:
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


def _padded(input: Tensor, amounts: Amounts) -> tuple[Tensor, tuple[int, ...]]:
    """Pad by what the operation cannot: return the input, and the padding left to it."""
    inner, outer = _shares(amounts, input.device.type)
    return (F.pad(input, outer) if any(outer) else input), inner


def _shares(amounts: Amounts, device_type: str) -> tuple[tuple[int, ...], list[int]]:
    """Return the padding that the operation can do, and the rest as ``F.pad`` takes it."""
    inner = tuple(max(min(pair), 0) for pair in amounts)
    if device_type == "cpu" and max(inner) > _WIDEST_FAST_PADDING:
        inner = (0,) * len(inner)
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
    padded, inner = _padded(input, geometry.amounts)
    if last and geometry.ndim == 1:
        grad, padded, weight = grad.unsqueeze(2), padded.unsqueeze(2), weight.unsqueeze(2)
        stride, dilation, inner = (1, *stride), (1, *dilation), (0, *inner)
    if last:
        layout = _FORMATS[len(stride)]
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
    _, outer = _shares(geometry.amounts, grad.device.type)
    return F.pad(gradient, [-amount for amount in outer])
