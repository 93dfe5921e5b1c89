"""Spectra that are kept for the backward pass: the same derivatives, and little held."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

from sizeless.functional import circular_kept
from sizeless.functional.circular_operators import circular_flops
from sizeless.functional.circular_products import convolve_spectra
from sizeless.functional.cropped_spectra import half_of, waves_of

Size = tuple[int, ...]

SIZES: list[tuple[Size, Size]] = [
    ((9,), (9,)),
    ((8,), (5,)),
    ((1,), (1,)),
    ((5, 6), (5, 6)),
    ((6, 5), (4, 5)),
    ((1, 4), (1, 2)),
    ((4, 3, 4), (2, 3, 3)),
]


def operands(
    before: Size, after: Size, channels: tuple[int, int] = (2, 4), dtype: Any = torch.float64
) -> tuple[Tensor, ...]:
    """Maps, filters that are not Hermitian, a bias; a group for each channel of the maps."""
    inputs, outputs = channels
    half = half_of(waves_of(before, after))
    shapes = (2, inputs, *before), (2, outputs, 1, *half), (outputs,)
    precise = torch.promote_types(dtype, torch.float32)
    dtypes = dtype, precise, precise
    return tuple(
        torch.randn(shape, dtype=each, requires_grad=True)
        for shape, each in zip(shapes, dtypes, strict=True)
    )


def saved_by(*arguments: Any) -> list[Tensor]:
    """What a convolution holds for the backward pass."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        convolve_spectra(*arguments)
    return saved


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep spectra however much larger than the map they are."""
    monkeypatch.setattr(circular_kept, "MOST_KEPT", math.inf)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("needed", [(1, 1, 1), (0, 1, 0), (0, 1, 1), (1, 1, 0)])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_first_and_second_derivatives(before: Size, after: Size, needed: tuple[int, ...]) -> None:
    tensors = operands(before, after)
    for tensor, wanted in zip(tensors, needed, strict=True):
        tensor.requires_grad_(bool(wanted))

    def run(input: Tensor, filter: Tensor, bias: Tensor) -> Tensor:
        return convolve_spectra(input, filter, bias, 2, after)

    assert gradcheck(run, tensors, fast_mode=True)
    assert gradgradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_third_derivatives_are_those_without(
    monkeypatch: pytest.MonkeyPatch, before: Size, after: Size, dtype: torch.dtype
) -> None:
    tensors = operands(before, after, dtype=dtype)
    found = []
    for most in (math.inf, 0.0):
        monkeypatch.setattr(circular_kept, "MOST_KEPT", most)
        value = convolve_spectra(*tensors, 2, after).pow(4).sum() / 100
        results = [value]
        for order in range(3):
            grads = torch.autograd.grad(value, tensors, create_graph=order < 2)
            results += grads
            value = sum((g.sin() * (1 + i)).sum() for i, g in enumerate(grads))
        found.append(results)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    for kept, anew in zip(*found, strict=True):
        scale = anew.abs().max().clamp_min(1e-3)
        torch.testing.assert_close(kept / scale, anew / scale, rtol=0, atol=tolerance)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dims", [(0, 0, 0), (0, None, None), (None, 0, None), (None, None, 0)])
def test_gradients_under_vmap(dims: tuple[int | None, ...]) -> None:
    tensors = [tensor.detach() for tensor in operands((4, 6), (3, 4))]
    stacked = [
        tensor if dim is None else torch.stack([tensor, 2 * tensor, tensor - 1])
        for tensor, dim in zip(tensors, dims, strict=True)
    ]

    def loss(*tensors: Tensor) -> Tensor:
        return convolve_spectra(*tensors, 2, (3, 4)).square().sum()

    def both(*tensors: Tensor) -> tuple[Tensor, ...]:
        first = torch.func.grad(loss, argnums=(0, 1, 2))
        return *first(*tensors), torch.func.grad(lambda *t: first(*t)[1].pow(3).sum())(*tensors)

    results = torch.vmap(both, dims)(*stacked)
    for n in range(3):
        each = [t if d is None else t[n] for t, d in zip(stacked, dims, strict=True)]
        torch.testing.assert_close([result[n] for result in results], list(both(*each)))


def test_spectra_are_kept_in_place_of_the_input() -> None:
    input, filter, bias = operands((12, 14), (12, 14), (3, 3))
    saved = saved_by(input, filter, bias, 3)
    assert input.data_ptr() not in {tensor.data_ptr() for tensor in saved}
    held = sum(tensor.nbytes for tensor in saved)
    assert held == input.nbytes * 8 * 2 // 14 + filter.nbytes
    cropped = operands((12, 14), (6, 7), (3, 3))
    held = sum(tensor.nbytes for tensor in saved_by(*cropped, 3, (6, 7)))
    assert held < input.nbytes / 2 + filter.nbytes


@pytest.mark.parametrize(
    ("before", "dtype"), [((12, 10), torch.bfloat16), ((3, 2), torch.float32)], ids=str
)
def test_an_input_much_smaller_than_its_spectra_is_held_itself(before: Size, dtype: Any) -> None:
    input, filter, _ = operands(before, before, (3, 3), dtype)
    held = {tensor.data_ptr() for tensor in saved_by(input, filter, None, 3)}
    assert held == {input.data_ptr(), filter.data_ptr()}


def test_frozen_filters_hold_nothing_but_themselves() -> None:
    input, filter, _ = operands((12, 10), (12, 10), (3, 3))
    filter = filter.detach()
    assert {t.data_ptr() for t in saved_by(input, filter, None, 3)} == {filter.data_ptr()}


def test_what_is_kept_serves_several_backward_passes() -> None:
    input, filter, bias = operands((12, 10), (5, 6), (3, 3))
    output = convolve_spectra(input, filter, bias, 3, (5, 6))
    cotangent = torch.randn_like(output)
    first, second = (
        torch.autograd.grad(output, (input, filter, bias), cotangent, retain_graph=True)
        for _ in range(2)
    )
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_an_output_may_be_changed_in_place() -> None:
    input, filter, bias = operands((12, 10), (12, 10), (3, 3))
    output = convolve_spectra(input, filter, bias, 3)
    expected = output.detach().relu()
    changed = nn.functional.relu_(output)
    assert torch.equal(changed, expected)
    assert torch.autograd.grad(changed.sum(), filter)[0].any()


def test_an_empty_batch_has_gradients_of_nothing() -> None:
    input, filter, bias = operands((12, 10), (6, 5), (3, 3))
    output = convolve_spectra(input[:0], filter, bias, 3, (6, 5))
    assert output.shape == (0, 3, 6, 5)
    assert not any(g.any() for g in torch.autograd.grad(output.sum(), (input, filter, bias)))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("after", [(6, 8), (4, 3)])
def test_operators_say_what_they_return(after: Size, last: bool) -> None:
    input, filter, bias = (tensor.detach() for tensor in operands((6, 8), after))
    if last:
        input = input.contiguous(memory_format=torch.channels_last)
    tests, operators = ("test_schema", "test_faketensor"), torch.ops.sizeless
    arguments: tuple[Any, ...] = (input, filter, bias, 2, after)
    torch.library.opcheck(operators.circular_kept.default, arguments, test_utils=tests)
    grad, spectra = operators.circular_kept(*arguments)
    assert grad.shape[2:] == after
    assert grad.is_contiguous(memory_format=torch.channels_last) == last
    for used in (filter, None):
        arguments = grad, spectra, used, 2, (6, 8)
        torch.library.opcheck(
            operators.circular_kept_gradients.default, arguments, test_utils=tests
        )
    arguments = grad, filter, None, 2, True, (6, 8)
    torch.library.opcheck(operators.circular.default, arguments, test_utils=tests)


def test_operations_are_counted() -> None:
    input, filter, bias = operands((8, 16), (8, 8), (4, 4))
    large, small = 2.5 * 128 * 7, 2.5 * 64 * 6
    once = 2 * (4 * large + 4 * small + 4 * 64 * 4)
    assert circular_flops(2, 4, 4, 4, (8, 16), (8, 8)) == once
    with FlopCounterMode(display=False) as counter:
        output = convolve_spectra(input, filter, bias, 4, (8, 8))
    assert counter.get_total_flops() == once
    # The transforms of the input are not made again; the products are two.
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == once + 2 * 4 * 64 * 4


def test_the_gradient_of_filters_alone_is_counted() -> None:
    input, filter, _ = operands((8, 16), (8, 8), (4, 4))
    output = convolve_spectra(input.detach(), filter, None, 4, (8, 8))
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * (4 * 2.5 * 64 * 6 + 4 * 64 * 4)
