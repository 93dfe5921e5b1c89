"""Cosines and sines of one axis: the table, and the fast transforms that multiply by it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap
from torch.testing import assert_close

from sizeless.functional.waves import from_waves, to_waves, waves

DOUBLE, CPU = torch.float64, torch.device("cpu")

sizes = st.integers(1, 13)
PLACES = [((5,), -1), ((2, 6), -1), ((6, 2), -2), ((2, 7, 3), -2), ((4, 2, 3), -3)]
places = pytest.mark.parametrize(("shape", "axis"), PLACES, ids=str)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE)


def table(size: int, count: int) -> Tensor:
    return waves(size, count, DOUBLE, CPU)


def times(matrix: Tensor, input: Tensor, axis: int) -> Tensor:
    return torch.tensordot(input, matrix, ([axis], [1])).movedim(-1, axis)


# ---- the table -----------------------------------------------------------------------------------


@given(size=sizes, data=st.data())
def test_the_table_is_the_formula(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, size))
    values = table(size, count)
    assert values.shape == (count, size)
    for row in range(count):
        cycles = (row + 1) // 2
        for sample in range(size):
            angle = 2 * math.pi * cycles * sample / size
            wave = math.cos(angle) if row % 2 else -math.sin(angle)
            expected = 1 / math.sqrt(size) if row == 0 else math.sqrt(2 / size) * wave
            assert values[row, sample].item() == pytest.approx(expected, abs=1e-12)


@given(size=st.integers(1, 40))
def test_waves_below_the_highest_frequency_are_orthonormal(size: int) -> None:
    count = size if size % 2 else max(size - 1, 1)
    values = table(size, count)
    assert_close(values @ values.t(), torch.eye(count, dtype=DOUBLE))


@given(half=st.integers(1, 20))
def test_the_highest_wave_of_an_even_axis_counts_twice(half: int) -> None:
    values = table(2 * half, 2 * half)
    expected = torch.eye(2 * half, dtype=DOUBLE)
    expected[-1, -1] = 2
    assert_close(values @ values.t(), expected)


def test_angles_of_long_axes_are_exact_in_float32() -> None:
    size, count = 100_003, 40
    samples = torch.arange(size)
    values = waves(size, count, torch.float32, CPU)
    for row in (1, 2, count - 2, count - 1):
        angle = ((row + 1) // 2 * samples % size).double() * (2 * math.pi / size)
        wave = angle.cos() if row % 2 else -angle.sin()
        scale = math.sqrt(2 / size)
        assert_close(values[row].double() / scale, wave, rtol=0, atol=2e-6)


def test_the_table_is_made_once() -> None:
    assert table(5, 3) is table(5, 3)
    assert table(5, 3) is not waves(5, 3, torch.float32, CPU)
    with torch.inference_mode():
        made = waves(11, 7, DOUBLE, CPU)
    assert not made.is_inference()


# ---- the transforms ------------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    data=st.data(),
)
@settings(max_examples=60)
def test_transforms_are_products_with_the_table(shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), -1))
    size = shape[axis]
    count = data.draw(st.integers(1, size))
    input = random(*shape)
    amplitudes = to_waves(input, count, axis)
    assert amplitudes.is_contiguous()
    assert_close(amplitudes, times(table(size, count), input, axis))
    other = torch.randn_like(amplitudes)
    back = from_waves(other, size, axis)
    assert back.is_contiguous()
    assert_close(back, times(table(size, count).t(), other, axis))
    assert_close((amplitudes * other).sum(), (input * back).sum())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 16, 35])
def test_every_count_of_every_size(size: int) -> None:
    input = random(3, size)
    for count in range(1, size + 1):
        assert_close(to_waves(input, count, -1), input @ table(size, count).t())
        amplitudes = random(3, count)
        assert_close(from_waves(amplitudes, size, -1), amplitudes @ table(size, count))


@given(size=sizes.filter(lambda n: n % 2))
def test_all_waves_of_an_odd_axis_give_the_samples_back(size: int) -> None:
    input = random(2, size)
    assert_close(from_waves(to_waves(input, size, -1), size, -1), input)


@places
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_first_and_second_derivatives(shape: tuple[int, ...], axis: int, cut: int) -> None:
    size = shape[axis]
    count = size - cut
    samples = random(*shape).requires_grad_()
    amplitudes = samples.detach().narrow(axis, 0, count).clone().requires_grad_()
    for run, value in (
        (lambda x: to_waves(x, count, axis), samples),
        (lambda x: from_waves(x, size, axis), amplitudes),
    ):
        assert gradcheck(run, (value,))
        assert gradgradcheck(lambda x, run=run: run(x).square(), (value,))


@places
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_vmap(shape: tuple[int, ...], axis: int, dim: int) -> None:
    size = shape[axis]
    samples = [random(*shape) for _ in range(3)]
    count = size - 1
    batch = torch.stack(samples, dim)
    ours = vmap(lambda x: to_waves(x, count, axis), dim)(batch)
    assert_close(ours, torch.stack([to_waves(x, count, axis) for x in samples]))
    back = vmap(lambda x: from_waves(x, size, axis))(ours)
    assert_close(back, torch.stack([from_waves(x, size, axis) for x in ours]))

    def loss(x: Tensor) -> Tensor:
        return from_waves(to_waves(x, count, axis).sin(), size, axis).square().sum()

    assert_close(vmap(grad(loss), dim)(batch), torch.stack([grad(loss)(x) for x in samples]))


@places
def test_nothing_comes_of_no_maps(shape: tuple[int, ...], axis: int) -> None:
    samples = random(0, *shape).requires_grad_()
    size = shape[axis]
    amplitudes = to_waves(samples, size - 1, axis)
    back = from_waves(amplitudes, size, axis)
    assert amplitudes.shape[axis] == size - 1
    assert back.shape == samples.shape
    back.sum().backward()
    assert samples.grad.shape == samples.shape


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
def test_half_precision_is_transformed_in_float32(dtype: torch.dtype, error: float) -> None:
    input = random(3, 12).to(dtype)
    ours = to_waves(input, 7, -1)
    assert ours.dtype == dtype
    assert_close(ours.double(), to_waves(input.double(), 7, -1), rtol=error, atol=error)
    back = from_waves(ours, 12, -1)
    assert back.dtype == dtype
    assert_close(back.double(), from_waves(ours.double(), 12, -1), rtol=error, atol=error)


def test_any_memory_layout_is_read() -> None:
    wide = random(4, 6, 5)
    for input in (
        wide.movedim(1, -1),
        wide[:, ::2],
        wide.flip(2),
        wide[..., :1].expand(wide.shape),
    ):
        for axis in (-1, -2):
            count, size = input.shape[axis] - 1, input.shape[axis]
            assert_close(to_waves(input, count, axis), times(table(size, count), input, axis))
            assert_close(
                from_waves(input, 8, axis),
                times(table(8, size).t(), input, axis),
            )


@pytest.mark.parametrize("dynamic", [True, False])
def test_they_compile_as_one_graph(dynamic: bool) -> None:
    torch.compiler.reset()
    graphs = []

    def count(module: Any, _inputs: Any) -> Any:
        graphs.append(module)
        return module.forward

    def resize(input: Tensor) -> Tensor:
        return from_waves(to_waves(input, 5, -2), 9, -2)

    compiled = torch.compile(resize, backend=count, fullgraph=True, dynamic=dynamic)
    for batch in (2, 3, 7) if dynamic else (2, 2):
        input = random(batch, 6, 4).requires_grad_()
        ours, expected = compiled(input), resize(input)
        assert_close(ours, expected)
        assert_close(
            torch.autograd.grad(ours.sin().sum(), input),
            torch.autograd.grad(expected.sin().sum(), input),
        )
    assert len(graphs) == 1


def test_on_the_meta_device() -> None:
    input = random(2, 6, 3).to("meta").requires_grad_()
    amplitudes = to_waves(input, 5, -2)
    assert amplitudes.shape == (2, 5, 3)
    assert from_waves(amplitudes, 9, -2).shape == (2, 9, 3)
    amplitudes.sum().backward()
    assert input.grad.shape == input.shape
