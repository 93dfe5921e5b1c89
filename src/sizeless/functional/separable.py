"""One axis of a tensor resized by a matrix, or by waves whose amplitudes are scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional.fft import no_autocast
from sizeless.functional.operators import Function, operator
from sizeless.functional.vmapped import in_front


class Waves(NamedTuple):
    """What an axis is analysed into, and what it is made of again.

    Attributes:
        there: Waves on the samples of the input, ``(count, n)``.
        back: The same waves on those of the output, ``(count, m)``.
        learned: Indices of those whose gain needs a gradient.
    """

    there: Tensor
    back: Tensor
    learned: Tensor

    def matrix(self, gains: Tensor) -> Tensor:
        """The whole operation as a matrix, ``(m, n)``, given ``count`` gains or more."""
        with no_autocast(gains.device.type):
            return (self.back * gains[: len(self.back), None]).t() @ self.there

    def analysis(self, like: Tensor) -> Tensor:
        """Matrix that gives the amplitudes of the learned waves, in the dtype of ``like``."""
        return self.there.index_select(0, self.learned).to(like.dtype)

    def turned(self) -> Waves:
        """The waves of the adjoint operation."""
        return Waves(self.back, self.there, self.learned)


def along(input: Tensor, matrix: Tensor, axis: int) -> Tensor:
    r"""Multiply every line of ``input`` along ``axis`` by a constant matrix.

    $$
    y_{a q b} = \sum_p M_{q p}\, x_{a p b}
    $$

    Args:
        input: Tensor with ``n`` samples along ``axis``.
        matrix: Real matrix of shape ``(m, n)`` and of the dtype of ``input``; it gets no gradient.
        axis: Axis, counted from the end: -1, -2, ...

    Returns:
        Contiguous tensor with ``m`` samples along ``axis``.

    Examples:
        >>> along(torch.tensor([[1.0, 2.0]]), torch.ones(3, 2), -1)
        tensor([[3., 3., 3.]])
    """
    output: Tensor = _Along.apply(input, matrix, axis)
    return output


def along_waves(
    input: Tensor, gains: Tensor, waves: Sequence[Waves], axes: Sequence[int]
) -> Tensor:
    r"""Along each axis, analyse every line into waves, scale each, and put them together.

    $$
    y_{a q b} = \sum_k B_{k q}\, g_k \sum_p T_{k p}\, x_{a p b}, \qquad
    \frac{\partial \mathcal L}{\partial g_k}
    = \sum_{a b} \Big(\sum_q B_{k q} \frac{\partial \mathcal L}{\partial y_{a q b}}\Big)
    \Big(\sum_p T_{k p}\, x_{a p b}\Big)
    $$

    The input is not kept for the backward pass: all that the gradients need of it are its
    amplitudes at the waves whose gain is learned.

    Args:
        input: Tensor of two or more axes.
        gains: Gains of the waves, a row for each of ``axes``, in a dtype at least as precise as
            that of ``input``.
        waves: The waves of each of ``axes``, in the dtype of ``gains``.
        axes: Axes, counted from the end: -1, -2, ...

    Returns:
        Contiguous tensor, differentiable in ``input`` and in the learned gains, any number of
        times.

    Examples:
        >>> waves = Waves(torch.eye(2), torch.eye(2), torch.arange(2))
        >>> along_waves(torch.ones(1, 2), torch.tensor([[1.0, 3.0]]), [waves], [-1])
        tensor([[1., 3.]])
    """
    tables = [table for each in waves for table in each]
    if torch.compiler.is_compiling():
        # Axes of one size share theirs, and a graph takes no tensor twice.
        tables = [table.clone() for table in tables]
    output: Tensor = _AlongWaves.apply(input, gains, tuple(enumerate(axes)), *tables)[0]
    return output


def _resized(input: Tensor, axis: int, size: int) -> list[int]:
    shape = list(input.shape)
    shape[axis] = size
    return shape


def run_along(input: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply every line along ``axis`` by a matrix, without autograd."""
    input = input.contiguous()
    if axis == -1:
        return F.linear(input, matrix)
    # A transposed matrix takes up to three times as long here.
    matrix = matrix.contiguous()
    if axis == -2:
        return torch.matmul(matrix, input)
    product = torch.matmul(matrix, input.flatten(axis + 1))
    # A plain view of it could not be changed in place afterwards, by an activation say.
    return torch.ops.aten._unsafe_view(product, _resized(input, axis, matrix.shape[0]))


def _flops_of_along(input: list[int], matrix: list[int], _axis: int) -> int:
    return 2 * math.prod(input) * matrix[0]


def _run_amplitudes(input: Tensor, rows: Tensor, axis: int) -> Tensor:
    """The same for a few rows; their products are fastest with the long axis last in memory."""
    if axis == -1:
        return torch.matmul(rows, input.contiguous().mT).mT
    return run_along(input, rows, axis)


def _blank_amplitudes(input: Tensor, rows: Tensor, axis: int) -> Tensor:
    if axis == -1:
        return input.new_empty(*input.shape[:-2], rows.shape[0], input.shape[-2]).mT
    return input.new_empty(_resized(input, axis, rows.shape[0]))


