r"""The three products of a circular convolution with filters given by their spectrum.

With $H$ the filters, at each frequency a matrix of channels, the output is $Y = H X$, the gradient
of the input $H^\dagger G$, and that of the filters $G X^\dagger$, each frequency weighted by how
often it counts in the inverse transform. An output smaller than the input has the lowest
frequencies alone, and so have then the spectra and the filters (see ``cropped_spectra``).

Filters are real tensors ``(2, out, in / groups, *half)`` of real and imaginary parts. Those of
several channels are matrices, multiplied in real numbers, which want the frequencies first: a
filter that lies so in memory (see ``frequencies_first``) is used where it lies. Those of single
channels are multiplied elementwise, in chunks that stay in a processor's caches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sizeless.functional.constants import constant
from sizeless.functional.cropped_spectra import (
    fold_,
    half_of,
    to_maps,
    to_spectra,
    waves_of,
    weigh_,
)
from sizeless.functional.kept_spectra import kept_spectra
from sizeless.functional.operands import has_channels_last

WORKSPACE = 1 << 21
"""Bytes that the spectra of one chunk of maps may take."""

SMALL = 64
"""Most points of a map whose transform is one matrix product, on a processor."""


class Shape(NamedTuple):
    """Counts of a circular convolution."""

    batch: int
    groups: int
    inputs: int
    """Of one group."""
    outputs: int
    """Of one group."""
    size: tuple[int, ...]
    """Of the maps before."""
    target: tuple[int, ...]
    """Of the maps after, no axis of which is longer."""

    @property
    def waves(self) -> tuple[int, ...]:
        """Waves of each axis that the maps after can hold."""
        return waves_of(self.size, self.target)

    @property
    def half(self) -> tuple[int, ...]:
        """Frequencies of a half spectrum on each axis."""
        return half_of(self.waves)

    @property
    def frequencies(self) -> int:
        """How many frequencies a half spectrum has."""
        return math.prod(self.half)


def blank_map(like: Tensor, channels: int, size: tuple[int, ...]) -> Tensor:
    """Return an empty map of these channels and size, in the dtype and layout of ``like``."""
    batch = like.shape[0]
    if has_channels_last(like):
        # A view could not be changed in place afterwards, by an activation say.
        laid_out = like.new_empty((batch, *size, channels), device="meta").movedim(-1, 1)
        return like.new_empty_strided(laid_out.shape, laid_out.stride())
    return like.new_empty(batch, channels, *size)


def frequencies_first(parts: Tensor) -> Tensor:
    """Return filters ``(2, out, in, *half)`` as ``(2, *half, out, in)``."""
    return parts.movedim((1, 2), (-2, -1))


def blank_filter(like: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Return empty filters, laid out in memory as their product makes them."""
    out = shape.groups * shape.outputs
    if shape.inputs == 1:
        return like.new_empty((2, out, 1, *shape.half), dtype=dtype)
    return like.new_empty((2, *shape.half, out, shape.inputs), dtype=dtype).movedim(
        (-2, -1), (1, 2)
    )


def transform(maps: Tensor, shape: Shape) -> Tensor:
    """Return the half spectra of ``(N, C, *map)``, new ones, of maps before or after."""
    waves = shape.waves
    leading, size = maps.shape[: -len(waves)], tuple(maps.shape[-len(waves) :])
    if not _is_small(maps, size):
        return to_spectra(maps, waves)
    matrix = constant(_fourier_matrix, size, waves, maps.dtype, maps.device)
    values = maps.reshape(-1, math.prod(size)) @ matrix
    return torch.view_as_complex(values.view(*leading, *shape.half, 2))


def write_inverse(spectra: Tensor, bias: Tensor | None, shape: Shape, place: Tensor) -> None:
    """Transform spectra, which are overwritten, to maps before or after, into ``place``."""
    values = inverse(spectra, shape, tuple(place.shape[2:]))
    if bias is not None:
        values.add_(bias.view(-1, *(1,) * len(shape.size)))
    place.copy_(values)


def inverse(spectra: Tensor, shape: Shape, size: tuple[int, ...]) -> Tensor:
    """Return maps of ``size``, from spectra which may be overwritten."""
    leading, waves = spectra.shape[: -len(size)], shape.waves
    if not _is_small(spectra, size):
        return to_maps(spectra, waves, size)
    values = torch.view_as_real(spectra.contiguous()).view(-1, 2 * shape.frequencies)
    matrix = constant(_inverse_matrix, size, waves, values.dtype, values.device)
    return (values @ matrix).view(*leading, *size)


def _is_small(tensor: Tensor, size: tuple[int, ...]) -> bool:
    return math.prod(size) <= SMALL and tensor.device.type == "cpu"


