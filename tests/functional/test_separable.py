"""A matrix along one axis, against a plain sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vjp, vmap
from torch.testing import assert_close

from sizeless.functional.separable import SLICES, _Contract, along

DOUBLE = torch.float64
SHAPES = [((4,), -1), ((3, 4), -1), ((3, 4), -2), ((2, 3, 4), -2), ((2, 3, 4, 2), -3)]
shapes = pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE)


def naive(input: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Sum of products."""
    lines = input.movedim(axis, -1)
    return (lines[..., None, :] * matrix).sum(-1).movedim(-1, axis)


# ---- values and gradients ------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    batch=st.lists(st.integers(0, 3), max_size=1),
    rows=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=60)
def test_it_is_a_sum_of_products(
    shape: list[int], batch: list[int], rows: int, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), -1))
    input = random(*batch, *shape).requires_grad_()
    matrix = random(rows, shape[axis]).requires_grad_()
    ours, expected = along(input, matrix, axis), naive(input, matrix, axis)
    assert ours.shape == expected.shape
    assert ours.is_contiguous()
    assert_close(ours, expected)
    cotangent = torch.randn_like(expected)
    assert_close(
        torch.autograd.grad(ours, (input, matrix), cotangent),
        torch.autograd.grad(expected, (input, matrix), cotangent),
    )


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("lines", [4096, 4095, 4100, SLICES])
def test_many_lines_sum_to_the_same_gradient(lines: int, axis: int) -> None:
    input = random(lines, 3) if axis == -1 else random(lines, 3, 2)
    matrix = random(2, 3).requires_grad_()
    ours, expected = along(input, matrix, axis), naive(input, matrix, axis)
    cotangent = torch.randn_like(expected)
    assert_close(
        torch.autograd.grad(ours, matrix, cotangent),
        torch.autograd.grad(expected, matrix, cotangent),
    )


@shapes
def test_first_and_second_derivatives(shape: tuple[int, ...], axis: int) -> None:
    input, matrix = random(*shape).requires_grad_(), random(3, shape[axis]).requires_grad_()
    assert gradcheck(lambda x, m: along(x, m, axis), (input, matrix))
    assert gradgradcheck(lambda x, m: along(x, m, axis), (input, matrix))


@shapes
@pytest.mark.parametrize("needed", ["input", "matrix", "none"])
def test_only_what_is_needed_gets_a_gradient(
    shape: tuple[int, ...], axis: int, needed: str
) -> None:
    input = random(*shape).requires_grad_(needed == "input")
    matrix = random(3, shape[axis]).requires_grad_(needed == "matrix")
    output = along(input, matrix, axis)
    assert output.requires_grad == (needed != "none")
    if needed == "none":
        return
    output.sum().backward()
    assert (input.grad is not None) == (needed == "input")
    assert (matrix.grad is not None) == (needed == "matrix")


