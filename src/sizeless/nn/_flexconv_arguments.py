"""The arguments of FlexConv: what is allowed, and what is meant where nothing is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._validate import boolean, float_tuple, int_tuple, one_of, positive_int
from sizeless.kernels import ContinuousKernel
from sizeless.nn.crop import REACH

PAPER_SIGMA = 0.075
"""The paper's initial width, in units of half the largest kernel."""

Padding = int | Sequence[int] | str
KernelFactory = Callable[[int, int], ContinuousKernel]
"""Makes the kernel network of ``(ndim, out_features)``; also takes ``device`` and ``dtype``."""


def check_causal(causal: bool, ndim: int, layer: str) -> bool:
    """Return ``causal`` if a layer of ``ndim`` axes can be it."""
    if boolean("causal", causal) and ndim != 1:
        raise ValueError(
            f"causal=True needs a time axis, and {layer} has none: use FlexConv1d, or causal=False"
        )
    return causal


def check_kernel_size(kernel_size: int | Sequence[int], ndim: int, causal: bool) -> tuple[int, ...]:
    """Return the largest size of each axis, odd unless the kernel is causal."""
    sizes = int_tuple("kernel_size", kernel_size, ndim)
    if not causal and any(n % 2 == 0 for n in sizes):
        raise ValueError(
            f"kernel_size is the maximum size and must be odd, so that the kernel has a middle "
            f"tap; got {kernel_size!r}: use the next odd number"
            + (", or causal=True, which allows any length" if ndim == 1 else "")
        )
    return sizes


def check_padding(padding: Padding, ndim: int, causal: bool) -> str | tuple[int, ...]:
    """Return ``"same"``, or the padding of each axis in pixels; ``"valid"`` is 0."""
    if isinstance(padding, str):
        one_of("padding", padding, ("same", "valid"))
        checked: str | tuple[int, ...] = "same" if padding == "same" else (0,) * ndim
    else:
        checked = int_tuple("padding", padding, ndim, minimum=0)
    if causal and checked != "same":
        raise ValueError(
            f"causal=True pads the past only, so padding must be 'same', got {padding!r}"
        )
    return checked


def fit_padding(
    input: Tensor,
    padding: str | tuple[int, ...],
    kernel_size: tuple[int, ...],
    size: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[Tensor, Padding]:
    """Return the padding for a kernel of ``size`` instead of the largest, ``kernel_size``.

    Where it would be negative, the input is cropped.
    """
    if isinstance(padding, str):
        return input, padding
    fitted = []
    for axis, (p, largest, now, d) in enumerate(
        zip(padding, kernel_size, size, dilation, strict=True), start=2
    ):
        needed = d * (largest - 1) + 1 - 2 * p
        if input.shape[axis] < needed:
            raise ValueError(
                f"input must have at least {needed} samples on spatial axis {axis - 2} for the "
                f"largest kernel ({largest} taps) with padding={p}, got {input.shape[axis]}; "
                "use a larger padding, or padding='same'"
            )
        effective = p - d * (largest - now) // 2
        if effective < 0:
            input = input.narrow(axis, -effective, input.shape[axis] + 2 * effective)
        fitted.append(max(effective, 0))
    return input, tuple(fitted)


def initial_sizes(
    init_size: float | Sequence[float] | None, kernel_size: tuple[int, ...], causal: bool
) -> tuple[float, ...]:
    """Return the size of each axis at the start, in taps."""
    if init_size is None:
        return tuple(_default_size(n, causal) for n in kernel_size)
    sizes = float_tuple("init_size", init_size, len(kernel_size))
    for size, largest in zip(sizes, kernel_size, strict=True):
        if not 1 <= size <= largest:
            raise ValueError(
                f"init_size must lie between 1 and kernel_size={kernel_size} taps, got "
                f"{init_size!r}"
            )
        if not causal and size % 2 == 0:
            raise ValueError(
                f"init_size must be odd like the kernel, got {init_size!r}; use an odd number"
            )
    return sizes


def _default_size(largest: int, causal: bool) -> float:
    """The paper's initial width, and at least three taps."""
    reach = REACH * PAPER_SIGMA * (largest - 1) / 2
    paper = reach + 0.5 if causal else 2 * reach
    return min(max(paper, 3.0), largest)


def minimal_sizes(
    min_size: int | None, init_sizes: tuple[float, ...], causal: bool
) -> tuple[int, ...]:
    """Return the smallest size of each axis, at most the size at the start."""
    if min_size is None:
        smallest = 2 if causal else 3
        return tuple(min(smallest, int(size)) for size in init_sizes)
    if positive_int("min_size", min_size) % 2 == 0 and not causal:
        raise ValueError(f"min_size must be odd like the kernel, got {min_size}; use an odd number")
    if any(min_size > size for size in init_sizes):
        raise ValueError(
            f"min_size must not exceed the initial size {init_sizes}, got {min_size}; set "
            "init_size to at least as much"
        )
    return (min_size,) * len(init_sizes)


def make_kernel(
    factory: KernelFactory,
    ndim: int,
    features: int,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> ContinuousKernel:
    """Return the network that ``factory`` makes, if it is a kernel network that fits."""
    if isinstance(factory, nn.Module) or not callable(factory):
        shown = f"{type(factory).__name__}(...)" if callable(factory) else repr(factory)
        raise TypeError(
            "kernel must be a class or function (ndim, out_features, device, dtype) that makes a "
            f"kernel network, got {shown}; pass a class such as sizeless.kernels.MAGNet, or "
            "functools.partial(class, ...)"
        )
    try:
        make: Callable[..., Any] = factory
        kernel = make(ndim, features, device=device, dtype=dtype)
    except TypeError as error:
        raise TypeError(
            f"kernel must make a kernel network when called as kernel({ndim}, {features}, "
            f"device={device!r}, dtype={dtype!r}), got {factory!r}, which failed: {error}"
        ) from error
    if not isinstance(kernel, ContinuousKernel):
        raise TypeError(
            f"kernel must return a sizeless.kernels.ContinuousKernel, got {type(kernel).__name__}"
        )
    if (kernel.ndim, kernel.out_features) != (ndim, features):
        raise ValueError(
            f"kernel must return a network of ndim={ndim} and out_features={features}, as it is "
            f"asked to, got ndim={kernel.ndim} and out_features={kernel.out_features}"
        )
    return kernel
