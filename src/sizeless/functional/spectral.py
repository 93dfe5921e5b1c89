r"""The three products of a convolution through the Fourier transform.

With $T(x, w, g) = \sum_p g_p \sum_t w_t x_{p + t}$, the output is $\partial T / \partial g$ and
the two gradients are $\partial T / \partial x$ and $\partial T / \partial w$. At each frequency
they are products of channel matrices, whose rows are maps and blocks,

$$
Y = X W^H, \qquad \dot X = G\, W, \qquad \dot W = G^H X.
$$

Maps are cut into overlapping blocks, so that transforms stay short and spectra of kernels small;
``WORKSPACE`` and ``ROWS`` bound what is in memory at once. Spectra are made again in the backward
pass: they are larger than what they are made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sizeless.functional.blocks import (
    Blocks,
    add_input_blocks,
    input_blocks,
    join_outputs,
    output_blocks,
)
from sizeless.functional.fft import irfftn, rfftn
from sizeless.functional.geometry import Geometry
from sizeless.functional.kept_spectra import kept_spectra
from sizeless.functional.partial_transform import spectra_of_taps, spread, taps_of_spectra

WORKSPACE = 1 << 24
"""Bytes that the spectra of a chunk of kernels may take: a few of them fit in caches."""

ROWS = 1 << 22
"""The same for a chunk of maps. Larger ones come fresh from the system, page by page, each time."""


def output(input: Tensor, weight: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Return the cross-correlation, ``(N, out, *output_size)``."""
    result = input.new_empty(geometry.batch, geometry.out_channels, *geometry.output_size)
    if geometry.batch == 0:
        return result
    for inputs, outputs, part in _parts(geometry, blocks):
        multiply = _output_by_elements if part.group_inputs == 1 else _output_by_matrices
        filters = _FilterBank(weight, outputs, part, blocks)
        multiply(input[:, inputs], filters, part, blocks, result[:, outputs])
    return result


