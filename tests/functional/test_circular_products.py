"""The operators of circular convolution: chunks, layouts, tracing and counting."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

from sizeless.functional import circular_spectra
from sizeless.functional.circular_operators import circular_flops
from sizeless.functional.circular_products import convolve_spectra
from sizeless.functional.cropped_spectra import half_of

SHAPES = [(1, 1, 3), (2, 1, 3), (3, 2, 2), (5, 1, 1), (4, 3, 2)]
"""Maps, outputs of a group, groups."""


def half_spectrum_of(kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    spectrum = torch.fft.rfftn(kernel, dim=tuple(range(-len(size), 0)))
    return torch.stack((spectrum.real, spectrum.imag))


def operands(
    size: tuple[int, ...], maps: int, inputs: int, outputs: int, groups: int
) -> tuple[Tensor, ...]:
    return tuple(
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in [
            (maps, groups * inputs, *size),
            (groups * outputs, inputs, *size),
            (groups * outputs,),
        ]
    )


def results(tensors: tuple[Tensor, ...], groups: int) -> list[Tensor]:
    """Output, gradients, and gradients of a function of these."""
    input, kernel, bias = tensors
    filter = half_spectrum_of(kernel, tuple(input.shape[2:]))
    output = convolve_spectra(input, filter, bias, groups)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view(output.shape)
    first = torch.autograd.grad((output.square() * weights).sum(), tensors, create_graph=True)
    second = torch.autograd.grad(sum(g.pow(3).sum() for g in first), tensors)
    return [output, *first, *second]


@pytest.mark.parametrize("workspace", [1, 1 << 10, 1 << 30])
@pytest.mark.parametrize(("maps", "outputs", "groups"), SHAPES)
@pytest.mark.parametrize("size", [(6, 5), (5, 6), (3, 4, 4), (9, 8)])
def test_any_chunks_give_the_same(monkeypatch, size, maps, outputs, groups, workspace):
    tensors = operands(size, maps, 1, outputs, groups)
    expected = results(tensors, groups)
    monkeypatch.setattr(circular_spectra, "WORKSPACE", workspace)
    torch.testing.assert_close(results(tensors, groups), expected)


def test_samples_do_not_touch_each_other():
    input, kernel, _ = (tensor.detach() for tensor in operands((12, 10), 4, 1, 1, 3))
    filter = half_spectrum_of(kernel, (12, 10))
    output = convolve_spectra(input, filter, None, 3)
    input[1], input[3] = math.nan, math.inf
    broken = convolve_spectra(input, filter, None, 3)
    assert torch.equal(broken[::2], output[::2])
    assert not broken[1::2].isfinite().any()


@pytest.mark.parametrize("size", [(4,), (5,), (3, 4), (1, 2, 3), (8, 8)])
def test_small_maps_are_transformed_by_a_matrix(monkeypatch, size):
    tensors = operands(size, 3, 2, 2, 2)
    small = results(tensors, 2)
    monkeypatch.setattr(circular_spectra, "SMALL", 0)
    torch.testing.assert_close(small, results(tensors, 2))


@pytest.mark.parametrize("inputs", [1, 2])
def test_derivatives(inputs):
    tensors = operands((3, 4), 3, inputs, 1, 2)

    def run(input: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return convolve_spectra(input, half_spectrum_of(kernel, (3, 4)), bias, 2)

    assert gradcheck(run, tensors, fast_mode=True)
    assert gradgradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("batched", [(0, 0, 0), (0, None, None), (None, 0, None), (0, None, 0)])
def test_vmap_over_any_operand(batched):
    input, kernel, bias = (tensor.detach() for tensor in operands((6, 4), 3, 1, 2, 2))
    operand = (input, half_spectrum_of(kernel, (6, 4)), bias)
    stacked = [
        tensor if dim is None else torch.stack([tensor, 2 * tensor, tensor - 1])
        for tensor, dim in zip(operand, batched, strict=True)
    ]

    def run(input: Tensor, filter: Tensor, bias: Tensor) -> Tensor:
        return convolve_spectra(input, filter, bias, 2)

    outputs = torch.vmap(run, batched)(*stacked)
    for n in range(3):
        each = [t if d is None else t[n] for t, d in zip(stacked, batched, strict=True)]
        torch.testing.assert_close(outputs[n], run(*each))


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_operators_say_what_they_return(inputs, last):
    input, kernel, bias = (tensor.detach() for tensor in operands((6, 4), 3, inputs, 2, 2))
    filter = half_spectrum_of(kernel, (6, 4))
    if last:
        input = input.contiguous(memory_format=torch.channels_last)
    tests = ("test_schema", "test_faketensor")
    operators = torch.ops.sizeless
    torch.library.opcheck(
        operators.circular.default, (input, filter, bias, 2, False), test_utils=tests
    )
    grad = operators.circular(input, filter, bias, 2, False)
    assert grad.is_contiguous(memory_format=torch.channels_last) == last
    for operator, arguments in (
        (operators.circular, (grad, filter, None, 2, True)),
        (operators.circular_gradients, (grad, input, filter, 2)),
        (operators.circular_filter_gradient, (grad, input, 2)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=tests)


def test_operations_are_counted():
    input, kernel, bias = operands((8, 16), 3, 2, 4, 1)
    filter = half_spectrum_of(kernel, (8, 16)).detach().requires_grad_()
    once = 3 * (6 * 2.5 * 128 * 7 + 8 * 64 * 8)
    assert circular_flops(3, 2, 4, 1, (8, 16)) == once
    with FlopCounterMode(display=False) as counter:
        output = convolve_spectra(input, filter, bias)
    assert counter.get_total_flops() == once
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * once


def test_little_is_saved_for_the_backward_pass():
    input, kernel, _ = operands((12, 10), 2, 1, 1, 3)
    filter = half_spectrum_of(kernel, (12, 10)).detach().requires_grad_()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        convolve_spectra(input, filter, None, 3)
    # The filter, and in place of the input its spectra: the constant and the Nyquist frequency of
    # the last axis are the two columns more.
    columns = input.nbytes // 10
    assert sum(tensor.nbytes for tensor in saved) == input.nbytes + 2 * columns + filter.nbytes
    assert input.data_ptr() not in {tensor.data_ptr() for tensor in saved}


def test_half_sizes():
    assert half_of((5, 8)) == (5, 5)
    assert math.prod(half_of((7,))) == 4
