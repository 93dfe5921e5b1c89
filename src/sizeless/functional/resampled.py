r"""A convolution whose output is resampled, computed at the few positions that are wanted.

Both are linear: with the matrix $A$ of the resampling along an axis and the taps $w_t$ around
the middle one $c$,

$$
y_q = \sum_p A_{q p} \sum_t w_t\, x_{p + t - c} = \sum_t w_t\, g_{q t}, \qquad
g_{q t} = \sum_p A_{q,\, p - t + c}\, x_p
$$

So the map is resampled to a grid that holds, for every output, its taps side by side, and the
convolution walks over that grid with a stride of its own size. It works at the output's
resolution, where the plain order works at the input's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional.direct import CONVOLUTIONS
from sizeless.functional.operands import has_channels_last
from sizeless.functional.operators import Function, operator
from sizeless.functional.separable import Waves, by_axis, spread

CHUNK = 5 << 20
"""Bytes of the grid of taps that are made and used at once: they stay in a core's cache."""

_GRID = 4.0
"""Time of a multiply-add of the resampling to a grid, in those of a convolution."""

Numbers = Sequence[int]


def correlate_resampled(
    input: Tensor, weight: Tensor, gains: Tensor, waves: Sequence[Waves]
) -> Tensor:
    """Convolve with zeros around the map, keeping its size, and resample the output.

    Args:
        input: ``(N, C, *spatial)``.
        weight: ``(out, C, *kernel)`` with odd sizes.
        gains: Gains of the waves that the resampling keeps, a row for each axis.
        waves: These waves of each axis, before and after.

    Returns:
        ``(N, out, *output_size)``, differentiable in ``input``, ``weight`` and ``gains``.

    Examples:
        >>> import torch
        >>> halve = Waves(torch.eye(8)[::2], torch.eye(4), torch.arange(4))
        >>> input, weight = torch.randn(1, 2, 8), torch.randn(3, 2, 5)
        >>> output = correlate_resampled(input, weight, torch.ones(1, 4), [halve])
        >>> strided = F.conv1d(input, weight, stride=2, padding=2)
        >>> torch.testing.assert_close(output, strided)
    """
    tables = [table for each in waves for table in each]
    if torch.compiler.is_compiling():
        # Axes of one size share theirs, and a graph takes no tensor twice.
        tables = [table.clone() for table in tables]
    result: Tensor = _Output.apply(input, weight, gains, *tables)
    return result


def tap_matrix(matrix: Tensor, taps: int) -> Tensor:
    """Rows for all taps of every output, side by side: ``(output_size * taps, size)``."""
    before, size = taps // 2, matrix.shape[1]
    padded = F.pad(matrix, (taps - 1 - before, before))
    shifted = [padded.narrow(1, taps - 1 - tap, size) for tap in range(taps)]
    return torch.stack(shifted, dim=1).flatten(0, 1)


def pays(
    size: Numbers, output_size: Numbers, kernel: Numbers, in_channels: int, out_channels: int
) -> bool:
    """Whether ``correlate_resampled`` should be faster than one after the other."""
    pairs = in_channels * out_channels * math.prod(kernel)
    grid = [n * k for n, k in zip(output_size, kernel, strict=True)]
    together = _GRID * in_channels * _resampling_macs(size, grid) + pairs * math.prod(output_size)
    apart = pairs * math.prod(size) + out_channels * _resampling_macs(size, output_size)
    return together < apart


def _resampling_macs(size: Numbers, output_size: Numbers) -> int:
    """Multiply-adds of one channel, one axis after the other, the last one first."""
    shape, macs = list(size), 0
    for axis, count in reversed(list(enumerate(output_size))):
        macs += math.prod(shape) * count
        shape[axis] = count
    return macs


