"""Convolution with kernels of any size, directly or through the Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless._validate import int_tuple, one_of
from sizeless.functional.fft import (
    good_length,
    irfftn,
    mix_channels,
    no_autocast,
    result_dtype,
    rfftn,
    spectral_dtype,
)
from sizeless.functional.operands import (
    add_bias,
    check_bias,
    check_filter,
    keep_layout,
    spatial_dims,
)
from sizeless.functional.padding import PADDING_MODES, Amounts, pad, padding_amounts

METHODS = ("auto", "direct", "fft")

_DIRECT = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# With a wider padding, oneDNN leaves its compiled depthwise kernels and takes 10 times as long;
# the same convolution of an input padded beforehand does not.
_WIDEST_FAST_PADDING = 6

FEW = 16
"""Taps below which the direct method is always the cheaper one."""

WIDE = 256
"""Taps beyond which the direct weight gradient of a dense kernel slows down."""


class Geometry(NamedTuple):
    """Where the kernel's taps fall: one entry per spatial axis."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    amounts: Amounts
    output_size: tuple[int, ...]
    periods: tuple[int, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Transform lengths: fast ones that are no shorter than the periods."""
        return tuple(map(good_length, self.periods))


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    causal: bool = False,
    method: str = "auto",
) -> Tensor:
    r"""Convolve a feature map with a kernel of any size, as ``torch.nn.functional.conv1d/2d/3d``.

    $$
    y[n, o, p] = b[o] + \sum_{i, t} w[o, i, t] \, \tilde x[n, i, s p + d t]
    $$

    with the padded input $\tilde x$, stride $s$ and dilation $d$ (on every
    axis), $i$ running over the input channels of the group of $o$. This is a
    cross-correlation: the kernel is not flipped. The kernel may be larger than the input.

    The Fourier path computes the same sum as a product of spectra, at the length
    ``good_length`` of the padded axis. It computes half precision in float32, also under
    ``torch.autocast``, and returns the dtype of the direct path.

    Args:
        input: feature map of shape ``(N, C, *spatial)`` with 1, 2 or 3 spatial axes.
        weight: kernel of shape ``(out, C / groups, *kernel)``.
        bias: ``(out,)`` or None.
        stride: samples from one output to the next; one int, or one per axis.
        padding: samples added at both ends of an axis (one int, or one per axis), ``"valid"``
            (none) or ``"same"``: ``d (k - 1)`` in all, half of it (rounded down) before the
            start. With a stride, ``"same"`` gives ``ceil(size / stride)`` outputs.
        dilation: samples from one tap to the next; one int, or one per axis.
        groups: channel groups; ``groups=C`` is depthwise.
        padding_mode: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``. The
            amount may exceed the input: the map is wrapped or reflected repeatedly.
        causal: pad ``d (k - 1)`` before the start alone, so that an output sees no later input
            (1 spatial axis; ``padding`` 0 or ``"same"``); gives ``ceil(size / stride)`` outputs.
        method: ``"direct"``, ``"fft"``, or ``"auto"``, which takes the cheaper by
            [`choose_method`][sizeless.functional.convolution.choose_method].

    Returns:
        Feature map of shape ``(N, out, *output_size)`` in the memory layout of ``input``.

    Raises:
        TypeError: for tensors that are not floating-point or of different dtypes.
        ValueError: for shapes, channel counts, devices or arguments that do not fit, or if the
            padded input is smaller than the kernel.

    Examples:
        >>> import torch
        >>> signal = torch.arange(6.0).reshape(1, 1, 6)
        >>> sums = convolve(signal, torch.ones(1, 1, 3), padding="same", stride=2)
        >>> sums.flatten().tolist()
        [1.0, 6.0, 12.0]
    """
    ndim = spatial_dims(input)
    one_of("padding_mode", padding_mode, PADDING_MODES)
    one_of("method", method, METHODS)
    check_filter("weight", weight, input, groups)
    check_bias(bias, weight.shape[0], input)
    stride = int_tuple("stride", stride, ndim)
    dilation = int_tuple("dilation", dilation, ndim)
    reach = tuple(d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))
    amounts = padding_amounts(padding, reach, causal)
    padded = input
    if padding_mode != "zeros":
        padded = pad(input, amounts, padding_mode)
        amounts = ((0, 0),) * ndim
    geometry = _geometry(tuple(padded.shape[2:]), reach, stride, dilation, amounts)
    if method == "auto" and math.prod(weight.shape[2:]) < FEW:
        method = "direct"
    elif method == "auto":
        training = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
        method = choose_method(
            input.shape[0],
            tuple(weight.shape),
            groups,
            geometry.output_size,
            geometry.lengths,
            training=training,
            device_type=input.device.type,
        )
    run = _direct if method == "direct" else _fft
    return keep_layout(run(padded, weight, bias, groups, geometry), input)


def _geometry(
    size: tuple[int, ...],
    reach: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    amounts: Amounts,
) -> Geometry:
    """Return the geometry of a convolution; its periods leave room for every lag.

    With the input at the origin of a period of length L, lag ``-before`` must meet zeros at
    ``L - before`` and later, so L is at least ``size + before``, likewise ``size + after``; and
    L holds the kernel and all outputs.
    """
    spans, periods = [], []
    for axis, (n, r, (before, after)) in enumerate(zip(size, reach, amounts, strict=True)):
        span = n + before + after - r
        if span < 1:
            raise ValueError(
                f"weight reaches over {r + 1} samples (size and dilation) on spatial axis {axis}, "
                f"but the padded input has {n + before + after}; use a smaller kernel or dilation, "
                "or a larger padding, such as padding='same'"
            )
        spans.append(span)
        periods.append(max(n + max(before, after), r + 1, span))
    output_size = tuple((span - 1) // s + 1 for span, s in zip(spans, stride, strict=True))
    return Geometry(stride, dilation, amounts, output_size, tuple(periods))


def choose_method(
    batch: int,
    weight_shape: tuple[int, ...],
    groups: int,
    output_size: tuple[int, ...],
    lengths: tuple[int, ...],
    *,
    training: bool,
    device_type: str,
) -> str:
    r"""Return the cheaper of ``"direct"`` and ``"fft"`` by a static cost model.

    With batch $B$, channels $I$, $O$, groups $g$, $K$ taps,
    $P$ outputs per channel and $N$ points per transform, in units of one
    multiply-add of a dense direct convolution:

    $$
    \begin{aligned} c_\mathrm{direct} &= a \, B O \tfrac{I}{g} K P \\
    c_\mathrm{fft} &= b \, \big(\tfrac52 N \log_2 N \,
    (B I + O \tfrac{I}{g} + B O) + 2 N B O \tfrac{I}{g}\big)
    \end{aligned}
    $$

    The constants are fits to timings. On a CPU, $a$ is 1, or 3 for depthwise kernels and
    in 1-D or to train kernels of over 256 taps, or 30 to train depthwise kernels (weight gradients
    of large kernels are slow), and $b$ is 10,
    15 and 20 in 1-D, 2-D and 3-D. On a GPU, $a = 1$ and $b = 30$. Elsewhere the
    direct path is taken, as complex numbers are ill supported.

    Args:
        batch: the number of feature maps.
        weight_shape: ``(out, in / groups, *kernel)``.
        groups: the number of channel groups.
        output_size: outputs per spatial axis.
        lengths: transform length per spatial axis.
        training: whether gradients will be wanted.
        device_type: ``"cpu"``, ``"cuda"``, or another.

    Returns:
        ``"direct"`` or ``"fft"``.

    Examples:
        >>> sizes = {"output_size": (32, 32), "training": True, "device_type": "cpu"}
        >>> choose_method(8, (64, 1, 3, 3), 64, lengths=(36, 36), **sizes)
        'direct'
        >>> choose_method(8, (64, 1, 15, 15), 64, lengths=(40, 40), **sizes)
        'fft'
    """
    if device_type not in ("cpu", "cuda"):
        return "direct"
    ndim, out_channels, group_inputs = len(lengths), weight_shape[0], weight_shape[1]
    depthwise = groups > 1 and group_inputs == 1
    direct_rate, fft_rate = 1.0, 30.0
    if device_type == "cpu":
        fft_rate = 5.0 * (ndim + 1)
        if depthwise and training:
            direct_rate = 30.0
        elif depthwise or ndim == 1 or (training and math.prod(weight_shape[2:]) > WIDE):
            direct_rate = 3.0
    points, pairs = math.prod(lengths), out_channels * group_inputs
    direct = batch * math.prod(weight_shape) * math.prod(output_size)
    transforms = batch * group_inputs * groups + pairs + batch * out_channels
    fft = 2.5 * points * math.log2(points) * transforms + 2 * points * batch * pairs
    return "direct" if direct_rate * direct <= fft_rate * fft else "fft"


def _direct(
    input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, geometry: Geometry
) -> Tensor:
    """Convolve by torch's own operation, which pads by what both ends of an axis share."""
    inner = tuple(min(pair) for pair in geometry.amounts)
    if input.device.type == "cpu" and max(inner) > _WIDEST_FAST_PADDING:
        inner = (0,) * len(inner)
    outer = tuple(
        (before - both, after - both)
        for (before, after), both in zip(geometry.amounts, inner, strict=True)
    )
    convolution = _DIRECT[len(inner)]
    padded = pad(input, outer, "zeros")
    return convolution(padded, weight, bias, geometry.stride, inner, geometry.dilation, groups)


def _fft(
    input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, geometry: Geometry
) -> Tensor:
    """Convolve by a product of spectra; the inverse transform holds lag 0 at its origin."""
    dtype, lengths = result_dtype(input), geometry.lengths
    axes = [axis for axis, length in enumerate(lengths, start=2) if length > 1]
    with no_autocast(input.device.type):
        working_dtype = spectral_dtype(input)
        kernel = _spread(weight.to(working_dtype), geometry.dilation)
        correlation = _correlate(input.to(working_dtype), kernel, groups, lengths, axes)
        starts = [before for before, _ in geometry.amounts]
        if any(starts):
            correlation = correlation.roll(starts, tuple(range(2, input.dim())))
        places: list[Any] = [
            slice(0, (count - 1) * step + 1, step)
            for count, step in zip(geometry.output_size, geometry.stride, strict=True)
        ]
        correlation = correlation[(..., *places)]
        biased = add_bias(correlation, None if bias is None else bias.to(working_dtype))
        return biased.to(dtype).contiguous()


def _correlate(
    input: Tensor, kernel: Tensor, groups: int, lengths: tuple[int, ...], axes: list[int]
) -> Tensor:
    """Return the circular cross-correlation of period ``lengths``."""
    if not axes:
        return mix_channels(input, kernel, groups)
    periods = [lengths[axis - 2] for axis in axes]
    signal = rfftn(input, periods, axes)
    filter = rfftn(kernel, periods, axes)
    product = mix_channels(signal, filter.conj(), groups)
    return irfftn(product, periods, axes)


def _spread(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Insert ``dilation - 1`` zeros between neighbouring taps."""
    for axis, step in enumerate(dilation, start=2):
        if step > 1:
            taps = weight.shape[axis]
            cells = F.pad(weight.movedim(axis, -1).unsqueeze(-1), (0, step - 1))
            spread = cells.flatten(-2).narrow(-1, 0, step * (taps - 1) + 1)
            weight = spread.movedim(-1, axis)
    return weight
