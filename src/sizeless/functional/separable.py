"""One matrix applied along one axis of a tensor, as a single differentiable block."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sizeless.functional.operators import Function, operator
from sizeless.functional.vmapped import in_front

SLICES = 8
"""Parts into which a long sum of outer products is cut: one tall product uses the cores badly."""


def along(input: Tensor, matrix: Tensor, axis: int) -> Tensor:
    r"""Multiply every line of ``input`` along ``axis`` by a matrix.

    $$
    y_{a q b} = \sum_p M_{q p}\, x_{a p b}
    $$

    Args:
        input: Tensor with ``n`` samples along ``axis``.
        matrix: Real matrix of shape ``(m, n)`` and of the dtype of ``input``.
        axis: Axis, counted from the end: -1, -2, ...

    Returns:
        Contiguous tensor with ``m`` samples along ``axis``.

    Examples:
        >>> along(torch.tensor([[1.0, 2.0]]), torch.ones(3, 2), -1)
        tensor([[3., 3., 3.]])
    """
    output: Tensor = _Along.apply(input, matrix, axis)
    return output


def _lines(shape: torch.Size, axis: int) -> tuple[int, int]:
    """How many positions lie before and after ``axis``."""
    return math.prod(shape[:axis]), math.prod(shape[len(shape) + axis + 1 :])


def _resized(input: Tensor, axis: int, size: int) -> list[int]:
    shape = list(input.shape)
    shape[axis] = size
    return shape


def run_along(input: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply every line along ``axis`` by a matrix, without autograd."""
    shape = _resized(input, axis, matrix.shape[0])
    outer, inner = _lines(input.shape, axis)
    lines = input.contiguous().view(outer, input.shape[axis], inner)
    if inner == 1:
        product = torch.mm(lines.squeeze(2), matrix.t())
    else:
        # A transposed matrix takes up to three times as long here.
        product = torch.bmm(matrix.contiguous().expand(outer, -1, -1), lines)
    # A plain view of it could not be changed in place afterwards, by an activation say.
    return torch.ops.aten._unsafe_view(product, shape)


def run_contract(left: Tensor, right: Tensor, axis: int) -> Tensor:
    """Sum the outer products of all lines along ``axis``, without autograd."""
    outer, inner = _lines(left.shape, axis)
    left = left.contiguous().view(outer, left.shape[axis], inner)
    right = right.contiguous().view(outer, right.shape[axis], inner)
    if inner != 1:
        return torch.bmm(left, right.mT).sum(dim=0)
    left, right = left.squeeze(2), right.squeeze(2)
    if outer % SLICES or outer < 4096:
        return torch.mm(left.t(), right)
    left, right = left.unflatten(0, (SLICES, -1)), right.unflatten(0, (SLICES, -1))
    return torch.bmm(left.mT, right).sum(dim=0)


def _flops_of_along(input: list[int], matrix: list[int], _axis: int) -> int:
    return 2 * math.prod(input) * matrix[0]


def _flops_of_contract(left: list[int], right: list[int], axis: int) -> int:
    return 2 * math.prod(left) * right[axis]


_along = operator(
    "along(Tensor input, Tensor matrix, int axis) -> Tensor",
    run_along,
    lambda input, matrix, axis: input.new_empty(_resized(input, axis, matrix.shape[0])),
    _flops_of_along,
)
_contract = operator(
    "contract(Tensor left, Tensor right, int axis) -> Tensor",
    run_contract,
    lambda left, right, axis: left.new_empty(left.shape[axis], right.shape[axis]),
    _flops_of_contract,
)


class _Along(Function):
    """Matrix times lines."""

    @staticmethod
    def forward(input: Tensor, matrix: Tensor, axis: int) -> Tensor:
        output: Tensor = _along(input, matrix, axis)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        input, matrix, ctx.axis = inputs
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, matrix)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, matrix = ctx.saved_tensors
        to_input = to_matrix = None
        if ctx.needs_input_grad[0]:
            to_input = along(grad, matrix.t(), ctx.axis)
        if ctx.needs_input_grad[1]:
            to_matrix = _Contract.apply(grad, input, ctx.axis)
        return to_input, to_matrix, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, matrix: Tensor, axis: int) -> Any:
        if in_dims[1] is None:
            return along(input.movedim(in_dims[0], 0), matrix, axis), 0
        parts = zip((input, matrix), in_dims, strict=False)
        pairs = zip(*(in_front(*part, info.batch_size) for part in parts), strict=True)
        return torch.stack([along(x, m, axis) for x, m in pairs]), 0


class _Contract(Function):
    """Sum over all lines of their outer products: the gradient of a matrix."""

    @staticmethod
    def forward(left: Tensor, right: Tensor, axis: int) -> Tensor:
        output: Tensor = _contract(left, right, axis)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        left, right, ctx.axis = inputs
        ctx.save_for_backward(left, right)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        left, right = ctx.saved_tensors
        to_left = to_right = None
        if ctx.needs_input_grad[0]:
            to_left = along(right, grad, ctx.axis)
        if ctx.needs_input_grad[1]:
            to_right = along(left, grad.t(), ctx.axis)
        return to_left, to_right, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, left: Tensor, right: Tensor, axis: int) -> Any:
        parts = zip((left, right), in_dims, strict=False)
        pairs = zip(*(in_front(*part, info.batch_size) for part in parts), strict=True)
        return torch.stack([_Contract.apply(a, b, axis) for a, b in pairs]), 0
