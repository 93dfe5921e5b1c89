"""What the operations on spectra share: lengths, precision and transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from sizeless._precision import at_least_float32, autocast_is_on
from sizeless._validate import positive_int


def good_length(n: int) -> int:
    r"""Return the smallest fast transform length that is at least ``n``.

    Fast lengths are even and 5-smooth, $2^a 3^b 5^c$ with $a \ge 1$: real transforms
    of odd length cost about twice as much, those of prime length five times. An axis of length 1
    needs no transform and stays as it is.

    Args:
        n: the length needed, at least 1.

    Returns:
        The transform length.

    Raises:
        TypeError: if ``n`` is no int.
        ValueError: if ``n`` is below 1.

    Examples:
        >>> [good_length(n) for n in (1, 2, 7, 11, 161, 1025)]
        [1, 2, 8, 12, 162, 1080]
    """
    if positive_int("n", n) == 1:
        return 1
    best = 1 << (n - 1).bit_length()
    power5 = 1
    while 2 * power5 < best:
        power35 = power5
        while 2 * power35 < best:
            quotient = -(-n // power35)
            power2 = max(2, 1 << (quotient - 1).bit_length())
            best = min(best, power2 * power35)
            power35 *= 3
        power5 *= 5
    return best


def result_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which ``torch.nn.functional.conv2d`` would take and return ``tensor``.

    That is the dtype of ``torch.autocast`` where it is on, and else the tensor's own. Autocast
    leaves float64 alone.
    """
    if tensor.dtype != torch.float64 and autocast_is_on(tensor.device.type):
        return torch.get_autocast_dtype(tensor.device.type)
    return tensor.dtype


def spectral_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype for transforms of ``tensor``: float64 for float64, float32 for the rest."""
    return at_least_float32(tensor.dtype)


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which ``torch.autocast`` rounds nothing to half precision."""
    if autocast_is_on(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def rfftn(input: Tensor, sizes: Sequence[int], axes: Sequence[int]) -> Tensor:
    """Transform as ``torch.fft.rfftn``, an empty batch too, which some builds of torch refuse."""
    if input.numel():
        return torch.fft.rfftn(input, s=sizes, dim=axes)
    halved = [*sizes[:-1], sizes[-1] // 2 + 1]
    return input.to(input.dtype.to_complex()).reshape(_resized(input, halved, axes))


def irfftn(spectrum: Tensor, sizes: Sequence[int], axes: Sequence[int]) -> Tensor:
    """Transform back as ``torch.fft.irfftn``, an empty batch too."""
    if spectrum.numel():
        return torch.fft.irfftn(spectrum, s=sizes, dim=axes)
    return spectrum.real.reshape(_resized(spectrum, sizes, axes))


def _resized(tensor: Tensor, sizes: Sequence[int], axes: Sequence[int]) -> list[int]:
    shape = list(tensor.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return shape


def transform_flops(size: Sequence[int]) -> int:
    r"""Operations of one real transform, $\tfrac52 n \log_2 n$ for a map of $n$ samples."""
    points = math.prod(size)
    return round(2.5 * points * math.log2(max(points, 1)))
