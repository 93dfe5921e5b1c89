"""A matrix along one axis, against a plain sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vjp, vmap
from torch.testing import assert_close

from sizeless.functional.separable import along

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
    matrix = random(rows, shape[axis])
    ours, expected = along(input, matrix, axis), naive(input, matrix, axis)
    assert ours.shape == expected.shape
    assert ours.is_contiguous()
    assert_close(ours, expected)
    cotangent = torch.randn_like(expected)
    assert_close(
        torch.autograd.grad(ours, input, cotangent),
        torch.autograd.grad(expected, input, cotangent),
    )


@shapes
def test_first_and_second_derivatives(shape: tuple[int, ...], axis: int) -> None:
    input, matrix = random(*shape).requires_grad_(), random(3, shape[axis])
    assert gradcheck(lambda x: along(x, matrix, axis), input)
    assert gradgradcheck(lambda x: along(x, matrix, axis), input)


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
            output, pull = vjp(lambda each: function(each, m, axis), x)
            return pull(output.cos())

        return vmap(run, in_dims)(*batched)

    assert_close(pulled(along), pulled(naive))


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
    matrix = random(4, 6)
    for batch in (3, 5, 7):
        input = random(batch, 6, 6).requires_grad_()
        ours, expected = compiled(input, matrix), naive(input, matrix, axis)
        assert_close(ours, expected)
        assert_close(
            torch.autograd.grad(ours.sin().sum(), input),
            torch.autograd.grad(expected.sin().sum(), input),
        )
    assert len(graphs) == 1


def test_on_the_meta_device() -> None:
    input, matrix = random(2, 4, 3).to("meta").requires_grad_(), random(5, 4).to("meta")
    output = along(input, matrix, -2)
    assert output.shape == (2, 5, 3)
    output.sum().backward()
    assert input.grad.shape == input.shape