def gradients(
    grad: Tensor,
    input: Tensor | None,
    weight: Tensor | None,
    geometry: Geometry,
    blocks: Blocks,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the input, if ``weight`` is given, and weight, if ``input`` is."""
    to_input = to_weight = None
    if weight is not None:
        to_input = grad.new_empty(geometry.batch, geometry.in_channels, *geometry.size)
    if input is not None:
        shape = (geometry.out_channels, geometry.group_inputs, *geometry.kernel)
        to_weight = grad.new_zeros(shape)
    if geometry.batch == 0:
        return to_input, to_weight
    for inputs, outputs, part in _parts(geometry, blocks):
        multiply = _gradients_by_elements if part.group_inputs == 1 else _gradients_by_matrices
        multiply(
            grad[:, outputs],
            None if input is None else input[:, inputs],
            None if weight is None else _FilterBank(weight, outputs, part, blocks),
            part,
            blocks,
            None if to_input is None else to_input[:, inputs],
            None if to_weight is None else to_weight[outputs],
        )
    return to_input, to_weight


def _parts(geometry: Geometry, blocks: Blocks) -> Iterator[tuple[slice, slice, Geometry]]:
    """Yield ranges of channel groups whose spectra fit in the workspace."""
    bytes_each = 8 * blocks.frequencies * geometry.group_outputs
    if geometry.group_inputs == 1:
        bytes_each *= 2 * geometry.batch * blocks.per_map
    else:
        bytes_each *= geometry.group_inputs
    at_once = min(max(WORKSPACE // max(bytes_each, 1), 1), geometry.groups)
    inputs, outputs = geometry.group_inputs, geometry.group_outputs
    for start in range(0, geometry.groups, at_once):
        stop = min(start + at_once, geometry.groups)
        part = geometry._replace(
            groups=stop - start,
            in_channels=(stop - start) * inputs,
            out_channels=(stop - start) * outputs,
        )
        yield (
            slice(start * inputs, stop * inputs),
            slice(start * outputs, stop * outputs),
            part,
        )


class _FilterBank(NamedTuple):
    """Kernels of the outputs of some groups, and how they are transformed."""

    weight: Tensor
    outputs: slice
    geometry: Geometry
    blocks: Blocks

    def maps(self, *, conjugate: bool) -> Tensor:
        """Spectra of single-channel kernels, ``(groups, multiplier, *ones, *half)``."""
        return self._kept("maps", None, conjugate, self._maps)

    def matrices(self, chunk: slice, *, conjugate: bool) -> Tensor:
        """Spectra of a chunk of outputs, ``(frequencies * groups, outputs, inputs)``."""
        return self._kept("matrices", chunk, conjugate, partial(self._matrices, chunk))

    def _kept(
        self, kind: str, chunk: slice | None, conjugate: bool, transform: Callable[[bool], Tensor]
    ) -> Tensor:
        part = None if chunk is None else (chunk.start, chunk.stop)
        lengths, dilation = self.blocks.lengths, self.geometry.dilation
        key = (kind, self.outputs.start, self.outputs.stop, part, conjugate, lengths, dilation)
        return kept_spectra(self.weight, key, lambda: transform(conjugate))

    def _maps(self, conjugate: bool) -> Tensor:
        kernels = spread(self.weight[self.outputs], self.geometry.dilation).squeeze(1)
        spectra = rfftn(kernels, *_last(self.blocks, 1))
        if conjugate:
            spectra.conj_physical_()
        ones = (1,) * self.geometry.ndim
        return spectra.reshape(self.geometry.groups, -1, *ones, *self.blocks.half)

    def _matrices(self, chunk: slice, conjugate: bool) -> Tensor:
        groups = (self.geometry.groups, -1)
        kernels = self.weight[self.outputs].unflatten(0, groups)[:, chunk].flatten(0, 1)
        spectra = spectra_of_taps(
            kernels, self.blocks.lengths, self.geometry.dilation, conjugate=conjugate
        )
        return spectra.unflatten(1, groups).flatten(0, 1)


def _last(blocks: Blocks, first: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the transform's lengths and axes, the first of which is ``first``."""
    return blocks.lengths, tuple(range(first, first + len(blocks.lengths)))


def _output_by_elements(
    input: Tensor, filters: _FilterBank, geometry: Geometry, blocks: Blocks, result: Tensor
) -> None:
    axes = _last(blocks, 2 + geometry.ndim)
    signal = rfftn(input_blocks(input, geometry, blocks), *axes)
    spectra = filters.maps(conjugate=True)
    if geometry.group_outputs == 1:
        product = signal.mul_(spectra.squeeze(1))
    else:
        product = (signal.unsqueeze(2) * spectra).flatten(1, 2)
    result.copy_(join_outputs(irfftn(product, *axes), geometry, blocks))


def _gradients_by_elements(
    grad: Tensor,
    input: Tensor | None,
    filters: _FilterBank | None,
    geometry: Geometry,
    blocks: Blocks,
    to_input: Tensor | None,
    to_weight: Tensor | None,
) -> None:
    axes = _last(blocks, 2 + geometry.ndim)
    answer = rfftn(output_blocks(grad, geometry, blocks), *axes)
    answer = answer.unflatten(1, (geometry.groups, -1))
    if to_weight is not None and input is not None:
        signal = rfftn(input_blocks(input, geometry, blocks), *axes)
        rows = (0, *range(3, 3 + geometry.ndim))
        product = (answer.conj() * signal.unsqueeze(2)).sum(rows)
        values = irfftn(product.flatten(0, 1), *_last(blocks, 1))
        places = tuple(
            slice(0, reach + 1, step)
            for reach, step in zip(geometry.reach, geometry.dilation, strict=True)
        )
        to_weight.copy_(values[(slice(None), *places)].unsqueeze(1))
    if to_input is not None and filters is not None:
        product = answer.mul_(filters.maps(conjugate=False))
        product = product.squeeze(2) if geometry.group_outputs == 1 else product.sum(2)
        to_input.copy_(add_input_blocks(irfftn(product, *axes), geometry, blocks))


def _output_by_matrices(
    input: Tensor, filters: _FilterBank, geometry: Geometry, blocks: Blocks, result: Tensor
) -> None:
    chunks = _output_chunks(geometry, blocks)
    grouped = result.unflatten(1, (geometry.groups, -1))
    matrices = None
    for rows in _row_chunks(geometry, blocks, len(chunks)):
        signal = rows_first(input_blocks(input[rows], geometry, blocks), geometry, blocks)
        for chunk in chunks:
            if matrices is None or len(chunks) > 1:
                matrices = filters.matrices(chunk, conjugate=True)
            values = from_rows(torch.bmm(signal, matrices.mT), geometry, blocks)
            outputs = join_outputs(values, geometry, blocks)
            grouped[rows, :, chunk] = outputs.unflatten(1, (geometry.groups, -1))


def _gradients_by_matrices(
    grad: Tensor,
    input: Tensor | None,
    filters: _FilterBank | None,
    geometry: Geometry,
    blocks: Blocks,
    to_input: Tensor | None,
    to_weight: Tensor | None,
) -> None:
    chunks = _output_chunks(geometry, blocks)
    grouped = grad.unflatten(1, (geometry.groups, -1))
    matrices = kernels = None
    for rows in _row_chunks(geometry, blocks, len(chunks)):
        signal = back = None
        if to_weight is not None and input is not None:
            signal = rows_first(input_blocks(input[rows], geometry, blocks), geometry, blocks)
        for chunk in chunks:
            outputs = grouped[rows, :, chunk].flatten(1, 2)
            answer = rows_first(output_blocks(outputs, geometry, blocks), geometry, blocks)
            if to_input is not None and filters is not None:
                if matrices is None or len(chunks) > 1:
                    matrices = filters.matrices(chunk, conjugate=False)
                back = _add_product(back, answer, matrices)
            if to_weight is not None and signal is not None:
                kernels = _add_product(kernels, answer.conj_physical_().mT, signal)
                if len(chunks) > 1 or rows.stop == geometry.batch:
                    _write_taps(kernels, chunk, geometry, blocks, to_weight)
                    kernels = None
        if to_input is not None and back is not None:
            values = from_rows(back, geometry, blocks)
            to_input[rows] = add_input_blocks(values, geometry, blocks)


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    return torch.bmm(left, right) if total is None else total.baddbmm_(left, right)


def _output_chunks(geometry: Geometry, blocks: Blocks) -> list[slice]:
    """Ranges of a group's outputs whose kernels' spectra fit in the workspace."""
    bytes_each = 8 * blocks.frequencies * geometry.groups * geometry.group_inputs
    return _ranges(geometry.group_outputs, WORKSPACE // bytes_each)


def _row_chunks(geometry: Geometry, blocks: Blocks, chunks: int) -> list[slice]:
    """Ranges of maps whose spectra fit; all maps, where kernels' spectra are made in chunks."""
    if chunks > 1:
        return [slice(0, geometry.batch)]
    channels = geometry.in_channels + geometry.out_channels
    return _ranges(geometry.batch, ROWS // (8 * blocks.frequencies * blocks.per_map * channels))


def _ranges(count: int, at_once: int) -> list[slice]:
    step = max(at_once, 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def rows_first(values: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Transform blocks to matrices ``(frequencies * groups, maps * blocks, channels)``."""
    ndim, groups = geometry.ndim, geometry.groups
    values = values.unflatten(1, (groups, -1)).movedim(1, 0).movedim(2, 2 + ndim)
    channels = values.shape[2 + ndim]
    spectra = rfftn(values, *_last(blocks, 3 + ndim)).reshape(-1, blocks.frequencies)
    return spectra.t().contiguous().view(blocks.frequencies * groups, -1, channels)


def from_rows(matrices: Tensor, geometry: Geometry, blocks: Blocks) -> Tensor:
    """Transform matrices back to blocks, ``(N, C, *counts, *lengths)``."""
    ndim, groups, channels = geometry.ndim, geometry.groups, matrices.shape[-1]
    spectra = matrices.view(blocks.frequencies, -1).t().contiguous()
    spectra = spectra.view(groups, -1, *blocks.counts, channels, *blocks.half)
    values = irfftn(spectra, *_last(blocks, 3 + ndim))
    return values.movedim(2 + ndim, 2).movedim(0, 1).flatten(1, 2)


def _write_taps(
    kernels: Tensor, chunk: slice, geometry: Geometry, blocks: Blocks, to_weight: Tensor
) -> None:
    """Transform a chunk of the weight gradient back."""
    spectra = kernels.unflatten(0, (-1, geometry.groups)).flatten(1, 2)
    taps = taps_of_spectra(spectra, geometry.kernel, blocks.lengths, geometry.dilation)
    grouped = to_weight.unflatten(0, (geometry.groups, -1))
    grouped[:, chunk] = taps.unflatten(0, (geometry.groups, -1))
