"""Convolution with kernels of any size, directly or through the Fourier transform."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sizeless._precision import autocast_is_on
from sizeless._validate import int_tuple, one_of, real_tensor
from sizeless.functional import direct, shortcuts
from sizeless.functional.backends import products
from sizeless.functional.correlation import correlate
from sizeless.functional.factored import correlate_factored, render
from sizeless.functional.fft import no_autocast, result_dtype, spectral_dtype
from sizeless.functional.geometry import Geometry, geometry_of
from sizeless.functional.measured import is_tuning
from sizeless.functional.one_layout import layout_of_few, one_layout, plan_of_step
from sizeless.functional.operands import (
    add_bias,
    check_bias,
    check_filter,
    keep_layout,
    spatial_dims,
)
from sizeless.functional.padding import PADDING_MODES, Amounts, pad, padding_amounts
from sizeless.functional.plans import METHODS, Plan, check_method, forced_method, plan_for

FEW = 9
"""Taps up to which nothing beats torch's own convolution by much."""


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

    Output and gradients are three products, and each is computed in the way that a model of costs
    finds the fastest for its shape: torch's own convolution in either memory layout, or products
    of spectra of overlapping blocks. [`plan`][sizeless.functional.plan] shows the choice,
    [`use_method`][sizeless.functional.use_method] and the environment variable
    ``SIZELESS_METHOD`` force one. Libraries of others, such as cuDNN, can take part as
    [back ends][sizeless.functional.backends.Backend]. The Fourier path computes half precision in
    float32, also under ``torch.autocast``, and returns the dtype of the direct path. Spectra are
    kept in chunks of a fixed size, and not for the backward pass.

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
        method: ``"direct"``, ``"channels_last"`` (direct, in that layout), ``"fft"``, the name of
            a back end, or ``"auto"``: for each product the one that should be fastest.

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
    arguments = stride, padding, dilation, groups, padding_mode, causal, method
    key = shortcuts.key_of(input, weight, bias, forced_method(), *arguments)
    known = shortcuts.shortcut(key)
    if known is not None:
        return known.run(input, weight, bias)
    spatial_dims(input)
    one_of("padding_mode", padding_mode, PADDING_MODES)
    check_method("method", method)
    check_filter("weight", weight, input, groups)
    check_bias(bias, weight.shape[0], input)
    placement = _place(weight.shape[2:], stride, padding, dilation, causal)
    padded, placement = _padded(input, placement, padding_mode)
    geometry = geometry_of(padded, weight, *placement, groups)
    method = _method(geometry, method, input.device.type, input, measure=True)
    known = None if padded is not input else _shortcut(key, input, weight, geometry, method)
    if known is not None:
        return known.run(input, weight, bias)
    output = correlate_with_bias(padded, weight, bias, geometry, method)
    return keep_layout(output, input)


def convolve_factored(
    input: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    causal: bool = False,
    method: str = "auto",
) -> Tensor:
    r"""Convolve with kernels that are sums of a few shared functions of space.

    $$
    w[o, i, t] = \sum_h a[o, i, h]\, \phi_h[t]
    $$

    Equal to ``convolve`` with these kernels. Where they are large and many, their spectra are
    sums of the spectra of the functions, made a chunk of frequencies at a time: $H$ transforms
    in place of one for every pair of channels, and no memory that grows with pairs times taps.

    Args:
        input: Feature map of shape ``(N, C, *spatial)`` with 1, 2 or 3 spatial axes.
        coefficients: ``(out, C / groups, H)``.
        basis: The functions at the taps, ``(H, *kernel)``.
        bias: ``(out,)`` or None.
        stride: As for ``convolve``.
        padding: As for ``convolve``.
        dilation: As for ``convolve``.
        groups: As for ``convolve``.
        padding_mode: As for ``convolve``.
        causal: As for ``convolve``.
        method: As for ``convolve``.

    Returns:
        Feature map of shape ``(N, out, *output_size)`` in the memory layout of ``input``.

    Raises:
        TypeError: For tensors that are not floating-point or of different dtypes.
        ValueError: For shapes or arguments that do not fit.

    Examples:
        >>> import torch
        >>> input, coefficients, basis = torch.ones(1, 2, 8), torch.ones(3, 2, 4), torch.ones(4, 5)
        >>> convolve_factored(input, coefficients, basis, padding="same").shape
        torch.Size([1, 3, 8])
    """
    ndim = spatial_dims(input)
    _check_factors(coefficients, basis, ndim)
    check_method("method", method)
    shape = (*coefficients.shape[:2], *basis.shape[1:])
    placement = _place(basis.shape[1:], stride, padding, dilation, causal)
    one_of("padding_mode", padding_mode, PADDING_MODES)
    taps = coefficients[..., 0].reshape(*shape[:2], *(1,) * ndim)
    check_filter("coefficients", taps, input, groups)
    check_bias(bias, shape[0], input)
    padded, placement = _padded(input, placement, padding_mode)
    geometry = geometry_of(padded, shape, *placement, groups)
    method = _method(geometry, method, input.device.type, input, measure=True)
    if method in ("direct", "channels_last") or method not in METHODS or geometry.group_inputs == 1:
        output = correlate_with_bias(padded, render(coefficients, basis), bias, geometry, method)
    else:
        output = _correlate_factored(padded, coefficients, basis, bias, geometry, method)
    return keep_layout(output, input)


