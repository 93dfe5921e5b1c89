"""NIFF against its definition with full complex transforms, its boundaries and its units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sizeless import (
    NIFFConv1d,
    NIFFConv2d,
    NIFFConv3d,
    SeparableNIFFConv1d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
)
from sizeless.kernels import MLP
from sizeless.nn import NIFFConvNd

LAYERS = {1: NIFFConv1d, 2: NIFFConv2d, 3: NIFFConv3d}
SEPARABLE = {1: SeparableNIFFConv1d, 2: SeparableNIFFConv2d, 3: SeparableNIFFConv3d}
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MAPS = [(8,), (7,), (1,), (2,), (6, 6), (7, 7), (5, 8), (6, 3), (1, 4), (5, 1), (1, 1), (4, 3, 5)]


def double(ndim: int, *arguments: Any, **options: Any) -> NIFFConvNd:
    return LAYERS[ndim](*arguments, dtype=torch.float64, **options)


def signed(n: int) -> list[int]:
    """Signed frequencies of an axis in the order of an FFT; Nyquist is negative."""
    return [k if 2 * k < n else k - n for k in range(n)]


def full_spectrum(layer: NIFFConvNd, size: Sequence[int]) -> Tensor:
    """What both networks generate, frequency by frequency, ``(out, in / groups, *size)``."""
    points = []
    for frequency in itertools.product(*map(signed, size)):
        divisors = size if layer.frequency_unit == "cycles/pixel" else [1] * len(size)
        points.append([k / n for k, n in zip(frequency, divisors, strict=True)])
    grid = torch.tensor(points, dtype=torch.float64)
    values = torch.complex(layer.real(grid), layer.imag(grid))
    return values.T.reshape(layer.out_channels, -1, *size)


def filtered(layer: NIFFConvNd, input: Tensor) -> Tensor:
    """The real part of the inverse transform of the product of full spectra."""
    axes = tuple(range(2, input.dim()))
    spectrum = full_spectrum(layer, input.shape[2:])
    signal = torch.fft.fftn(input, dim=axes)
    group_inputs, group_outputs = spectrum.shape[1], layer.out_channels // layer.groups
    outputs = []
    for o in range(layer.out_channels):
        first = o // group_outputs * group_inputs
        product = (spectrum[o] * signal[:, first : first + group_inputs]).sum(dim=1)
        outputs.append(torch.fft.ifftn(product, dim=[a - 1 for a in axes]).real)
    output = torch.stack(outputs, dim=1)
    return output if layer.bias is None else output + layer.bias.reshape(-1, *[1] * len(axes))


# ---- the definition ------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["cycles/map", "cycles/pixel"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", MAPS)
def test_layer_equals_its_definition(size: tuple[int, ...], groups: int, unit: str) -> None:
    layer = double(len(size), 4, 8, groups, True, hidden=(5, 3), frequency_unit=unit)
    nn.init.normal_(layer.bias)
    input = torch.randn(2, 4, *size, dtype=torch.float64)
    output = layer(input)
    assert output.shape == (2, 8, *size)
    torch.testing.assert_close(output, filtered(layer, input))


def test_negating_frequencies_would_be_another_function() -> None:
    """The fold negates indices: at the Nyquist index of an even map the two differ."""
    layer = double(2, 2, 2, 2)
    for size, same in (((7, 7), True), ((6, 7), False)):
        real, imag = layer.half_spectrum(size)
        frequency = layer.frequencies(size)
        even = 0.5 * (layer.real(frequency) + layer.real(-frequency))
        odd = 0.5 * (layer.imag(frequency) - layer.imag(-frequency))
        for mine, other in ((real, even), (imag, odd)):
            folded = other.movedim(-1, 0)[:, None, :, : size[1] // 2 + 1]
            assert torch.allclose(mine, folded) == same


@pytest.mark.parametrize("unit", ["cycles/map", "cycles/pixel"])
@pytest.mark.parametrize("half", [False, True])
def test_frequencies(half: bool, unit: str) -> None:
    layer = double(2, 1, 1, frequency_unit=unit, half_sample_grid=half)
    grid = layer.frequencies((4, 5))
    assert grid.shape == (4, 5, 2)
    rows, columns = grid[:, 0, 0].tolist(), grid[0, :, 1].tolist()
    scale = (4, 5) if unit == "cycles/pixel" else (1, 1)
    # Only odd axes move, by half a cycle per map.
    assert rows == pytest.approx([k / scale[0] for k in (0, 1, -2, -1)])
    assert columns == pytest.approx([(k - 0.5 * half) / scale[1] for k in (0, 1, 2, -2, -1)])
    assert torch.equal(layer.frequencies(4), layer.frequencies((4, 4)))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_constant_filter_is_the_identity(ndim: int) -> None:
    layer = double(ndim, 3, 3, 3)
    with torch.no_grad():
        for network, value in ((layer.real, 1.0), (layer.imag, 0.7)):
            network.output.weight.zero_()
            network.output.bias.fill_(value)
    for size in (1, 2, 5, 6):
        input = torch.randn(2, 3, *[size] * ndim, dtype=torch.float64)
        # A constant imaginary part is even, so it does not act on real maps.
        torch.testing.assert_close(layer(input), input)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("size", [(9, 8), (8, 9), (5, 4, 6)])
def test_depthwise_filters_equal_the_definition(size: tuple[int, ...], batch: int) -> None:
    layer = double(len(size), 2, 4, 2, True)
    input = torch.randn(batch, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(layer(input), filtered(layer, input))


# ---- circular and zero-padded --------------------------------------------------------------------


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shift=st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
    groups=st.sampled_from([1, 2]),
)
def test_circular_layer_commutes_with_circular_shifts(
    size: tuple[int, int], shift: tuple[int, int], groups: int
) -> None:
    layer = double(2, 2, 2, groups)
    input = torch.randn(1, 2, *size, dtype=torch.float64)
    shifted = layer(input.roll(shift, dims=(2, 3)))
    torch.testing.assert_close(shifted, layer(input).roll(shift, dims=(2, 3)))


@pytest.mark.parametrize("boundary", ["circular", "zeros"])
@pytest.mark.parametrize("size", MAPS)
def test_spatial_kernel_is_the_response_to_an_impulse_in_the_middle(
    size: tuple[int, ...], boundary: str
) -> None:
    layer = double(len(size), 2, 6, 2, boundary=boundary)
    kernel = layer.spatial_kernel(size)
    assert kernel.shape == (6, 1, *size)
    impulse = torch.zeros(1, 2, *size, dtype=torch.float64)
    impulse[(..., *(n // 2 for n in size))] = 1
    torch.testing.assert_close(layer(impulse), kernel.movedim(1, 0))


@pytest.mark.parametrize("size", MAPS)
def test_circular_layer_is_a_convolution_of_the_wrapped_map(size: tuple[int, ...]) -> None:
    layer = double(len(size), 4, 6, 2)
    input = torch.randn(2, 4, *size, dtype=torch.float64)
    axes = tuple(range(2, input.dim()))
    # The page's form: the origin of the kernel first, N - 1 samples wrapped around before the map.
    kernel = layer.spatial_kernel(size).roll([-(n // 2) for n in size], axes).flip(axes)
    wrapped = input
    for axis, n in zip(axes, size, strict=True):
        wrapped = torch.cat([wrapped.narrow(axis, 1, n - 1), wrapped], dim=axis)
    expected = CONVOLUTIONS[len(size)](wrapped, kernel, groups=2)
    torch.testing.assert_close(layer(input), expected)


@pytest.mark.parametrize("size", MAPS)
def test_zeros_boundary_is_a_convolution_of_the_padded_map(size: tuple[int, ...]) -> None:
    layer = double(len(size), 4, 6, 2, True, boundary="zeros")
    nn.init.normal_(layer.bias)
    input = torch.randn(2, 4, *size, dtype=torch.float64)
    axes = tuple(range(2, input.dim()))
    margins = [((n - 1) // 2, n // 2) for n in reversed(size)]
    padded = F.pad(input, [m for pair in margins for m in pair])
    kernel = layer.spatial_kernel(size).flip(axes)
    expected = CONVOLUTIONS[len(size)](padded, kernel, layer.bias, groups=2)
    torch.testing.assert_close(layer(input), expected)


def test_zeros_boundary_is_a_product_of_padded_spectra() -> None:
    layer = double(2, 3, 3, 3, boundary="zeros")
    input = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    padded = (11, 13)
    kernel = torch.fft.rfft2(layer.spatial_kernel((6, 7))[:, 0], padded)
    full = torch.fft.irfft2(torch.fft.rfft2(input, padded) * kernel, padded)
    torch.testing.assert_close(layer(input), full[..., 3:9, 3:10])


def test_boundaries_share_their_kernel_and_differ_at_the_edge() -> None:
    circular, zeros = double(1, 1, 1), double(1, 1, 1, boundary="zeros")
    zeros.load_state_dict(circular.state_dict())
    assert torch.equal(circular.spatial_kernel(9), zeros.spatial_kernel(9))
    input = torch.randn(1, 1, 9, dtype=torch.float64)
    assert not torch.allclose(circular(input), zeros(input))


# ---- other map sizes -----------------------------------------------------------------------------


def test_map_size_may_change_from_call_to_call() -> None:
    layer = double(2, 2, 3)
    for size in ((8, 8), (7, 7), (1, 1), (5, 8), (8, 8), (16, 3), (1, 9)):
        input = torch.randn(2, 2, *size, dtype=torch.float64)
        torch.testing.assert_close(layer(input), filtered(layer, input))
        assert layer.map_size == size
        assert layer.describe_size().size == size


@pytest.mark.parametrize("size", [(8,), (7,), (6, 4), (5, 7)])
def test_cycles_per_pixel_keep_the_kernel_in_pixels(size: tuple[int, ...]) -> None:
    layer = double(len(size), 2, 2, 2, frequency_unit="cycles/pixel")
    kernel = origin_first(layer, size)
    larger = origin_first(layer, tuple(2 * n for n in size))
    # The kernel of a map is that of the doubled map, wrapped around.
    for axis, n in enumerate(size, start=2):
        larger = larger.narrow(axis, 0, n) + larger.narrow(axis, n, n)
    torch.testing.assert_close(larger, kernel)


@pytest.mark.parametrize("size", [(8,), (7,), (6, 4), (5, 7)])
def test_cycles_per_map_stretch_the_kernel_with_the_map(size: tuple[int, ...]) -> None:
    layer = double(len(size), 2, 2, 2, frequency_unit="cycles/map")
    axes = tuple(range(2, 2 + len(size)))
    doubled = tuple(2 * n for n in size)
    spectrum = torch.fft.fftn(origin_first(layer, size), dim=axes)
    larger = torch.fft.fftn(origin_first(layer, doubled), dim=axes)
    # The same response at the same number of cycles per map, below the Nyquist frequency.
    for frequency in itertools.product(*map(signed, size)):
        if all(2 * k != -n for k, n in zip(frequency, size, strict=True)):
            torch.testing.assert_close(larger[(..., *frequency)], spectrum[(..., *frequency)])


def origin_first(layer: NIFFConvNd, size: tuple[int, ...]) -> Tensor:
    axes = tuple(range(2, 2 + len(size)))
    return torch.fft.ifftshift(layer.spatial_kernel(size), dim=axes)


class Bell(MLP):
    """A Gaussian of frequency in the place of a trained network."""

    def __init__(self, steepness: float) -> None:
        super().__init__(1, 1, hidden=(1,), dtype=torch.float64)
        self.steepness = steepness
        nn.init.ones_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def basis(self, coordinates: Tensor) -> Tensor:
        return (-0.5 * (self.steepness * coordinates).square()).exp()


@pytest.mark.parametrize(
    ("unit", "steepness", "ratio"), [("cycles/pixel", 32.0, 1.0), ("cycles/map", 0.5, 2.0)]
)
def test_width_of_a_low_pass_kernel_when_the_map_doubles(
    unit: str, steepness: float, ratio: float
) -> None:
    layer = double(1, 1, 1, frequency_unit=unit)
    layer.real, layer.imag = Bell(steepness), Bell(0.0)
    small, large = (_width(layer.spatial_kernel(n)[0, 0]) for n in (64, 128))
    # A Gaussian of this steepness in frequency has this deviation in pixels; of its square, less.
    assert small == pytest.approx(32 / (2 * math.pi) / math.sqrt(2), rel=0.01)
    assert large / small == pytest.approx(ratio, rel=0.01)


def _width(kernel: Tensor) -> float:
    lag = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    energy = kernel.detach().square()
    return math.sqrt(float((energy * lag**2).sum() / energy.sum()))


# ---- parameters ----------------------------------------------------------------------------------


def count(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: SeparableNIFFConv2d(64, 64), 4_856),
        (lambda: SeparableNIFFConv2d(64, 64, hidden=(16, 128, 32)), 21_024),
        (lambda: SeparableNIFFConv2d(512, 512), 267_384),
        (lambda: SeparableNIFFConv2d(512, 512, hidden=(16, 128, 32)), 308_640),
        (lambda: SeparableNIFFConv2d(128, 32), 5_496),
        (lambda: NIFFConv2d(64, 64, hidden=(8,)), 73_776),
        (lambda: NIFFConv2d(512, 512, hidden=(8,)), 4_718_640),
        (lambda: NIFFConv2d(128, 32, hidden=(8,)), 73_776),
        (lambda: NIFFConv2d(96, 96, 96), 1_080),
        (lambda: NIFFConv2d(96, 96, 96, hidden=(16, 128, 32)), 19_040),
        (lambda: NIFFConv2d(768, 768, 768, hidden=(16, 128, 32)), 63_392),
        (lambda: NIFFConv2d(10, 10, 10), 120 + 10 * 10),
        (lambda: NIFFConv2d(10, 10, 10, True), 120 + 10 * 10 + 10),
        (lambda: NIFFConv2d(10, 10, 10, hidden=(16, 128, 32)), 12_704 + 66 * 10),
        (lambda: NIFFConv2d(4, 6, hidden=(8,)), 48 + 18 * 24),
        (lambda: NIFFConv2d(4, 6, 2), 120 + 10 * 12),
        (lambda: NIFFConv1d(10, 10, 10), 104 + 10 * 10),
        (lambda: NIFFConv3d(10, 10, 10), 136 + 10 * 10),
    ],
)
def test_parameter_count(make: Callable[[], nn.Module], expected: int) -> None:
    assert count(make()) == expected


def test_networks_start_as_in_the_authors_resnets() -> None:
    layer = NIFFConv2d(3000, 3000, 3000, hidden=(400, 200))
    for network in (layer.real, layer.imag):
        for linear in [*network.linears, network.output]:
            spread = math.sqrt(2 / linear.out_features)
            tolerance = 5 / math.sqrt(linear.weight.numel())
            assert linear.weight.std().item() == pytest.approx(spread, rel=tolerance)
            assert abs(linear.weight.mean().item()) < tolerance * spread
            bound = 1 / math.sqrt(linear.in_features)
            assert 0.9 * bound < linear.bias.abs().max() <= bound


def test_filters_start_at_the_scale_that_was_measured() -> None:
    measured = {14: (1.1, 4.4), 7: (0.58, 1.4)}
    for size, (response, norm) in measured.items():
        responses, norms = [], []
        for seed in range(30):
            torch.manual_seed(seed)
            layer = NIFFConv2d(64, 64, 64, half_sample_grid=True)
            with torch.no_grad():
                grid = layer.frequencies(size)
                parts = torch.complex(layer.real(grid), layer.imag(grid))
                responses.append(parts.abs().mean().item())
                norms.append(layer.spatial_kernel(size).abs().sum(dim=(2, 3)).mean().item())
        assert sum(responses) / 30 == pytest.approx(response, rel=0.25)
        assert sum(norms) / 30 == pytest.approx(norm, rel=0.25)


# ---- separable layers and errors -----------------------------------------------------------------


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_separable_layer_is_depthwise_and_then_pointwise(ndim: int) -> None:
    layer = SEPARABLE[ndim](3, 5, True, boundary="zeros", dtype=torch.float64)
    depthwise, pointwise = layer.depthwise, layer.pointwise
    assert depthwise.boundary == "zeros"
    assert depthwise.bias is None
    input = torch.randn(2, 3, *(4, 5, 3)[:ndim], dtype=torch.float64)
    matrix = pointwise.weight.reshape(5, 3)
    expected = torch.einsum("oi,ni...->no...", matrix, depthwise(input))
    expected = expected + pointwise.bias.reshape(-1, *[1] * ndim)
    torch.testing.assert_close(layer(input), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NIFFConv2d(4, 4, 3), "groups must divide in_channels"),
        (lambda: NIFFConv2d(4, 4, hidden=()), "hidden must"),
        (lambda: NIFFConv2d(4, 4, boundary="reflect"), "boundary must be 'circular' or 'zeros'"),
        (lambda: NIFFConv2d(4, 4, frequency_unit="hertz"), "frequency_unit must be"),
        (lambda: NIFFConv2d(4, 4).spatial_kernel((4, 4, 4)), "map_size must be"),
        (lambda: NIFFConv2d(4, 4).spatial_kernel(0), "map_size must be at least 1"),
        (lambda: NIFFConv2d(4, 4)(torch.zeros(1, 3, 5, 5)), "input must have 4 channels"),
        (lambda: NIFFConv2d(4, 4)(torch.zeros(1, 4, 5)), "input must have 4 dimensions"),
        (lambda: NIFFConv2d(4, 4)(torch.zeros(1, 4, 5, 0)), "empty spatial axis"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
