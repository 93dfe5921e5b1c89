"""A circular convolution and a resampling in one step, against one after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sizeless.functional import circular_spectra, naive
from sizeless.functional.circular_resampled import convolve_resampled
from sizeless.functional.cropped_spectra import half_of, to_maps, to_spectra, waves_of
from sizeless.functional.low_pass import plain_gains
from sizeless.functional.resampling import Resampling

Size = tuple[int, ...]

PAIRS: list[tuple[Size, Size]] = [
    ((8,), (4,)),
    ((8,), (5,)),
    ((8,), (8,)),
    ((8,), (7,)),
    ((7,), (4,)),
    ((7,), (3,)),
    ((2,), (1,)),
    ((1,), (1,)),
    ((6, 5), (4, 3)),
    ((6, 8), (6, 4)),
    ((6, 8), (3, 8)),
    ((5, 8), (4, 7)),
    ((9, 12), (4, 6)),
    ((1, 6), (1, 3)),
    ((6, 1), (4, 1)),
    ((12, 11), (12, 6)),
    ((4, 5, 6), (2, 4, 3)),
    ((4, 3, 6), (4, 2, 4)),
]
CHANNELS = [(2, 2, 2), (2, 4, 2), (4, 2, 2), (3, 2, 1)]


def operands(
    before: Size, channels: tuple[int, int, int], batch: int = 2, dtype: Any = torch.float64
) -> tuple[Tensor, ...]:
    """Maps, kernels as large as them, a bias, and end and width of a window."""
    inputs, outputs, groups = channels
    shapes = (batch, inputs, *before), (outputs, inputs // groups, *before), (outputs,)
    tensors = [torch.randn(shape, dtype=dtype) for shape in shapes]
    tensors.append(torch.tensor([0.37 * n + 0.3 for n in before], dtype=dtype))
    tensors.append(torch.full((len(before),), 1.7, dtype=dtype))
    return tuple(tensor.requires_grad_() for tensor in tensors)


def resampling(before: Size, after: Size, amplitude: str, end: Tensor, width: Tensor) -> Resampling:
    return Resampling(
        before,
        after,
        (end, width),
        amplitude=amplitude,
        method="matrix",
        dtype=end.dtype,
        device=end.device,
    )


def lowest(kernel: Tensor, waves: Size) -> Tensor:
    """Real and imaginary parts of the spectra at the lowest frequencies, picked one by one."""
    ndim = len(waves)
    spectra = torch.fft.fftn(kernel, dim=tuple(range(-ndim, 0)))
    for axis, (count, taken) in enumerate(zip(waves, half_of(waves), strict=True), start=-ndim):
        n = spectra.shape[axis]
        order = [k if k <= count // 2 else k - count for k in range(taken)]
        places = torch.tensor([k % n for k in order])
        spectra = spectra.index_select(axis, places)
    return torch.stack((spectra.real, spectra.imag))


def at_once(after: Size, groups: int, amplitude: str, *tensors: Tensor) -> Tensor:
    input, kernel, bias, end, width = tensors
    before = tuple(input.shape[2:])
    gains = resampling(before, after, amplitude, end, width).gains
    filter = lowest(kernel, waves_of(before, after))
    return convolve_resampled(input, filter, bias, gains, after, groups)


def in_turn(after: Size, groups: int, amplitude: str, *tensors: Tensor) -> Tensor:
    input, kernel, bias, end, width = tensors
    before = tuple(input.shape[2:])
    parts = torch.fft.rfftn(kernel, dim=tuple(range(2, kernel.dim())))
    output = naive.circular_convolve(input, parts.real, parts.imag, bias, groups=groups)
    return resampling(before, after, amplitude, end, width)(output)


def with_gradients(output: Tensor, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    ramp = torch.linspace(-1, 2, max(output.numel(), 1), dtype=output.dtype)
    loss = (output * ramp[: output.numel()].view(output.shape)).sum()
    return [output, *torch.autograd.grad(loss, tensors)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs.shape
        if theirs.numel():
            scale = max(theirs.abs().max().item(), 1e-2)
            assert (mine - theirs).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("small", [0, circular_spectra.SMALL])
@pytest.mark.parametrize("amplitude", ["mean", "sum"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_equals_one_after_the_other_with_all_gradients(
    monkeypatch: pytest.MonkeyPatch,
    before: Size,
    after: Size,
    channels: tuple[int, int, int],
    amplitude: str,
    small: int,
) -> None:
    monkeypatch.setattr(circular_spectra, "SMALL", small)
    tensors, groups = operands(before, channels), channels[2]
    expected = with_gradients(in_turn(after, groups, amplitude, *tensors), tensors)
    actual = with_gradients(at_once(after, groups, amplitude, *tensors), tensors)
    assert_close(actual, expected, 1e-10)
    singles = tuple(tensor.detach().float().requires_grad_() for tensor in tensors)
    actual = with_gradients(at_once(after, groups, amplitude, *singles), singles)
    assert_close(actual, [tensor.float() for tensor in expected], 1e-4)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3),
    batch=st.integers(0, 2),
    groups=st.integers(1, 2),
    inputs=st.integers(1, 2),
    outputs=st.integers(1, 2),
)
def test_any_shape_equals_one_after_the_other(
    sizes: list[tuple[int, int]], batch: int, groups: int, inputs: int, outputs: int
) -> None:
    before, after = (tuple(f(pair) for pair in sizes) for f in (max, min))
    channels = (groups * inputs, groups * outputs, groups)
    tensors = operands(before, channels, batch)
    expected = with_gradients(in_turn(after, groups, "mean", *tensors), tensors)
    actual = with_gradients(at_once(after, groups, "mean", *tensors), tensors)
    assert_close(actual, expected, 1e-9)


@pytest.mark.parametrize("channels", [(2, 2, 2), (2, 3, 1)])
@pytest.mark.parametrize(("before", "after"), [((8,), (4,)), ((5, 6), (4, 4)), ((4, 4), (4, 3))])
def test_first_and_second_derivatives(
    before: Size, after: Size, channels: tuple[int, int, int]
) -> None:
    tensors = operands(before, channels, batch=1)

    def run(*tensors: Tensor) -> Tensor:
        return at_once(after, channels[2], "mean", *tensors)

    assert gradcheck(run, tensors, fast_mode=True)
    assert gradgradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("workspace", [1, 1 << 10])
def test_any_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch, workspace: int) -> None:
    tensors = operands((9, 12), (4, 8, 4), batch=3)
    expected = with_gradients(at_once((4, 6), 4, "mean", *tensors), tensors)
    monkeypatch.setattr(circular_spectra, "WORKSPACE", workspace)
    actual = with_gradients(at_once((4, 6), 4, "mean", *tensors), tensors)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    input, kernel, bias, end, width = operands((9, 12), (4, 4, 4), dtype=torch.float32)
    half = input.detach().to(dtype).requires_grad_()
    output = at_once((4, 6), 4, "mean", half, kernel, bias, end, width)
    expected = at_once((4, 6), 4, "mean", half.float(), kernel, bias, end, width)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype))
    output.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype


@pytest.mark.parametrize("channels", [(4, 4, 4), (4, 4, 2)])
def test_memory_layouts(channels: tuple[int, int, int]) -> None:
    input, *others = operands((6, 8), channels)
    expected = at_once((4, 4), channels[2], "mean", input, *others)
    last = input.contiguous(memory_format=torch.channels_last)
    output = at_once((4, 4), channels[2], "mean", last, *others)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected)
    turned = input.transpose(-1, -2).contiguous().transpose(-1, -2)
    torch.testing.assert_close(at_once((4, 4), channels[2], "mean", turned, *others), expected)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_spectra_of_less_are_parts_of_the_whole_and_go_back(before: Size, after: Size) -> None:
    waves = waves_of(before, after)
    maps = torch.randn(2, *before, dtype=torch.float64)
    spectra = to_spectra(maps, waves)
    torch.testing.assert_close(torch.view_as_real(spectra).movedim(-1, 0), lowest(maps, waves))
    low = to_maps(spectra.clone(), waves, before)
    torch.testing.assert_close(to_spectra(low, waves), spectra)
    if waves == before:
        torch.testing.assert_close(low, maps)
    assert to_maps(spectra, waves, after).shape == (2, *after)


def test_gains_without_a_window_are_those_of_resample() -> None:
    input = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    gains = plain_gains((9, 12), (4, 6), "mean", torch.float64, input.device)
    ones = torch.ones(3, 1, *half_of(waves_of((9, 12), (4, 6))), dtype=torch.float64)
    filter = torch.stack((ones, torch.zeros_like(ones)))
    output = convolve_resampled(input, filter, None, gains, (4, 6), groups=3)
    torch.testing.assert_close(output, naive.resample(input, (4, 6)))