_along = operator(
    "along(Tensor input, Tensor matrix, int axis) -> Tensor",
    run_along,
    lambda input, matrix, axis: input.new_empty(_resized(input, axis, matrix.shape[0])),
    _flops_of_along,
)
_amplitudes = operator(
    "amplitudes(Tensor input, Tensor rows, int axis) -> Tensor",
    _run_amplitudes,
    _blank_amplitudes,
    _flops_of_along,
)


class _Along(Function):
    """Matrix times lines."""

    @staticmethod
    def forward(input: Tensor, matrix: Tensor, axis: int) -> Tensor:
        output: Tensor = _along(input, matrix, axis)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, matrix, ctx.axis = inputs
        ctx.save_for_backward(matrix)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (matrix,) = ctx.saved_tensors
        return along(grad, matrix.t(), ctx.axis), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, matrix: Tensor, axis: int) -> Any:
        if in_dims[1] is None:
            return along(input.movedim(in_dims[0], 0), matrix, axis), 0
        parts = zip((input, matrix), in_dims, strict=False)
        pairs = zip(*(in_front(*part, info.batch_size) for part in parts), strict=True)
        return torch.stack([along(x, m, axis) for x, m in pairs]), 0


def by_axis(tables: Sequence[Tensor]) -> list[Waves]:
    """Waves of each axis, whose tensors ``tables`` holds one after the other."""
    each = len(Waves._fields)
    return [Waves(*tables[i : i + each]) for i in range(0, len(tables), each)]


def spread(gains: Tensor, sums: Iterable[tuple[int, Tensor]], waves: Sequence[Waves]) -> Tensor:
    """Gradient of all gains from that of the learned ones.

    Args:
        gains: Gains of the waves, one row for each axis.
        sums: Row, and gradient of the learned gains of that row, of each of the axes.
        waves: Waves of these axes.
    """
    flat = gains.new_zeros(gains.numel())
    for (row, values), each in zip(sums, waves, strict=False):
        flat = flat.index_add(0, each.learned + row * gains.shape[1], values.to(gains.dtype))
    return flat.view(gains.shape)


Places = tuple[tuple[int, int], ...]
"""Row of the gains and number of the axis, for each axis in turn."""


class _AlongWaves(Function):
    """Output, and for each axis the amplitudes of its learned waves.

    The backward pass is the same with the order of the axes and both sides of each exchanged. The
    gradient of a gain is the product of its amplitudes in both passes. So derivatives of any order
    are made of this and of ``along``.
    """

    @staticmethod
    def forward(input: Tensor, gains: Tensor, places: Places, *tables: Tensor) -> Any:
        output, amplitudes = input, []
        for (row, axis), waves in zip(places, by_axis(tables), strict=True):
            amplitudes.append(_amplitudes(output, waves.analysis(input), axis))
            output = _along(output, waves.matrix(gains[row]).to(input.dtype), axis)
        return output, *amplitudes

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, gains, ctx.places, *tables = inputs
        ctx.save_for_backward(gains, *tables, *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *to_amplitudes: Tensor | None) -> Any:
        gains, *saved = ctx.saved_tensors
        count = len(ctx.places)
        waves, amplitudes = by_axis(saved[:-count]), saved[-count:]
        pulls = [] if grad is None else [(grad, count)]
        # Zeros in a graph, which has no second derivatives.
        in_graph = torch.compiler.is_compiling()
        for i, each in enumerate(to_amplitudes):
            if each is not None and not in_graph:
                pulls.append((along(each, waves[i].analysis(each).t(), ctx.places[i][1]), i))
        to_input = to_gains = None
        for pulled, before in pulls:
            back = tuple(reversed(ctx.places[:before]))
            tables = [table for each in reversed(waves[:before]) for table in each.turned()]
            passed, *others = _AlongWaves.apply(pulled, gains, back, *tables)
            to_input = passed if to_input is None else to_input + passed
            sums = [
                (row, _products(there, back, axis, gains.dtype))
                for (row, axis), there, back in zip(
                    ctx.places, amplitudes, reversed(others), strict=False
                )
            ]
            part = spread(gains, sums, waves)
            to_gains = part if to_gains is None else to_gains + part
        return to_input, to_gains, None, *[None] * len(saved[:-count])

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, input: Tensor, gains: Tensor, places: Any, *tables: Any
    ) -> Any:
        size, dims = info.batch_size, (in_dims[1], *in_dims[3:])
        if set(dims) == {None}:
            results = _AlongWaves.apply(input.movedim(in_dims[0], 0), gains, places, *tables)
            return results, (0,) * len(results)
        columns = [in_front(*part, size) for part in zip((gains, *tables), dims, strict=True)]
        lines = in_front(input, in_dims[0], size)
        runs = [
            _AlongWaves.apply(line, row[0], places, *row[1:])
            for line, *row in zip(lines, *columns, strict=True)
        ]
        results = tuple(torch.stack(parts) for parts in zip(*runs, strict=True))
        return results, (0,) * len(results)


def _products(there: Tensor, back: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    """Sum over all lines of the products of their amplitudes."""
    axes = [other for other in range(-there.dim(), 0) if other != axis]
    return (there * back).sum(axes, dtype=dtype)
