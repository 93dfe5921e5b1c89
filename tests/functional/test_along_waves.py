"""Axes analysed into waves whose gains are learned, against a plain sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, vjp, vmap
from torch.testing import assert_close

from sizeless.functional.separable import Waves, along_waves

DOUBLE = torch.float64
COUNT = 4
CASES = [
    ((3, 4), (-1,), (5,)),
    ((3, 4, 2), (-2,), (3,)),
    ((2, 3, 4), (-1, -2), (2, 6)),
    ((2, 1, 5, 4), (-2, -1), (3, 1)),
    ((2, 4, 3, 2, 2), (-4, -3, -2), (2, 4, 3)),
]
cases = pytest.mark.parametrize(("shape", "axes", "sizes"), CASES, ids=str)


def random(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def waves_of(
    shape: Sequence[int],
    axes: Sequence[int],
    sizes: Sequence[int],
    learned: Sequence[int] = range(COUNT),
    dtype: torch.dtype = DOUBLE,
) -> list[Waves]:
    """Any waves: nothing here relies on their being cosines."""
    return [
        Waves(
            random(COUNT, shape[axis], dtype=dtype),
            random(COUNT, size, dtype=dtype),
            torch.tensor(list(learned)),
        )
        for axis, size in zip(axes, sizes, strict=True)
    ]


def naive(input: Tensor, gains: Tensor, waves: Sequence[Waves], axes: Sequence[int]) -> Tensor:
    """Amplitudes, gains and waves, one axis after the other; others than learned are constant."""
    for whole, each, axis in zip(gains, waves, axes, strict=True):
        is_learned = torch.zeros(len(whole), dtype=torch.bool).index_fill(0, each.learned, True)
        row = torch.where(is_learned, whole, whole.detach())
        amplitudes = (input.movedim(axis, -1)[..., None, :] * each.there).sum(-1) * row
        input = (amplitudes[..., None] * each.back).sum(-2).movedim(-1, axis)
    return input


def inputs_of(shape: Sequence[int], axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    return random(*shape).requires_grad_(), random(len(axes), COUNT).requires_grad_()


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    lead=st.integers(0, 3),
    learned=st.sets(st.integers(0, COUNT - 1), min_size=1),
    data=st.data(),
)
@settings(max_examples=60)
def test_output_and_gradients_are_those_of_the_sum(
    shape: list[int], lead: int, learned: set[int], data: st.DataObject
) -> None:
    every = list(range(-len(shape), 0))
    axes = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=len(axes), max_size=len(axes)))
    whole = (lead, *shape)
    waves = waves_of(whole, axes, sizes, sorted(learned))
    inputs = inputs_of(whole, axes)
    ours, expected = along_waves(*inputs, waves, axes), naive(*inputs, waves, axes)
    assert ours.shape == expected.shape
    assert ours.is_contiguous()
    assert_close(ours, expected)
    cotangent = torch.randn_like(expected)
    assert_close(
        torch.autograd.grad(ours, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
    )


@cases
def test_first_and_second_derivatives(
    shape: tuple[int, ...], axes: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    waves = waves_of(shape, axes, sizes)
    inputs = inputs_of(shape, axes)
    assert gradcheck(lambda x, g: along_waves(x, g, waves, axes), inputs)
    assert gradgradcheck(lambda x, g: along_waves(x, g, waves, axes), inputs)


@cases
def test_second_derivatives_where_few_gains_are_learned(
    shape: tuple[int, ...], axes: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    waves = waves_of(shape, axes, sizes, learned=(1, 2))

    def penalty(function: Any) -> Any:
        output = function(*inputs, waves, axes)
        first = torch.autograd.grad(output.sin().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), inputs)

    inputs = inputs_of(shape, axes)
    assert_close(penalty(along_waves), penalty(naive))


@pytest.mark.parametrize("needed", [0, 1])
def test_only_what_is_needed_gets_a_gradient(needed: int) -> None:
    shape, axes, sizes = CASES[3]
    waves, inputs = waves_of(shape, axes, sizes), inputs_of(shape, axes)
    inputs[1 - needed].requires_grad_(False)
    along_waves(*inputs, waves, axes).sin().sum().backward()
    expected = torch.autograd.grad(naive(*inputs, waves, axes).sin().sum(), inputs[needed])[0]
    assert_close(inputs[needed].grad, expected)
    assert inputs[1 - needed].grad is None


@cases
def test_the_input_is_not_kept(
    shape: tuple[int, ...], axes: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    waves, inputs = waves_of(shape, axes, sizes, learned=(3,)), inputs_of(shape, axes)
    saved: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        saved.append(value)
        return value

    with saved_tensors_hooks(keep, lambda value: value):
        along_waves(*inputs, waves, axes)
    assert all(value.data_ptr() != inputs[0].data_ptr() for value in saved)
    tables = sum(part.numel() for each in waves for part in each)
    lines = sum(max(inputs[0].numel(), 200) for _ in axes)
    assert sum(value.numel() for value in saved) <= tables + inputs[1].numel() + lines


@cases
@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (-1, 1)], ids=str)
def test_vmap(
    shape: tuple[int, ...], axes: tuple[int, ...], sizes: tuple[int, ...], in_dims: Any
) -> None:
    waves = waves_of(shape, axes, sizes)
    parts = [random(*shape), random(len(axes), COUNT)]
    batched = [
        part if dim is None else torch.stack([part, 2 * part, -part], dim)
        for part, dim in zip(parts, in_dims, strict=True)
    ]

    def pulled(function: Any) -> Any:
        def run(x: Tensor, g: Tensor) -> Any:
            output, pull = vjp(lambda *each: function(*each, waves, axes), x, g)
            return output, pull(output.cos())

        return vmap(run, in_dims)(*batched)

    assert_close(pulled(along_waves), pulled(naive))


def test_vmap_of_second_derivatives() -> None:
    shape, axes, sizes = CASES[2]
    waves = waves_of(shape, axes, sizes)
    inputs, gains = random(3, *shape), random(3, len(axes), COUNT)

    def penalty(function: Any) -> Any:
        def loss(x: Tensor, g: Tensor) -> Tensor:
            return function(x, g, waves, axes).sin().sum()

        def penalised(x: Tensor, g: Tensor) -> Tensor:
            return sum(part.square().sum() for part in grad(loss, (0, 1))(x, g))

        return vmap(grad(penalised, (0, 1)))(inputs, gains)

    assert_close(penalty(along_waves), penalty(naive))


def test_any_memory_layout_is_read() -> None:
    wide = random(4, 6, 5, 3)
    for input in (
        wide.movedim(1, -1),
        wide[:, ::2],
        wide.flip(2),
        wide[..., :1].expand(4, 6, 5, 3),
    ):
        waves = waves_of(input.shape, (-2, -1), (3, 2))
        gains = random(2, COUNT)
        ours = along_waves(input, gains, waves, (-2, -1))
        assert_close(ours, naive(input, gains, waves, (-2, -1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gains_stay_precise_where_maps_are_not(dtype: torch.dtype) -> None:
    shape, axes = (2, 64, 16, 8), (-2, -1)
    waves = waves_of(shape, axes, (6, 5), dtype=torch.float32)
    input = random(*shape, dtype=torch.float32).to(dtype).requires_grad_()
    gains = random(2, COUNT, dtype=torch.float32).requires_grad_()
    output = along_waves(input, gains, waves, axes)
    expected = naive(input.float(), gains, waves, axes)
    assert output.dtype == dtype
    scale = expected.abs().max().item() * torch.finfo(dtype).eps
    assert_close(output.float(), expected, rtol=0, atol=8 * scale)
    cotangent = torch.ones_like(expected)
    ours = torch.autograd.grad(output, gains, cotangent.to(dtype))[0]
    theirs = torch.autograd.grad(expected, gains, cotangent)[0]
    assert ours.dtype == torch.float32
    assert_close(ours, theirs, rtol=0, atol=8 * theirs.abs().max().item() * torch.finfo(dtype).eps)


def test_it_compiles_as_one_graph_for_every_batch() -> None:
    torch.compiler.reset()
    graphs = []

    def count(module: Any, _inputs: Any) -> Any:
        graphs.append(module)
        return module.forward

    compiled = torch.compile(along_waves, backend=count, fullgraph=True, dynamic=True)
    waves = waves_of((3, 2, 6, 8), (-2, -1), (4, 9))
    gains = random(2, COUNT).requires_grad_()
    for batch in (3, 5, 7):
        input = random(batch, 2, 6, 8).requires_grad_()
        ours = compiled(input, gains, waves, (-2, -1))
        expected = naive(input, gains, waves, (-2, -1))
        assert_close(ours, expected)
        assert_close(
            torch.autograd.grad(ours.sin().sum(), (input, gains)),
            torch.autograd.grad(expected.sin().sum(), (input, gains)),
        )
    assert len(graphs) == 1