@shapes
def test_its_transpose_is_its_adjoint(shape: tuple[int, ...], axis: int) -> None:
    input, matrix = random(*shape), random(5, shape[axis])
    output = along(input, matrix, axis)
    other = torch.randn_like(output)
    assert_close((output * other).sum(), (input * along(other, matrix.t(), axis)).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    input, matrix = random(2, 4, 3).to(dtype), random(3, 4).to(dtype)
    for axis, weights in ((-2, matrix), (-1, matrix.t()[:, :3])):
        output = along(input, weights, axis)
        assert output.dtype == dtype
        expected = naive(input.double(), weights.double(), axis)
        rounding = torch.finfo(dtype).eps
        assert_close(output.double(), expected, rtol=8 * rounding, atol=8 * rounding)


def test_any_memory_layout_is_read() -> None:
    wide = random(4, 6, 5, 3)
    for input in (
        wide.movedim(1, -1),
        wide[:, ::2],
        wide.flip(2),
        wide[..., :1].expand(wide.shape),
    ):
        for axis in (-1, -2, -3):
            matrix = random(input.shape[axis], 2).t()
            assert_close(along(input, matrix, axis), naive(input, matrix, axis))


@pytest.mark.parametrize("axis", [-1, -2])
def test_the_input_is_never_returned(axis: int) -> None:
    input = random(3, 3)
    output = along(input, torch.eye(3, dtype=DOUBLE), axis)
    assert_close(output, input)
    assert output.data_ptr() != input.data_ptr()


# ---- transforms ----------------------------------------------------------------------------------


@shapes
@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (-1, 1)], ids=str)
def test_vmap(shape: tuple[int, ...], axis: int, in_dims: Any) -> None:
    parts = [random(*shape), random(2, shape[axis])]
    batched = [
        part if dim is None else torch.stack([part, 2 * part, -part], dim)
        for part, dim in zip(parts, in_dims, strict=True)
    ]
    ours = vmap(lambda x, m: along(x, m, axis), in_dims)(*batched)
    assert_close(ours, vmap(lambda x, m: naive(x, m, axis), in_dims)(*batched))

    def pulled(function: Any) -> Any:
        def run(x: Tensor, m: Tensor) -> Any:
            output, pull = vjp(lambda *each: function(*each, axis), x, m)
            return pull(output.cos())

        return vmap(run, in_dims)(*batched)

    assert_close(pulled(along), pulled(naive))


@shapes
def test_vmap_of_second_derivatives(shape: tuple[int, ...], axis: int) -> None:
    inputs, matrices = random(3, *shape), random(3, 2, shape[axis])

    def penalty(function: Any) -> Any:
        def loss(x: Tensor, m: Tensor) -> Tensor:
            return function(x, m, axis).sin().sum()

        def penalised(x: Tensor, m: Tensor) -> Tensor:
            return sum(part.square().sum() for part in grad(loss, (0, 1))(x, m))

        return vmap(grad(penalised, (0, 1)))(inputs, matrices)

    assert_close(penalty(along), penalty(naive))


@pytest.mark.parametrize("axis", [-1, -2])
def test_vmap_of_the_gradient_of_a_matrix(axis: int) -> None:
    left, right = random(3, 2, 4, 2), random(3, 2, 4, 2)
    ours = vmap(lambda a, b: _Contract.apply(a, b, axis))(left, right)
    pattern = "nabc,nabd->ncd" if axis == -1 else "nacb,nadb->ncd"
    assert_close(ours, torch.einsum(pattern, left, right))


@pytest.mark.parametrize("axis", [-1, -2])
def test_it_compiles_as_one_graph_for_every_batch(axis: int) -> None:
    torch.compiler.reset()
    graphs = []

    def count(module: Any, _inputs: Any) -> Any:
        graphs.append(module)
        return module.forward

    compiled = torch.compile(
        lambda x, m: along(x, m, axis), backend=count, fullgraph=True, dynamic=True
    )
    matrix = random(4, 6).requires_grad_()
    for batch in (3, 5, 7):
        input = random(batch, 6, 6)
        ours, expected = compiled(input, matrix), naive(input, matrix, axis)
        assert_close(ours, expected)
        assert_close(
            torch.autograd.grad(ours.sin().sum(), matrix),
            torch.autograd.grad(expected.sin().sum(), matrix),
        )
    assert len(graphs) == 1


def test_on_the_meta_device() -> None:
    input, matrix = random(2, 4, 3).to("meta").requires_grad_(), random(5, 4).to("meta")
    output = along(input, matrix.requires_grad_(), -2)
    assert output.shape == (2, 5, 3)
    output.sum().backward()
    assert (input.grad.shape, matrix.grad.shape) == (input.shape, matrix.shape)


@pytest.mark.parametrize("shape", [(2, 4, 0), (0, 4, 2), (0, 4)])
def test_nothing_at_all_has_a_gradient_of_zero(shape: tuple[int, ...]) -> None:
    input, matrix = random(*shape), random(3, 4).requires_grad_()
    along(input, matrix, 1 - len(shape)).sum().backward()
    assert torch.equal(matrix.grad, torch.zeros(3, 4, dtype=DOUBLE))