def _correlate_factored(
    input: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    method: str,
) -> Tensor:
    dtype, working = result_dtype(input), spectral_dtype(input)
    operand = _operand_dtype(geometry, input, method)
    with no_autocast(input.device.type):
        factors = coefficients.to(working), basis.to(working)
        output = correlate_factored(input.to(operand), *factors, geometry, method)
        return add_bias(output, None if bias is None else bias.to(output.dtype)).to(dtype)


def _check_factors(coefficients: Tensor, basis: Tensor, ndim: int) -> None:
    """Raise unless the factors have the shapes of a kernel's coefficients and functions."""
    for name, value, wanted in (
        ("coefficients", coefficients, "(out, in / groups, H)"),
        ("basis", basis, "(H, *kernel)"),
    ):
        expected = 3 if name == "coefficients" else 1 + ndim
        if real_tensor(name, value).dim() != expected:
            raise ValueError(f"{name} must have shape {wanted}, got shape {tuple(value.shape)}")
    if coefficients.shape[-1] != basis.shape[0]:
        raise ValueError(
            f"basis must hold one function for each of the {coefficients.shape[-1]} coefficients "
            f"on the last axis, got shape {tuple(basis.shape)}"
        )


def plan(
    input: Tensor | Sequence[int],
    weight: Tensor | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    causal: bool = False,
    method: str = "auto",
    device_type: str = "cpu",
) -> Plan:
    """Show how [`convolve`][sizeless.functional.convolve] would compute, without computing.

    Args:
        input: The feature map, or its shape.
        weight: The kernel, or its shape.
        stride: As for ``convolve``.
        padding: As for ``convolve``.
        dilation: As for ``convolve``.
        groups: As for ``convolve``.
        padding_mode: As for ``convolve``.
        causal: As for ``convolve``.
        method: As for ``convolve``.
        device_type: Where it would run, in float32, if ``input`` is a shape.

    Returns:
        The methods of the output and of both gradients; ``str`` gives one line.

    Raises:
        ValueError: For shapes and arguments that do not fit.

    Examples:
        >>> plan((8, 64, 56, 56), (64, 1, 7, 7), padding="same", groups=64).output.method
        'direct'
    """
    like = input if isinstance(input, Tensor) else None
    if like is not None:
        device_type = like.device.type
    shapes = [tuple(part.shape if isinstance(part, Tensor) else part) for part in (input, weight)]
    placement = _place(shapes[1][2:], stride, padding, dilation, causal)
    if one_of("padding_mode", padding_mode, PADDING_MODES) != "zeros":
        sizes = (n + sum(pair) for n, pair in zip(shapes[0][2:], placement.amounts, strict=True))
        shapes[0], placement = (*shapes[0][:2], *sizes), placement.without_padding()
    geometry = geometry_of(shapes[0], shapes[1], *placement, groups)
    method = _method(geometry, check_method("method", method), device_type, like)
    if method in METHODS:
        return plan_of_step(geometry, device_type, method)
    return products.plan_with_backends(geometry, method, device_type, like)


