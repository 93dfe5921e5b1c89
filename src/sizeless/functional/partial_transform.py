"""Transforms between a few taps and the half spectrum of a long axis.

Kernels are mostly zeros beside the axis that they are transformed on. A product with the few
columns of the Fourier matrix that meet their taps costs less than a transform of the padded
kernel, and leaves the frequencies first, as the products of channel matrices want them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional.fft import irfftn, rfftn

_GATHER = 4.0
"""Multiply-adds in a matrix product that take as long as one point of a fast transform's pass."""


def spectra_of_taps(
    weight: Tensor, lengths: tuple[int, ...], dilation: tuple[int, ...], *, conjugate: bool
) -> Tensor:
    """Transform kernels ``(out, in, *kernel)`` to ``(frequencies, out, in)``."""
    channels, kernel = weight.shape[:2], tuple(weight.shape[2:])
    if not by_matrix(kernel, lengths):
        spectra = rfftn(spread(weight, dilation), lengths, tuple(range(2, weight.dim())))
        spectra = spectra.flatten(0, 1).flatten(1).t()
        spectra = spectra.conj() if conjugate else spectra
        return spectra.resolve_conj().contiguous().unflatten(1, channels)
    axes = tuple(range(2, weight.dim()))
    state = weight.permute(*axes, 0, 1).to(weight.dtype.to_complex())
    shape: list[int] = list(state.shape)
    for axis in reversed(range(len(lengths))):
        matrix = _fourier_matrix(
            lengths[axis],
            kernel[axis],
            dilation[axis],
            axis == len(lengths) - 1,
            conjugate,
            weight.dtype,
            weight.device,
        )
        prefix, rest = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        state = torch.matmul(matrix, state.reshape(prefix, shape[axis], rest))
        shape[axis] = matrix.shape[0]
    return state.reshape(-1, *channels)


def taps_of_spectra(
    spectra: Tensor,
    kernel: tuple[int, ...],
    lengths: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """Transform half spectra ``(frequencies, out, in)`` back, to their taps alone."""
    channels = spectra.shape[1:]
    half = (*lengths[:-1], lengths[-1] // 2 + 1)
    real = spectra.dtype.to_real()
    if not by_matrix(kernel, lengths):
        rows = spectra.flatten(1).t().contiguous().unflatten(1, half)
        values = irfftn(rows, lengths, tuple(range(1, 1 + len(lengths))))
        places = tuple(slice(0, d * (k - 1) + 1, d) for d, k in zip(dilation, kernel, strict=True))
        return values[(slice(None), *places)].reshape(*channels, *kernel)
    state, shape = spectra, [*half, math.prod(channels)]
    for axis, length in enumerate(lengths):
        last = axis == len(lengths) - 1
        matrix = _fourier_matrix(
            length, kernel[axis], dilation[axis], last, False, real, spectra.device
        )
        inverse = matrix.mH * _multiplicity(length, last, spectra).to(real)
        prefix, rest = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        state = torch.matmul(inverse, state.reshape(prefix, shape[axis], rest))
        shape[axis] = kernel[axis]
    values = state.real.reshape(*kernel, *channels)
    axes = tuple(range(len(kernel)))
    return values.permute(len(kernel), len(kernel) + 1, *axes).contiguous()


def by_matrix(kernel: tuple[int, ...], lengths: tuple[int, ...]) -> bool:
    """Whether products with parts of the Fourier matrix cost less than padded transforms."""
    points = math.prod(lengths)
    work = matrix_work(kernel, (*lengths[:-1], lengths[-1] // 2 + 1))
    return work <= _GATHER * points * max(math.log2(points), 1)


def matrix_work(kernel: tuple[int, ...], half: tuple[int, ...]) -> int:
    """Complex multiply-adds that turn one kernel's taps into its half spectrum."""
    work, shape = 0, list(kernel)
    for axis in reversed(range(len(kernel))):
        shape[axis] = half[axis]
        work += math.prod(shape) * kernel[axis]
    return work


@lru_cache(maxsize=64)
def _fourier_matrix(
    length: int,
    taps: int,
    step: int,
    half: bool,
    conjugate: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Columns of the Fourier matrix for taps at 0, step, ..., as ``(frequencies, taps)``."""
    frequencies = torch.arange(length // 2 + 1 if half else length, device="cpu")
    angles = torch.outer(frequencies, step * torch.arange(taps, device="cpu")).remainder(length)
    turns = angles.to(torch.float64) * ((2 if conjugate else -2) * math.pi / length)
    matrix = torch.polar(torch.ones_like(turns), turns)
    return matrix.to(dtype=dtype.to_complex(), device=device)


def multiplicities(lengths: tuple[int, ...], like: Tensor) -> Tensor:
    """Weight of each frequency of a half spectrum in the inverse transform, ``(frequencies, 1)``.

    Those of the last axis that have no counterpart of their own stand for two.
    """
    last = len(lengths) - 1
    weights = [_multiplicity(length, axis == last, like) for axis, length in enumerate(lengths)]
    return torch.stack(torch.meshgrid(*weights, indexing="ij")).prod(0).reshape(-1, 1)


def _multiplicity(length: int, half: bool, like: Tensor) -> Tensor:
    real = like.dtype.to_real()
    if not half:
        return torch.full((length,), 1 / length, dtype=real, device=like.device)
    weights = torch.full((length // 2 + 1,), 2 / length, dtype=real, device=like.device)
    weights[0] = 1 / length
    if length % 2 == 0:
        weights[-1] = 1 / length
    return weights


def spread(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Insert ``dilation - 1`` zeros between neighbouring taps, or samples of any map."""
    for axis, step in enumerate(dilation, start=2):
        if step > 1:
            taps = weight.shape[axis]
            cells = F.pad(weight.movedim(axis, -1).unsqueeze(-1), (0, step - 1))
            weight = cells.flatten(-2).narrow(-1, 0, step * (taps - 1) + 1).movedim(-1, axis)
    return weight
