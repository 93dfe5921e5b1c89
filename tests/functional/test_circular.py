"""Circular convolution by half spectra against its naive twin, and the laws it obeys."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sizeless.functional import circular_convolve, convolve, hermitian_half, naive, spatial_kernel
from sizeless.functional.circular import hermitian_spectrum

LINES = [(1,), (2,), (7,), (8,)]
MAPS = [*LINES, (1, 1), (1, 6), (5, 1), (4, 4), (3, 5), (6, 3), (2, 3, 4), (3, 1, 2)]
CHANNELS = [(2, 3, 1), (4, 4, 4), (2, 4, 2), (4, 2, 2)]


def half(map_size: tuple[int, ...]) -> tuple[int, ...]:
    return (*map_size[:-1], map_size[-1] // 2 + 1)


def operands(
    map_size: tuple[int, ...],
    channels: tuple[int, int, int] = (2, 3, 1),
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, a filter that is NOT Hermitian on the self-conjugate planes, and a bias."""
    in_channels, out_channels, groups = channels
    shape = (out_channels, in_channels // groups, *half(map_size))
    input = torch.randn(batch, in_channels, *map_size, dtype=dtype, requires_grad=True)
    real, imag = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(2))
    return input, real, imag, torch.randn(out_channels, dtype=dtype, requires_grad=True)