def _chunks(input: Tensor, grids: Sequence[Tensor]) -> Iterator[slice]:
    """Ranges of maps whose grids fit into the cache."""
    bytes_each = input.element_size() * input.shape[1] * math.prod(len(grid) for grid in grids)
    step = max(input.shape[0], 1)
    if input.device.type == "cpu":
        step = max(CHUNK // max(bytes_each, 1), 1)
    for start in range(0, input.shape[0], step):
        yield slice(start, min(start + step, input.shape[0]))


def _resized(input: Tensor, grids: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The lines of ``(N, C, *spatial)`` along each axis, the last one first, and the grid.

    Each product takes the last axis and puts its taps before the channels, with no copy between:
    ``(N, C, H, W)``, ``(N, W', C, H)``, ``(N, W', H', C)``. Lines are ``(maps, others, samples)``.
    """
    taps, lines, shape = input, [], list(input.shape[1:])
    for grid in reversed(grids):
        size = shape.pop()
        lines.append(taps.reshape(-1, math.prod(shape), size))
        taps = torch.bmm(grid.expand(len(lines[-1]), -1, -1), lines[-1].mT)
    sizes = [len(grid) for grid in reversed(grids)]
    return lines, taps.reshape(input.shape[0], *sizes, input.shape[1])


def _turned(values: Tensor) -> Tensor:
    """``(N, C, *spatial)`` with its axes the last one first, and channels last in memory."""
    axes = range(values.dim() - 1, 1, -1)
    return values.permute(0, *axes, 1).contiguous().movedim(-1, 1)


def _turned_back(values: Tensor) -> Tensor:
    return values.permute(0, 1, *range(values.dim() - 1, 1, -1))


def _run_output(input: Tensor, weight: Tensor, grids: Sequence[Tensor]) -> Tensor:
    kernel = tuple(reversed(weight.shape[2:]))
    output, filters = _shape_of_output(input, weight, grids), _turned(weight)
    for rows in _chunks(input, grids):
        taps = _resized(input[rows], grids)[1].movedim(-1, 1)
        output[rows] = _turned_back(CONVOLUTIONS[len(grids)](taps, filters, stride=kernel))
    return output


def _run_gradients(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    grids: Sequence[Tensor],
    theres: Sequence[Tensor],
    backs: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    kernel = list(reversed(weight.shape[2:]))
    filters = _turned(weight)
    to_input, to_weight = _empty_like(input), torch.zeros_like(filters)
    to_gains = [torch.zeros_like(back[:, 0]) for back in backs]
    for rows in _chunks(input, grids):
        lines, taps = _resized(input[rows], grids)
        back, part, _ = torch.ops.aten.convolution_backward(
            _turned(grad[rows]),
            taps.movedim(-1, 1),
            filters,
            None,
            kernel,
            [0] * len(kernel),
            [1] * len(kernel),
            False,
            [0],
            1,
            [True, True, False],
        )
        to_weight += part
        back = back.movedim(1, -1).contiguous()
        for place, (grid, before) in enumerate(zip(grids, reversed(lines), strict=True)):
            after = back.reshape(len(before), len(grid), -1)
            if backs:
                to_gains[place] += _products(before, after, theres[place], backs[place])
            back = torch.bmm(after.mT, grid.expand(len(before), -1, -1))
        to_input[rows] = back.reshape(input[rows].shape)
    return to_input, _turned_back(to_weight).contiguous(), to_gains


def _products(before: Tensor, after: Tensor, there: Tensor, back: Tensor) -> Tensor:
    """Amplitudes of the learned waves on both sides of an axis, multiplied and summed."""
    maps, count = len(before), len(back)
    ahead = torch.bmm(there.expand(maps, -1, -1), before.mT)
    behind = torch.bmm(back.expand(maps, -1, -1), after.view(maps, back.shape[1], -1))
    return (ahead.view(maps, count, -1) * behind).sum((0, 2))


def _empty_like(input: Tensor) -> Tensor:
    """Empty tensor of the shape of ``input``, its channels last in memory if they are there."""
    if has_channels_last(input):
        return input.new_empty(input.movedim(1, -1).shape).movedim(-1, 1)
    return input.new_empty(input.shape)


def _shape_of_output(input: Tensor, weight: Tensor, grids: Sequence[Tensor]) -> Tensor:
    size = [grid.shape[0] // taps for grid, taps in zip(grids, weight.shape[2:], strict=True)]
    if has_channels_last(input):
        return input.new_empty(input.shape[0], *size, weight.shape[0]).movedim(-1, 1)
    return input.new_empty(input.shape[0], weight.shape[0], *size)


def _shape_of_gradients(
    _grad: Tensor,
    input: Tensor,
    weight: Tensor,
    _grids: Sequence[Tensor],
    _theres: Sequence[Tensor],
    backs: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    to_gains = [back.new_empty(back.shape[0]) for back in backs]
    return _empty_like(input), weight.new_empty(weight.shape), to_gains


def _flops_of_output(input: Numbers, weight: Numbers, grids: Sequence[Numbers]) -> int:
    rows = [grid[0] for grid in grids]
    filtering = math.prod(weight[:2]) * math.prod(rows)
    return 2 * input[0] * (input[1] * _resampling_macs(input[2:], rows) + filtering)


def _flops_of_gradients(
    _grad: Numbers,
    input: Numbers,
    weight: Numbers,
    grids: Sequence[Numbers],
    theres: Sequence[Numbers],
    backs: Sequence[Numbers],
) -> int:
    """The output's twice, its resampling once more, and the amplitudes of the learned waves."""
    macs, shape = _resampling_macs(input[2:], [grid[0] for grid in grids]), list(input[2:])
    axes = list(enumerate(zip(grids, theres, backs, strict=False)))
    for axis, (grid, there, back) in reversed(axes):
        before = math.prod(shape)
        shape[axis] = grid[0]
        macs += before * there[0] + math.prod(shape) * back[0]
    return 2 * _flops_of_output(input, weight, grids) + 2 * input[0] * input[1] * macs


_output = operator(
    "correlate_resampled(Tensor input, Tensor weight, Tensor[] grids) -> Tensor",
    _run_output,
    _shape_of_output,
    _flops_of_output,
)
_gradients = operator(
    "correlate_resampled_gradients(Tensor grad, Tensor input, Tensor weight, Tensor[] grids,"
    " Tensor[] theres, Tensor[] backs) -> (Tensor, Tensor, Tensor[])",
    _run_gradients,
    _shape_of_gradients,
    _flops_of_gradients,
)


def _grids(weight: Tensor, gains: Tensor, tables: Sequence[Tensor]) -> list[Tensor]:
    rows = zip(gains, by_axis(tables), weight.shape[2:], strict=True)
    return [tap_matrix(waves.matrix(row).to(weight.dtype), taps) for row, waves, taps in rows]


def _plainly(input: Tensor, weight: Tensor, gains: Tensor, *tables: Tensor) -> Tensor:
    """The same in operations of torch's own."""
    taps = input
    for axis, grid in enumerate(_grids(weight, gains, tables), start=2):
        taps = torch.tensordot(taps, grid, dims=([axis], [1])).movedim(-1, axis)
    return CONVOLUTIONS[weight.dim() - 2](taps, weight, stride=tuple(weight.shape[2:]))


def _plain_gradients(
    grad: Tensor, input: Tensor, weight: Tensor, gains: Tensor, *tables: Tensor
) -> Any:
    """Gradients of input, weight and gains."""
    pull: Any = torch.func.vjp(lambda *parts: _plainly(*parts, *tables), input, weight, gains)[1]
    return pull(grad)


def _batched(function: Callable[..., Any], in_dims: Any, parts: Any) -> Any:
    results = torch.func.vmap(function, tuple(in_dims))(*parts)
    return results, (0,) * len(results) if isinstance(results, tuple) else 0


class _Output(Function):
    """Output from input, weight, gains and waves."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, gains: Tensor, *tables: Tensor) -> Tensor:
        result: Tensor = _output(input, weight, _grids(weight, gains, tables))
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, weight, gains, *tables = ctx.saved_tensors
        learns = ctx.needs_input_grad[2]
        results = _Gradients.apply(grad, input, weight, gains, learns, *tables)
        return *results, *[None] * len(tables)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *parts: Tensor) -> Any:
        return _batched(_plainly, in_dims, parts)


class _Gradients(Function):
    """All gradients; theirs are those of torch's own operations.

    Those of the gains are 0 where they are not wanted.
    """

    @staticmethod
    def forward(
        grad: Tensor, input: Tensor, weight: Tensor, gains: Tensor, learns: bool, *tables: Tensor
    ) -> Any:
        waves = by_axis(tables) if learns else []
        theres = [
            tap_matrix(each.analysis(input), taps)
            for each, taps in zip(waves, weight.shape[2:], strict=False)
        ]
        backs = [each.turned().analysis(input) for each in waves]
        grids = _grids(weight, gains, tables)
        to_input, to_weight, sums = _gradients(grad, input, weight, grids, theres, backs)
        return to_input, to_weight, spread(gains, enumerate(sums), waves)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *parts, ctx.learns = inputs[:5]
        ctx.save_for_backward(*parts, *inputs[5:])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        *parts, gains = ctx.saved_tensors[:4]
        tables = ctx.saved_tensors[4:]
        pull: Any = torch.func.vjp(lambda *parts: _plain_gradients(*parts, *tables), *parts, gains)[
            1
        ]
        return *pull(outer), None, *[None] * len(tables)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *parts: Any) -> Any:
        dims = (*in_dims[:4], *in_dims[5:])
        return _batched(_plain_gradients, dims, (*parts[:4], *parts[5:]))
