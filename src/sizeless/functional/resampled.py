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

from sizeless.functional import separable
from sizeless.functional.direct import CONVOLUTIONS
from sizeless.functional.operands import has_channels_last
from sizeless.functional.operators import Function, operator

CHUNK = 3 << 20
"""Bytes of the grid of taps that are made and used at once: they stay in a core's cache."""

_GRID = 4.0
"""Time of a multiply-add of the resampling to a grid, in those of a convolution."""

Numbers = Sequence[int]


def correlate_resampled(input: Tensor, weight: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Convolve with zeros around the map, keeping its size, and resample the output.

    Args:
        input: ``(N, C, *spatial)``.
        weight: ``(out, C, *kernel)`` with odd sizes.
        matrices: For each axis the matrix of the resampling, ``(output_size, size)``, of the dtype
            of ``input``.

    Returns:
        ``(N, out, *output_size)``.

    Examples:
        >>> import torch
        >>> halve = torch.eye(8)[::2]
        >>> input, weight = torch.randn(1, 2, 8), torch.randn(3, 2, 5)
        >>> output = correlate_resampled(input, weight, [halve])
        >>> strided = F.conv1d(input, weight, stride=2, padding=2)
        >>> torch.testing.assert_close(output, strided)
    """
    grids = [
        tap_matrix(matrix, taps) for matrix, taps in zip(matrices, weight.shape[2:], strict=True)
    ]
    result: Tensor = _Output.apply(input, weight, *grids)
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
    """Multiply-adds of one channel, one axis after the other."""
    shape, macs = list(size), 0
    for axis, count in enumerate(output_size):
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


def _resized(input: Tensor, grids: Sequence[Tensor]) -> list[Tensor]:
    """The map ``(N, *spatial, C)`` after each of the axes, the map itself first."""
    stages = [input]
    for axis, grid in enumerate(grids, start=-1 - len(grids)):
        stages.append(separable.run_along(stages[-1], grid, axis))
    return stages


def _run_output(input: Tensor, weight: Tensor, grids: Sequence[Tensor]) -> Tensor:
    kernel = tuple(weight.shape[2:])
    output, filters = _shape_of_output(input, weight, grids), _channels_last(weight)
    for rows in _chunks(input, grids):
        taps = _resized(_maps(input[rows]), grids)[-1].movedim(-1, 1)
        output[rows] = CONVOLUTIONS[len(grids)](taps, filters, stride=kernel)
    return output


def _run_gradients(
    grad: Tensor, input: Tensor, weight: Tensor, grids: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    kernel = list(weight.shape[2:])
    filters = _channels_last(weight)
    to_input, to_weight = _empty_like(input), torch.zeros_like(filters)
    to_grids = [torch.zeros_like(grid) for grid in grids]
    for rows in _chunks(input, grids):
        stages = _resized(_maps(input[rows]), grids)
        back, part, _ = torch.ops.aten.convolution_backward(
            _channels_last(grad[rows]),
            stages[-1].movedim(-1, 1),
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
        back = back.movedim(1, -1)
        for place in reversed(range(len(grids))):
            axis = place - 1 - len(grids)
            to_grids[place] += separable.run_contract(back, stages[place], axis)
            back = separable.run_along(back, grids[place].t(), axis)
        to_input[rows] = back.movedim(-1, 1)
    return to_input, to_weight.contiguous(), to_grids


def _maps(values: Tensor) -> Tensor:
    """Maps as ``(N, *spatial, C)``: this is where the products of all steps are fastest."""
    return values.movedim(1, -1).contiguous()


def _channels_last(values: Tensor) -> Tensor:
    return _maps(values).movedim(-1, 1)


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
    _grad: Tensor, input: Tensor, weight: Tensor, grids: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    to_grids = [grid.new_empty(grid.shape) for grid in grids]
    return _empty_like(input), weight.new_empty(weight.shape), to_grids


def _flops_of_output(input: Numbers, weight: Numbers, grids: Sequence[Numbers]) -> int:
    rows = [grid[0] for grid in grids]
    filtering = math.prod(weight[:2]) * math.prod(rows)
    return 2 * input[0] * (input[1] * _resampling_macs(input[2:], rows) + filtering)


def _flops_of_gradients(_grad: Numbers, *parts: Any) -> int:
    return 2 * _flops_of_output(*parts)


_output = operator(
    "correlate_resampled(Tensor input, Tensor weight, Tensor[] grids) -> Tensor",
    _run_output,
    _shape_of_output,
    _flops_of_output,
)
_gradients = operator(
    "correlate_resampled_gradients(Tensor grad, Tensor input, Tensor weight, Tensor[] grids)"
    " -> (Tensor, Tensor, Tensor[])",
    _run_gradients,
    _shape_of_gradients,
    _flops_of_gradients,
)


def _plainly(input: Tensor, weight: Tensor, *grids: Tensor) -> Tensor:
    """The same in two steps of their own."""
    taps = input
    for axis, grid in enumerate(grids, start=-len(grids)):
        taps = separable.along(taps, grid, axis)
    return CONVOLUTIONS[len(grids)](taps, weight, stride=tuple(weight.shape[2:]))


def _plain_gradients(grad: Tensor, *parts: Tensor) -> Any:
    pull: Any = torch.func.vjp(_plainly, *parts)[1]
    return pull(grad)


def _batched(function: Callable[..., Any], in_dims: Any, parts: Any) -> Any:
    results = torch.func.vmap(function, tuple(in_dims))(*parts)
    return results, (0,) * len(results) if isinstance(results, tuple) else 0


class _Output(Function):
    """Output from input, weight and grids."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, *grids: Tensor) -> Tensor:
        result: Tensor = _output(input, weight, grids)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Gradients.apply(grad, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *parts: Tensor) -> Any:
        return _batched(_plainly, in_dims, parts)


class _Gradients(Function):
    """All gradients; theirs are those of the two steps."""

    @staticmethod
    def forward(grad: Tensor, input: Tensor, weight: Tensor, *grids: Tensor) -> Any:
        to_input, to_weight, to_grids = _gradients(grad, input, weight, grids)
        return to_input, to_weight, *to_grids

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        pull: Any = torch.func.vjp(_plain_gradients, *ctx.saved_tensors)[1]
        return pull(outer)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *parts: Tensor) -> Any:
        return _batched(_plain_gradients, in_dims, parts)