def outputs_and_gradients(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], groups: int
) -> list[Tensor]:
    output = function(*tensors, groups=groups)
    ramp = torch.linspace(-1, 2, max(output.numel(), 1), dtype=output.dtype)
    loss = (output * ramp[: output.numel()].reshape(output.shape)).sum()
    return [output, *torch.autograd.grad(loss, tensors)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs.shape
        if theirs.numel():
            scale = max(theirs.abs().max().item(), 1e-3)
            assert (mine - theirs).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("map_size", MAPS)
def test_equals_the_naive_sum_with_all_gradients(
    map_size: tuple[int, ...], channels: tuple[int, int, int]
) -> None:
    tensors = operands(map_size, channels)
    expected = outputs_and_gradients(naive.circular_convolve, tensors, channels[2])
    actual = outputs_and_gradients(circular_convolve, tensors, channels[2])
    assert_close(actual, expected, 1e-10)
    singles = tuple(tensor.detach().float().requires_grad_() for tensor in tensors)
    actual = outputs_and_gradients(circular_convolve, singles, channels[2])
    assert_close(actual, [tensor.float() for tensor in expected], 1e-4)


@settings(max_examples=30)
@given(
    map_size=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    batch=st.integers(0, 2),
    groups=st.integers(1, 3),
    group_inputs=st.integers(1, 2),
    group_outputs=st.integers(1, 2),
)
def test_any_shape_equals_the_naive_sum(
    map_size: tuple[int, ...], batch: int, groups: int, group_inputs: int, group_outputs: int
) -> None:
    channels = (groups * group_inputs, groups * group_outputs, groups)
    tensors = operands(map_size, channels, batch)
    expected = outputs_and_gradients(naive.circular_convolve, tensors, groups)
    assert_close(outputs_and_gradients(circular_convolve, tensors, groups), expected, 1e-10)


@pytest.mark.parametrize("map_size", [(5,), (4,), (2, 3), (3, 2), (2, 1, 2)])
def test_first_and_second_derivatives(map_size: tuple[int, ...]) -> None:
    tensors = operands(map_size, (2, 2, 1), batch=1)
    assert gradcheck(circular_convolve, tensors)
    assert gradgradcheck(circular_convolve, tensors, fast_mode=True)


@pytest.mark.parametrize("map_size", MAPS)
def test_only_the_hermitian_part_of_a_full_spectrum_acts(map_size: tuple[int, ...]) -> None:
    axes = tuple(range(2, 2 + len(map_size)))
    input = torch.randn(2, 3, *map_size, dtype=torch.float64)
    full = torch.randn(3, 1, *map_size, dtype=torch.complex128)
    expected = torch.fft.ifftn(torch.fft.fftn(input, dim=axes) * full[:, 0], dim=axes).real
    real, imag = hermitian_half(full.real, full.imag, len(map_size))
    assert real.shape == imag.shape == (3, 1, *half(map_size))
    torch.testing.assert_close(circular_convolve(input, real, imag, groups=3), expected)


@pytest.mark.parametrize("map_size", MAPS)
def test_the_hermitian_half_negates_indices(map_size: tuple[int, ...]) -> None:
    full = torch.randn(2, *map_size, dtype=torch.complex128)
    real, imag = hermitian_half(full.real, full.imag, len(map_size))
    for k in itertools.product(*(range(n) for n in half(map_size))):
        opposite = tuple(-i % n for i, n in zip(k, map_size, strict=True))
        expected = 0.5 * (full[(..., *k)] + full[(..., *opposite)].conj())
        torch.testing.assert_close(torch.complex(real, imag)[(..., *k)], expected)


@pytest.mark.parametrize("map_size", MAPS)
def test_a_real_kernel_comes_back_from_its_spectrum(map_size: tuple[int, ...]) -> None:
    axes = tuple(range(2, 2 + len(map_size)))
    kernel = torch.randn(3, 2, *map_size, dtype=torch.float64)
    spectrum = torch.fft.rfftn(kernel, dim=axes)
    centred = spatial_kernel(spectrum.real, spectrum.imag, map_size)
    torch.testing.assert_close(centred, torch.fft.fftshift(kernel, dim=axes))
    full = torch.fft.fftn(kernel, dim=axes)
    real, imag = hermitian_half(full.real, full.imag, len(map_size))
    torch.testing.assert_close(torch.complex(real, imag), spectrum)


@pytest.mark.parametrize("map_size", [(7,), (8,), (4, 7), (5, 6), (3, 4, 2)])
def test_the_spatial_kernel_flipped_is_the_kernel_of_a_padded_correlation(
    map_size: tuple[int, ...],
) -> None:
    axes = tuple(range(2, 2 + len(map_size)))
    input, real, imag, bias = operands(map_size)
    kernel = spatial_kernel(real, imag, map_size)
    expected = circular_convolve(input, real, imag, bias)
    # Lag 0 lies at floor(N / 2); after the flip as many taps precede it as followed it, which is
    # how "same" pads.
    flipped = kernel.flip(axes)
    for method in ("direct", "fft"):
        actual = convolve(
            input, flipped, bias, padding="same", padding_mode="circular", method=method
        )
        torch.testing.assert_close(actual, expected)


def test_a_delta_shifts_the_map() -> None:
    for lag in range(5):
        delta = torch.zeros(1, 1, 5, dtype=torch.float64)
        delta[..., lag] = 1
        spectrum = torch.fft.rfft(delta)
        input = torch.randn(2, 1, 5, dtype=torch.float64)
        output = circular_convolve(input, spectrum.real, spectrum.imag)
        torch.testing.assert_close(output, input.roll(lag, -1))


@pytest.mark.parametrize("map_size", [(9,), (6, 5), (4, 3, 5)])
def test_commutes_with_shifts(map_size: tuple[int, ...]) -> None:
    input, real, imag, bias = operands(map_size)
    axes, shifts = tuple(range(2, input.dim())), (3, -1, 7)[: len(map_size)]
    moved = circular_convolve(input.roll(shifts, axes), real, imag, bias)
    expected = circular_convolve(input, real, imag, bias).roll(shifts, axes)
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("map_size", [(9,), (6, 5), (4, 3, 6)])
def test_linear_with_the_conjugate_filter_as_adjoint(map_size: tuple[int, ...]) -> None:
    input, real, imag, _ = operands(map_size, (4, 4, 4))
    other, probe = torch.randn_like(input), torch.randn_like(input)
    output = circular_convolve(input, real, imag, groups=4)
    combined = circular_convolve(2 * input - other, real, imag, groups=4)
    expected = 2 * output - circular_convolve(other, real, imag, groups=4)
    torch.testing.assert_close(combined, expected)
    back = circular_convolve(probe, real, -imag, groups=4)
    torch.testing.assert_close((output * probe).sum(), (input * back).sum())


@pytest.mark.parametrize("map_size", MAPS)
def test_the_spectrum_that_acts_is_that_of_a_real_kernel(map_size: tuple[int, ...]) -> None:
    # Were it not, the inverse transforms of different devices would disagree.
    axes = tuple(range(2, 2 + len(map_size)))
    _, real, imag, _ = operands(map_size)
    spectrum = hermitian_spectrum(real, imag, map_size)
    kernel = torch.fft.irfftn(spectrum, s=map_size, dim=axes)
    torch.testing.assert_close(torch.fft.rfftn(kernel, dim=axes), spectrum)


def test_imaginary_parts_without_a_real_kernel_do_nothing() -> None:
    input, real, imag, _ = operands((6,))
    other = imag.detach().clone()
    other[..., [0, 3]] += 100
    expected = circular_convolve(input, real, imag)
    torch.testing.assert_close(circular_convolve(input, real, other), expected)


def test_batches_are_independent_and_may_be_empty() -> None:
    input, real, imag, bias = operands((4, 5), batch=3)
    whole = circular_convolve(input, real, imag, bias)
    parts = [circular_convolve(sample[None], real, imag, bias) for sample in input]
    torch.testing.assert_close(whole, torch.cat(parts))
    output = circular_convolve(input[:0], real, imag, bias)
    gradients = torch.autograd.grad(output.sum(), (real, imag, bias))
    assert output.shape == (0, 3, 4, 5)
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("ndim", [2, 3])
def test_memory_layouts(ndim: int) -> None:
    layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
    input, real, imag, bias = operands((5, 4, 3)[:ndim], (4, 4, 4))
    expected = circular_convolve(input, real, imag, bias, groups=4)
    last = circular_convolve(input.contiguous(memory_format=layout), real, imag, bias, groups=4)
    assert last.is_contiguous(memory_format=layout)
    torch.testing.assert_close(last, expected)
    views = [
        tensor.transpose(-1, -2).contiguous().transpose(-1, -2) for tensor in (input, real, imag)
    ]
    assert not any(view.is_contiguous() for view in views)
    torch.testing.assert_close(circular_convolve(*views, bias, groups=4), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    tensors = operands((6, 5), (4, 4, 4), dtype=dtype)
    output = circular_convolve(*tensors, groups=4)
    assert output.dtype == dtype
    expected = circular_convolve(*(tensor.float() for tensor in tensors), groups=4)
    torch.testing.assert_close(output, expected.to(dtype))
    assert spatial_kernel(tensors[1], tensors[2], (6, 5)).dtype == dtype


@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_returns_what_a_convolution_returns(input_dtype: torch.dtype) -> None:
    input, real, imag, _ = (tensor.float() for tensor in operands((8,)))
    if input_dtype == torch.float64:
        real, imag = real.double(), imag.double()
    input = input.to(input_dtype)
    weight = torch.zeros(1, 2, 3, dtype=real.dtype)
    expected = circular_convolve(input.to(real.dtype), real, imag)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = circular_convolve(input, real, imag)
        assert output.dtype == F.conv1d(input, weight).dtype
    torch.testing.assert_close(output, expected.to(output.dtype))


def test_function_transforms() -> None:
    inputs = torch.randn(3, 2, 2, 4, 5).double()
    reals, imags = torch.randn(2, 3, 2, 2, 4, 3).double()

    def loss(real: Tensor, imag: Tensor, input: Tensor) -> Tensor:
        return circular_convolve(input, real, imag).square().sum()

    outputs = torch.func.vmap(circular_convolve)(inputs, reals, imags)
    gradients = torch.func.vmap(torch.func.grad(loss))(reals, imags, inputs)
    for n in range(3):
        expected = circular_convolve(inputs[n], reals[n], imags[n])
        torch.testing.assert_close(outputs[n], expected)
        gradient = torch.func.grad(loss)(reals[n], imags[n], inputs[n])
        torch.testing.assert_close(gradients[n], gradient)


X, H = torch.zeros(2, 4, 6, 8), torch.zeros(6, 2, 6, 5)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, H, H), {}, TypeError, "input must be a torch.Tensor, got NoneType"),
        ((X[0, 0], H, H), {}, ValueError, "1, 2 or 3 spatial axes"),
        ((X, None, H), {"groups": 2}, TypeError, "real must be a torch.Tensor, got NoneType"),
        ((X, H.cfloat(), H), {"groups": 2}, TypeError, "real must be a real floating-point"),
        ((X, H, H.double()), {"groups": 2}, TypeError, "imag must have the dtype of input"),
        ((X, H, H.to("meta")), {"groups": 2}, ValueError, "imag must be on the device of input"),
        ((X, H, H), {}, ValueError, "the input has 4 channels and groups=1, got shape"),
        ((X, H[:5], H[:5]), {"groups": 2}, ValueError, "groups must divide the output channels"),
        ((X, H[0], H[0]), {"groups": 2}, ValueError, "real must have 4 dimensions"),
        (
            (X, torch.zeros(6, 2, 6, 8), H),
            {"groups": 2},
            ValueError,
            r"real must be the half spectrum of a map of size \(6, 8\), of shape \(6, 2, 6, 5\)",
        ),
        ((X[..., :4], H, H), {"groups": 2}, ValueError, r"of size \(6, 4\), of shape .6, 2, 6, 3"),
        ((X, H, H[..., :4]), {"groups": 2}, ValueError, r"imag must be the half spectrum .* 4\)$"),
        ((X, H, H[:4]), {"groups": 2}, ValueError, "imag must be the half spectrum"),
        ((X, H, H, torch.zeros(4)), {"groups": 2}, ValueError, r"bias must be None or .* \(6,\)"),
    ],
)
def test_errors_say_what_is_wrong(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        circular_convolve(*arguments, **options)


def test_errors_of_the_helpers() -> None:
    with pytest.raises(ValueError, match="real and imag must have one shape, of at least 2 axes"):
        hermitian_half(torch.zeros(3, 4), torch.zeros(3, 5), ndim=2)
    with pytest.raises(ValueError, match="real and imag must have one shape, of at least 2 axes"):
        hermitian_half(torch.zeros(3), torch.zeros(3), ndim=2)
    with pytest.raises(ValueError, match=r"real must be the half spectrum of a map of size \(6,\)"):
        spatial_kernel(torch.zeros(1, 6), torch.zeros(1, 6), (6,))
    with pytest.raises(ValueError, match="imag must be the half spectrum"):
        spatial_kernel(torch.zeros(2, 4), torch.zeros(1, 4), (6,))
