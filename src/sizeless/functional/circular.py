"""Circular convolution with filters given by their spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sizeless._validate import ints, positive_int, real_tensor
from sizeless.functional.circular_products import convolve_spectra
from sizeless.functional.fft import irfftn, no_autocast, result_dtype, spectral_dtype
from sizeless.functional.operands import check_bias, check_filter, spatial_dims


def circular_convolve(
    input: Tensor, real: Tensor, imag: Tensor, bias: Tensor | None = None, groups: int = 1
) -> Tensor:
    r"""Convolve a feature map circularly with filters given by half of their spectrum.

    $$
    y = \mathcal F^{-1}\big(\mathcal F(x) \cdot W_H\big) + b, \qquad
    W_H[k] = \tfrac12 \big( W[k] + \overline{W[-k \bmod N]} \big)
    $$

    with the transforms of ``torch.fft.rfftn`` (unnormalised forward). This is a true convolution,
    $y[p] = \sum_m w[m]\, x[(p - m) \bmod N]$, with a kernel as large as the map. A half
    spectrum holds both members of a pair $k, -k$ only where index 0 (and for an even size
    the Nyquist index) of the last axis is its own negative; there the Hermitian part
    $W_H$ is taken explicitly, as what is left has no real kernel and transform libraries
    disagree about it.

    Half precision is computed in float32, also under ``torch.autocast``; the dtype returned is
    that of a convolution.

    Args:
        input: feature map of shape ``(N, C, *map)`` with 1, 2 or 3 spatial axes of any size.
        real: real part of the filters' half spectra, in the layout of ``torch.fft.rfftn``:
            ``(out, C / groups, *map[:-1], map[-1] // 2 + 1)``.
        imag: imaginary part, of the same shape.
        bias: ``(out,)`` or None.
        groups: channel groups; ``groups=C`` is depthwise.

    Returns:
        Feature map of shape ``(N, out, *map)`` in the memory layout of ``input``.

    Raises:
        TypeError: for tensors that are not floating-point or of different dtypes.
        ValueError: for shapes, channel counts or devices that do not fit.

    Source:
        Grabinski, Keuper, Keuper, "As large as it gets: Studying Infinitely Large Convolutions
        via Neural Implicit Frequency Filters", TMLR 2024, section 3.

    Examples:
        >>> import torch
        >>> image = torch.randn(2, 3, 5, 8)
        >>> ones, zeros = torch.ones(3, 1, 5, 5), torch.zeros(3, 1, 5, 5)
        >>> identity = circular_convolve(image, ones, zeros, groups=3)
        >>> torch.allclose(identity, image, atol=1e-6)
        True
    """
    spatial_dims(input)
    map_size = tuple(input.shape[2:])
    for name, part in (("real", real), ("imag", imag)):
        check_filter(name, part, input, groups)
        _check_half_shape(name, tuple(part.shape), tuple(real.shape[:2]), map_size)
    check_bias(bias, real.shape[0], input)
    dtype = spectral_dtype(input)
    filter = torch.stack((real, imag)).to(dtype)
    output = convolve_spectra(input, filter, None if bias is None else bias.to(dtype), groups)
    return output.to(result_dtype(input))


def hermitian_half(real: Tensor, imag: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    r"""Return half of the Hermitian part of a full spectrum, which is all that acts on real maps.

    $$
    W_H[k] = \tfrac12 \big( W[k] + \overline{W[-k \bmod N]} \big)
    $$

    It is the even part of the real and the odd part of the imaginary half, under negation of the
    *indices* modulo $N$ (not of the frequencies: at the Nyquist index of an even size the
    two differ).

    Args:
        real: real part of a spectrum in the order of ``torch.fft.fftn``, ``(..., *map)``.
        imag: imaginary part, of the same shape.
        ndim: the number of spatial axes, the last ones.

    Returns:
        The real and imaginary parts, each ``(..., *map[:-1], map[-1] // 2 + 1)``, as
        [`circular_convolve`][sizeless.functional.circular_convolve] takes them.

    Raises:
        TypeError: for tensors that are not floating-point or of different dtypes.
        ValueError: if the shapes differ or have fewer than ``ndim`` axes.

    Examples:
        >>> import torch
        >>> spectrum = torch.fft.fft2(torch.randn(3, 1, 5, 8))
        >>> real, imag = hermitian_half(spectrum.real, spectrum.imag, ndim=2)
        >>> torch.allclose(torch.complex(real, imag), spectrum[..., :5], atol=1e-5)
        True
    """
    _check_parts(real, imag)
    if real.shape != imag.shape or real.dim() < positive_int("ndim", ndim):
        raise ValueError(
            f"real and imag must have one shape, of at least {ndim} axes, got "
            f"{tuple(real.shape)} and {tuple(imag.shape)}"
        )
    axes = tuple(range(-ndim, 0))
    half = real.shape[-1] // 2 + 1
    even = 0.5 * (real + _negate_index(real, axes))
    odd = 0.5 * (imag - _negate_index(imag, axes))
    return even.narrow(-1, 0, half), odd.narrow(-1, 0, half)


def spatial_kernel(real: Tensor, imag: Tensor, map_size: Sequence[int]) -> Tensor:
    r"""Return the real kernels of half spectra, their origin moved to the middle.

    $$
    w[m] = \mathcal F^{-1}(W_H)\big[(m - \lfloor N / 2 \rfloor) \bmod N\big]
    $$

    Args:
        real: real part of the half spectra, ``(..., *map[:-1], map[-1] // 2 + 1)``.
        imag: imaginary part, of the same shape.
        map_size: the size of the map, one int per spatial axis.

    Returns:
        Kernels of shape ``(..., *map)``; lag 0 lies at index ``floor(N / 2)`` of each axis.

    Raises:
        TypeError: for tensors that are not floating-point or of different dtypes, or if
            ``map_size`` holds no ints.
        ValueError: if the shapes do not fit ``map_size``.

    Examples:
        >>> import torch
        >>> kernel = spatial_kernel(torch.ones(1, 1, 3), torch.zeros(1, 1, 3), (5,))
        >>> kernel.argmax().item()
        2
    """
    map_size = ints("map_size", map_size)
    _check_parts(real, imag)
    for name, part in (("real", real), ("imag", imag)):
        leading = tuple(real.shape[: -len(map_size)])
        _check_half_shape(name, tuple(part.shape), leading, map_size)
    dtype = spectral_dtype(real)
    with no_autocast(real.device.type):
        filter = hermitian_spectrum(real.to(dtype), imag.to(dtype), map_size)
        return centred_kernel(filter, map_size).to(real.dtype)


def centred_kernel(spectrum: Tensor, map_size: tuple[int, ...]) -> Tensor:
    """Return the real kernels of Hermitian half spectra, their origin moved to the middle."""
    axes = tuple(range(-len(map_size), 0))
    return torch.fft.fftshift(irfftn(spectrum, map_size, axes), dim=axes)


def _check_parts(real: Tensor, imag: Tensor) -> None:
    if real_tensor("imag", imag).dtype != real_tensor("real", real).dtype:
        raise TypeError(
            f"imag must have the dtype of real ({real.dtype}), got {imag.dtype}; convert one of "
            "them with .to()"
        )


def _check_half_shape(
    name: str, shape: tuple[int, ...], leading: tuple[int, ...], map_size: tuple[int, ...]
) -> None:
    expected = (*leading, *map_size[:-1], map_size[-1] // 2 + 1)
    if shape != expected:
        raise ValueError(
            f"{name} must be the half spectrum of a map of size {map_size}, of shape {expected}, "
            f"got shape {shape}"
        )


def hermitian_spectrum(real: Tensor, imag: Tensor, map_size: tuple[int, ...]) -> Tensor:
    r"""Return the complex half spectrum, Hermitian where the last axis is its own negative.

    Inverse transforms of the CPU and of the GPU differ in what they make of anything else there.

    Args:
        real: real part of the half spectra, ``(..., *map[:-1], map[-1] // 2 + 1)``.
        imag: imaginary part, of the same shape.
        map_size: the size of the map.

    Returns:
        The spectrum of a real kernel, complex, of the shape of ``real``.
    """
    others = tuple(range(-len(map_size), -1))
    half, width = real.shape[-1], map_size[-1]
    nyquist = half - 1 if width % 2 == 0 else half
    pieces = [(0, 1), (1, nyquist), (nyquist, half)]
    parts = []
    for part, sign in ((real, 1.0), (imag, -1.0)):
        planes = [part[..., start:stop] for start, stop in pieces]
        for index in (0, 2):
            planes[index] = 0.5 * (planes[index] + sign * _negate_index(planes[index], others))
        parts.append(torch.cat(planes, dim=-1))
    return torch.complex(parts[0], parts[1])


def _negate_index(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return ``values[-k mod N]`` along the axes."""
    return values.flip(axes).roll((1,) * len(axes), axes) if axes else values