class _Placement(NamedTuple):
    """Where the taps of a kernel fall on an unbounded map."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    amounts: Amounts

    def without_padding(self) -> _Placement:
        """Return the same on a map that was padded."""
        return self._replace(amounts=((0, 0),) * len(self.amounts))


def _place(
    kernel: Sequence[int],
    stride: int | Sequence[int],
    padding: int | str | Sequence[int],
    dilation: int | Sequence[int],
    causal: bool,
) -> _Placement:
    """Check and complete the arguments that place a kernel."""
    arguments = (tuple(kernel), stride, padding, dilation, causal)
    # Compilers trace no lookups, sizes may be open, and sequences are no keys.
    if torch.compiler.is_compiling() or any(
        type(part) not in (int, str, bool) for part in (*kernel, *arguments[1:])
    ):
        return _checked_placement(*arguments)
    return _remembered_placement(*arguments)


def _checked_placement(
    kernel: tuple[int, ...],
    stride: int | Sequence[int],
    padding: int | str | Sequence[int],
    dilation: int | Sequence[int],
    causal: bool,
) -> _Placement:
    strides = int_tuple("stride", stride, len(kernel))
    dilations = int_tuple("dilation", dilation, len(kernel))
    reach = tuple(d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
    return _Placement(strides, dilations, padding_amounts(padding, reach, causal))


_remembered_placement = lru_cache(maxsize=4096, typed=True)(_checked_placement)


def _padded(input: Tensor, placement: _Placement, mode: str) -> tuple[Tensor, _Placement]:
    """Pad by what is no zeros; those are left to the products."""
    if mode == "zeros":
        return input, placement
    return pad(input, placement.amounts, mode), placement.without_padding()


def _method(
    geometry: Geometry, method: str, device_type: str, like: Tensor | None, *, measure: bool = False
) -> str:
    """Return the method that is forced, that of back ends, or ``"direct"`` for few taps."""
    if method == "auto":
        method = forced_method()
    if method == "auto" or method not in METHODS:
        method = products.method_with_backends(geometry, method, device_type, like, measure=measure)
    if method == "auto" and geometry.taps <= FEW and max(geometry.kernel) <= 5:
        return layout_of_few(geometry, device_type, like)
    return method


def _shortcut(
    key: shortcuts.Key | None, input: Tensor, weight: Tensor, geometry: Geometry, method: str
) -> shortcuts.Shortcut | None:
    """Return the one call that this comes to; with gradients, the others have plans too."""
    if key is None or method not in METHODS:
        return None
    if torch.is_grad_enabled():
        layout = one_layout(input, weight, geometry, method)
    elif method == "auto" and not is_tuning():
        layout = plan_for(geometry, input.device.type).output.method
    else:
        layout = method
    if layout in ("direct", "channels_last"):
        last = layout == "channels_last"
        return shortcuts.find(key, input, weight, geometry, channels_last=last)
    return None


def correlate_with_bias(
    input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, method: str
) -> Tensor:
    """Correlate what has been checked and padded (but with zeros), and add the bias."""
    layout = one_layout(input, weight, geometry, method) if method in METHODS else None
    if layout is not None:
        last = layout == "channels_last"
        return direct.output(input, weight, geometry, bias, channels_last=last)
    dtype, operand = result_dtype(input), _operand_dtype(geometry, input, method)
    with no_autocast(input.device.type):
        tensors = [input, weight] if bias is None else [input, weight, bias]
        tensors = [tensor.to(operand) for tensor in tensors]
        computed = correlate if method in METHODS else products.correlate
        output = computed(tensors[0], tensors[1], geometry, method)
        return add_bias(output, None if bias is None else tensors[2]).to(dtype)


def _operand_dtype(geometry: Geometry, input: Tensor, method: str) -> torch.dtype:
    """Dtype of what the products take: autocast rounds it, but where all of them are transforms.

    To be asked where autocast can still be seen.
    """
    transforms_alone = method == "fft" or (
        method == "auto"
        and not torch.compiler.is_compiling()
        and autocast_is_on(input.device.type)
        and plan_for(geometry, input.device.type).is_spectral
    )
    return spectral_dtype(input) if transforms_alone else result_dtype(input)