def _fourier_matrix(
    size: tuple[int, ...], waves: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    points = math.prod(size)
    units = torch.eye(points, dtype=torch.float64, device=device).view(points, *size)
    return torch.view_as_real(to_spectra(units, waves).contiguous()).reshape(points, -1).to(dtype)


def _inverse_matrix(
    size: tuple[int, ...], waves: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    points = math.prod(size)
    rows = _fourier_matrix(size, waves, torch.float64, device).view(points, *half_of(waves), 2)
    return weigh_(rows.clone(), waves, points, -2).flatten(1).t().to(dtype).contiguous()


def output(
    input: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    shape: Shape,
    *,
    adjoint: bool,
    kept: Tensor | None = None,
) -> Tensor:
    """Return the convolution, or its adjoint: the gradient of the input from that of the output.

    Args:
        input: Maps before, or for the adjoint those after.
        filter: ``(2, out, in / groups, *half)``.
        bias: ``(out,)`` or ``None``.
        shape: The counts of the convolution.
        adjoint: Whether to return the adjoint.
        kept: Where the spectra of the input are written, conjugate; for single channels.
    """
    channels, size = (shape.inputs, shape.size) if adjoint else (shape.outputs, shape.target)
    result = blank_map(input, shape.groups * channels, size)
    if shape.batch == 0:
        return result
    if shape.inputs == 1:
        _output_by_elements(input, filter, bias, shape, adjoint, result, kept)
    else:
        _output_by_matrices(input, filter, bias, shape, adjoint, result)
    return result


def gradients(
    grad: Tensor, signal: Tensor, filter: Tensor | None, shape: Shape, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor]:
    """Return the gradients of the input, if ``filter`` is given, and of the filters.

    Args:
        grad: Gradient of the output.
        signal: The input, or its conjugate spectra, complex, for filters of single channels.
        filter: ``(2, out, in / groups, *half)`` or ``None``.
        shape: The counts of the convolution.
        dtype: Of the filters.
    """
    like = grad if signal.is_complex() else signal
    channels = shape.groups * shape.inputs
    to_input = None if filter is None else blank_map(like, channels, shape.size)
    to_filter = blank_filter(like, shape, dtype)
    if shape.batch == 0:
        return to_input, to_filter.zero_()
    multiply = _gradients_by_elements if shape.inputs == 1 else _gradients_by_matrices
    multiply(grad, signal, filter, shape, to_input, to_filter)
    return to_input, to_filter


def _signal(input: Tensor, dtype: torch.dtype, shape: Shape) -> Tensor:
    """Spectra of the input."""
    return transform(input.to(dtype), shape)


def _answer(grad: Tensor, dtype: torch.dtype, shape: Shape) -> Tensor:
    """Spectra of the gradient of the output, scaled for the size of the input's gradient."""
    spectra = transform(grad.to(dtype), shape)
    if shape.size == shape.target:
        return spectra
    return spectra.mul_(math.prod(shape.size) / math.prod(shape.target))


# ---- filters of single channels ------------------------------------------------------------------


def _chunks(shape: Shape) -> Iterator[tuple[slice, list[slice]]]:
    """Yield ranges of groups, each with the ranges of maps in which they are taken."""
    # Half of them as the map has them, half of them as they are cropped.
    one = 4 * (math.prod(half_of(shape.size)) + shape.frequencies) * shape.outputs
    parts = -(-shape.groups // max(WORKSPACE // one, 1))
    groups = -(-shape.groups // parts)
    step = max(WORKSPACE // (one * groups), 1)
    for part in _ranges(shape.groups, groups):
        yield part, _ranges(shape.batch, step)


def _ranges(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _channels(groups: slice, each: int) -> slice:
    return slice(groups.start * each, groups.stop * each)


def _filter_maps(filter: Tensor, groups: slice, shape: Shape, *, conjugate: bool) -> Tensor:
    """Return the spectra of some groups' filters, ``(groups, multiplier, *half)``."""

    def combine() -> Tensor:
        real, imag = filter[:, _channels(groups, shape.outputs), 0]
        spectrum = fold_(torch.complex(real, imag), shape.waves)
        spectrum = spectrum.conj_physical_() if conjugate else spectrum
        return spectrum.unflatten(0, (-1, shape.outputs))

    channels = (groups.start, groups.stop, shape.outputs)
    return kept_spectra(filter, ("circular", channels, shape.waves[-1], conjugate), combine)


def _output_by_elements(
    input: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    shape: Shape,
    adjoint: bool,
    result: Tensor,
    kept: Tensor | None,
) -> None:
    read = _answer if adjoint else _signal
    for groups, ranges in _chunks(shape):
        outputs = _channels(groups, shape.outputs)
        sources, targets = (outputs, groups) if adjoint else (groups, outputs)
        spectra = _filter_maps(filter, groups, shape, conjugate=adjoint)
        offset = None if bias is None else bias[targets]
        for maps in ranges:
            signal = read(input[maps, sources], filter.dtype, shape)
            if kept is not None:
                torch.conj_physical(signal, out=kept[maps, groups])
            if shape.outputs == 1:
                product = signal.mul_(spectra[:, 0])
            elif adjoint:
                product = signal.unflatten(1, spectra.shape[:2]).mul_(spectra).sum(2)
            else:
                product = (signal.unsqueeze(2) * spectra).flatten(1, 2)
            write_inverse(product, offset, shape, result[maps, targets])


def _gradients_by_elements(
    grad: Tensor,
    signal: Tensor,
    filter: Tensor | None,
    shape: Shape,
    to_input: Tensor | None,
    to_filter: Tensor,
) -> None:
    dtype = to_filter.dtype
    for groups, ranges in _chunks(shape):
        outputs = _channels(groups, shape.outputs)
        total = spectra = None
        if filter is not None:
            spectra = _filter_maps(filter, groups, shape, conjugate=True)
        for maps in ranges:
            part = signal[maps, groups]
            if not part.is_complex():
                part = _signal(part, dtype, shape).conj_physical_()
            answer = _answer(grad[maps, outputs], dtype, shape).unflatten(1, (-1, shape.outputs))
            product = part.unsqueeze(2) * answer
            added = product.sum(0) if len(product) > 1 else product[0]
            total = added if total is None else total.add_(added)
            if spectra is not None and to_input is not None:
                product = answer.mul_(spectra)
                product = product[:, :, 0] if shape.outputs == 1 else product.sum(2)
                write_inverse(product, None, shape, to_input[maps, groups])
        if total is not None:
            parts = torch.view_as_real(weigh_(total, shape.waves, math.prod(shape.size))).movedim(
                -1, 0
            )
            to_filter[:, outputs, 0].copy_(parts.flatten(1, 2))


# ---- filters of several channels -----------------------------------------------------------------


def _rows(spectra: Tensor, shape: Shape) -> Tensor:
    """Return spectra as matrices ``(frequencies * groups, 2 * N, channels)``, imaginary last."""
    parts = torch.view_as_real(spectra.contiguous())
    parts = parts.view(shape.batch, shape.groups, -1, shape.frequencies, 2)
    rows = parts.permute(3, 1, 4, 0, 2).contiguous()
    return rows.view(shape.frequencies * shape.groups, 2 * shape.batch, -1)


def _spectra(rows: Tensor, shape: Shape) -> Tensor:
    """Return the spectra of maps that such matrices hold."""
    rows = rows.view(shape.frequencies, shape.groups, 2, shape.batch, -1)
    spectra = torch.view_as_complex(rows.permute(3, 1, 4, 0, 2).contiguous())
    return fold_(spectra.view(shape.batch, -1, *shape.half), shape.waves)


def _matrices(filter: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return real and imaginary parts, ``(frequencies * groups, outputs, inputs)``."""
    parts = frequencies_first(filter).contiguous()
    real, imag = parts.view(2, -1, shape.outputs, shape.inputs)
    return real, imag


def _turned(rows: Tensor, sign: float) -> Tensor:
    """Multiply by the imaginary unit, times ``sign``."""
    real, imag = rows.chunk(2, dim=1)
    return torch.cat((imag * -sign, real * sign), dim=1)


def _output_by_matrices(
    input: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    shape: Shape,
    adjoint: bool,
    result: Tensor,
) -> None:
    signal = _rows((_answer if adjoint else _signal)(input, filter.dtype, shape), shape)
    product = _multiplied(signal, filter, shape, adjoint=adjoint)
    write_inverse(_spectra(product, shape), bias, shape, result)


def _multiplied(signal: Tensor, filter: Tensor, shape: Shape, *, adjoint: bool) -> Tensor:
    real, imag = _matrices(filter, shape)
    if not adjoint:
        real, imag = real.mT, imag.mT
    product = torch.bmm(signal, real)
    return product.baddbmm_(_turned(signal, -1.0 if adjoint else 1.0), imag)


def _gradients_by_matrices(
    grad: Tensor,
    input: Tensor,
    filter: Tensor | None,
    shape: Shape,
    to_input: Tensor | None,
    to_filter: Tensor,
) -> None:
    dtype = to_filter.dtype
    answer = _rows(_answer(grad, dtype, shape), shape)
    if filter is not None and to_input is not None:
        product = _multiplied(answer, filter, shape, adjoint=True)
        write_inverse(_spectra(product, shape), None, shape, to_input)
    signal = _rows(_signal(input, dtype, shape), shape)
    weigh_(signal.view(*shape.half, -1), shape.waves, math.prod(shape.size), len(shape.size) - 1)
    real, imag = _matrices(to_filter, shape)
    torch.bmm(answer.mT, signal, out=real)
    torch.bmm(_turned(answer, -1.0).mT, signal, out=imag)
