"""FlexConv: sizes, crop, padding, and equality with torch's own convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sizeless import (
    FlexConv1d,
    FlexConv2d,
    FlexConv3d,
    SeparableFlexConv1d,
    SeparableFlexConv2d,
    SeparableFlexConv3d,
)
from sizeless.kernels import MLP, NSIREN, SIREN, Fourier, Gabor, MAGNet
from sizeless.nn import FlexConvNd

LAYERS = {1: FlexConv1d, 2: FlexConv2d, 3: FlexConv3d}
SEPARABLE = {1: SeparableFlexConv1d, 2: SeparableFlexConv2d, 3: SeparableFlexConv3d}
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
REACH = math.sqrt(2 * math.log(10))
SMALL = partial(MAGNet, hidden=4, layers=1)


def set_window(layer: FlexConvNd, center: float | list[float], sigma: float | list[float]) -> None:
    values = (torch.tensor(v, dtype=torch.float64).expand(layer.ndim) for v in (center, sigma))
    layer.window.assign_(*values)


# ---- size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("largest", "size"), [(17, 3), (29, 5), (33, 5), (97, 15)])
def test_paper_width_in_images(largest: int, size: int) -> None:
    layer = FlexConv2d(1, 1, largest, kernel=SMALL)
    assert layer.size == (size, size)
    set_window(layer, 0.0, 0.075)
    assert layer.size == (size, size)


@pytest.mark.parametrize(
    ("length", "size"),
    [(161, 13), (182, 15), (784, 64), (1000, 81), (1024, 83), (8000, 644), (16000, 1288)],
)
def test_paper_width_in_sequences(length: int, size: int) -> None:
    layer = FlexConv1d(1, 1, length, kernel=SMALL, causal=True)
    assert layer.size == (size,)
    set_window(layer, 1.0, 0.075)
    assert layer.size == (size,)


@pytest.mark.parametrize("largest", [21, 33, 97])
def test_paper_width_is_the_default_width(largest: int) -> None:
    layer = FlexConv2d(1, 1, largest, kernel=SMALL)
    torch.testing.assert_close(
        layer.window.sigma, torch.full((2,), max(0.075, 3 / (largest - 1) / REACH))
    )
    layer = FlexConv1d(1, 1, largest, kernel=SMALL, causal=True)
    assert layer.window.center.tolist() == [1.0]
    assert layer.size[0] == max(3, math.ceil(REACH * 0.075 * (largest - 1) / 2))


@pytest.mark.parametrize("size", [1, 3, 5, 31, 33])
def test_init_size_is_the_size_at_the_start(size: int) -> None:
    assert FlexConv1d(1, 1, 33, init_size=size, kernel=SMALL).size == (size,)
    assert FlexConv2d(1, 1, (33, 35), init_size=(size, 35), kernel=SMALL).size == (size, 35)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 31, 32])
def test_init_size_is_the_length_at_the_start(size: int) -> None:
    assert FlexConv1d(1, 1, 32, init_size=size, causal=True, kernel=SMALL).size == (size,)


@given(
    taps=st.integers(1, 20).map(lambda n: 2 * n + 1),
    center=st.floats(-1, 1),
    sigma=st.floats(0.02, 2),
)
def test_centred_crop_keeps_the_taps_nearer_than_the_root(
    taps: int, center: float, sigma: float
) -> None:
    layer = FlexConv1d(1, 1, taps, kernel=SMALL, dtype=torch.float64)
    set_window(layer, center, sigma)
    root = abs(layer.window.center.item()) + REACH * layer.window.sigma.item()
    kept = sum(abs(2 * i / (taps - 1) - 1) < root for i in range(taps))
    assert layer.size == (taps if root >= 1 else kept,)


@given(taps=st.integers(2, 40), center=st.floats(-1, 1), sigma=st.floats(0.02, 2))
def test_causal_crop_keeps_the_taps_after_the_root(taps: int, center: float, sigma: float) -> None:
    layer = FlexConv1d(1, 1, taps, kernel=SMALL, causal=True, dtype=torch.float64)
    set_window(layer, center, sigma)
    root = layer.window.center.item() - REACH * layer.window.sigma.item()
    kept = sum(2 * i / (taps - 1) - 1 > root for i in range(taps))
    assert layer.size == (taps if abs(root) >= 1 else kept,)


def test_a_tap_exactly_at_the_root_is_cropped() -> None:
    # A width too small to change the sum puts the root exactly at the centre, on a tap.
    centred = FlexConv1d(1, 1, 9, kernel=SMALL, dtype=torch.float64)
    causal = FlexConv1d(1, 1, 9, kernel=SMALL, causal=True, dtype=torch.float64)
    for layer, at, beyond in ((centred, 3, 5), (causal, 2, 2)):
        set_window(layer, 0.5, 1e-20)
        assert layer.size == (at,)
        set_window(layer, 0.5 + 1e-9, 1e-20)
        assert layer.size == (beyond,)
    set_window(causal, 0.5 - 1e-9, 1e-20)
    assert causal.size == (3,)


def test_axes_are_cropped_apart() -> None:
    layer = FlexConv2d(1, 1, 33, kernel=SMALL)
    set_window(layer, 0.0, [0.075, 0.9])
    assert layer.size == (5, 33)
    set_window(layer, [-0.5, 0.0], [0.075, 0.2])
    assert layer.size == (21, 13)


def test_a_centre_beyond_the_edge_turns_the_causal_crop_off() -> None:
    layer = FlexConv1d(1, 1, 10, kernel=SMALL, causal=True)
    set_window(layer, 1.5, 0.1)
    assert layer.size == (10,)


def test_assigned_windows_are_used_as_they_are() -> None:
    layer = FlexConv2d(1, 1, 9, kernel=SMALL, dtype=torch.float64)
    for center, sigma in (([1.75, -0.1], [0.3, 25.0]), ([0.0, 0.001], [1e-4, 2e-3])):
        set_window(layer, center, sigma)
        torch.testing.assert_close(layer.window.center, torch.tensor(center).double())
        torch.testing.assert_close(layer.window.sigma, torch.tensor(sigma).double())
        layer.window.project_()
        torch.testing.assert_close(layer.window.sigma, torch.tensor(sigma).double())
    set_window(layer, 0.0, [-0.25, 0.5])
    torch.testing.assert_close(layer.window.sigma, torch.tensor([0.25, 0.5]).double())


@pytest.mark.parametrize("sigma", [0.0, math.inf, math.nan])
def test_a_window_without_a_width_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be finite and not 0"):
        set_window(FlexConv1d(1, 1, 9, kernel=SMALL), 0.0, sigma)


# ---- the weight and torch's convolutions ---------------------------------------------------------


def test_weight_is_the_window_times_the_network() -> None:
    layer = FlexConv2d(4, 6, (9, 11), groups=2, init_size=(5, 3), kernel=SMALL)
    layer = layer.double()
    set_window(layer, [0.05, -0.02], [0.2, 0.1])
    mu, sigma = layer.window.center.tolist(), layer.window.sigma.tolist()
    weight = layer.weight
    assert weight.shape == (6, 2, *layer.size)
    for i, j in itertools.product(*map(range, layer.size)):
        y = (2 * i - (layer.size[0] - 1)) / 8
        x = (2 * j - (layer.size[1] - 1)) / 10
        window = math.exp(-0.5 * (((y - mu[0]) / sigma[0]) ** 2 + ((x - mu[1]) / sigma[1]) ** 2))
        values = window * layer.kernel(torch.tensor([y, x]).double())
        torch.testing.assert_close(weight[:, :, i, j], values.reshape(6, 2))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_layer_equals_convolution_with_its_weight(
    ndim: int, groups: int, stride: int, dilation: int
) -> None:
    layer = LAYERS[ndim](
        4, 8, 9, stride, 6, dilation, groups, init_size=5, kernel=SMALL, dtype=torch.float64
    )
    nn.init.normal_(layer.bias)
    input = torch.randn(2, 4, *(7, 9, 8)[:ndim], dtype=torch.float64)
    padding = 6 - 2 * dilation
    expected = CONVOLUTIONS[ndim](
        input, layer.weight, layer.bias, stride, padding, dilation, groups
    )
    torch.testing.assert_close(layer(input), expected)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_that_of_an_odd_convolution_and_then_strided(
    ndim: int, stride: int
) -> None:
    layer = LAYERS[ndim](2, 3, 9, stride, init_size=5, kernel=SMALL, dtype=torch.float64)
    input = torch.randn(2, 2, *(7, 8, 9)[:ndim], dtype=torch.float64)
    full = CONVOLUTIONS[ndim](input, layer.weight, layer.bias, padding=2)
    steps = (slice(None, None, stride),) * ndim
    torch.testing.assert_close(layer(input), full[(..., *steps)])


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("length", [1, 10, 33])
def test_causal_layer_pads_the_past(length: int, stride: int, dilation: int) -> None:
    layer = FlexConv1d(
        2, 3, 12, stride, dilation=dilation, init_size=4, causal=True, kernel=SMALL
    ).double()
    input = torch.randn(2, 2, length, dtype=torch.float64)
    padded = F.pad(input, (3 * dilation, 0))
    expected = F.conv1d(padded, layer.weight, layer.bias, stride, dilation=dilation)
    torch.testing.assert_close(layer(input), expected)
    assert expected.shape[-1] == math.ceil(length / stride)


def test_causal_layer_does_not_see_the_future() -> None:
    layer = FlexConv1d(1, 2, 20, causal=True, init_size=15, kernel=SMALL, dtype=torch.float64)
    input = torch.randn(1, 1, 20, dtype=torch.float64)
    later = input.clone()
    later[..., 9:] += 1
    difference = (layer(later) - layer(input)).abs().sum(dim=(0, 1))
    assert (difference[:9] == 0).all()
    assert (difference[9:] > 0).all()


# ---- padding is meant for the largest kernel -----------------------------------------------------


def embedded(layer: FlexConvNd) -> Tensor:
    """The kernel in the middle of one of the largest size, with zeros around it."""
    margins = [
        (n - now) // 2
        for n, now in zip(reversed(layer.kernel_size), reversed(layer.size), strict=True)
    ]
    return F.pad(layer.weight, [m for margin in margins for m in (margin, margin)])


PADDED = [
    (1, "zeros", 1, 1, "valid"),
    (1, "zeros", 2, 1, 0),
    (1, "zeros", 2, 2, 1),
    (1, "zeros", 3, 2, 6),
    (1, "zeros", 1, 1, 4),
    (1, "circular", 1, 1, 2),
    (1, "reflect", 2, 1, 4),
    (1, "replicate", 1, 2, 6),
    (2, "zeros", 1, 1, 3),
    (2, "zeros", 2, 2, 5),
    (2, "circular", 2, 1, "valid"),
    (2, "replicate", 1, 2, 2),
]


@pytest.mark.parametrize(("ndim", "mode", "stride", "dilation", "padding"), PADDED)
def test_pixels_of_padding_are_for_the_largest_kernel(
    ndim: int, mode: str, stride: int, dilation: int, padding: Any
) -> None:
    layer = LAYERS[ndim](
        2, 3, 9, stride, padding, dilation, padding_mode=mode, kernel=SMALL, dtype=torch.float64
    )
    input = torch.randn(2, 2, *(20, 17)[:ndim], dtype=torch.float64)
    pixels = 0 if padding == "valid" else padding
    padded = F.pad(input, (pixels,) * 2 * ndim, "constant" if mode == "zeros" else mode)
    sizes = []
    for sigma in (0.01, 0.15, 0.3, 1.0):
        set_window(layer, 0.0, sigma)
        sizes.append(layer.size[0])
        expected = CONVOLUTIONS[ndim](
            padded, embedded(layer), layer.bias, stride, dilation=dilation
        )
        torch.testing.assert_close(layer(input), expected)
    assert sizes == [1, 3, 5, 9]


@pytest.mark.parametrize("sigma", [0.01, 0.2, 1.0])
def test_padding_in_pixels_on_each_axis(sigma: float) -> None:
    layer = FlexConv2d(1, 1, (5, 9), padding=(0, 4), kernel=SMALL, dtype=torch.float64)
    set_window(layer, 0.0, sigma)
    input = torch.randn(1, 1, 8, 6, dtype=torch.float64)
    expected = F.conv2d(input, embedded(layer), layer.bias, padding=(0, 4))
    torch.testing.assert_close(layer(input), expected)


@pytest.mark.parametrize("size", [1, 5, 9])
@pytest.mark.parametrize(("padding", "smallest"), [("valid", 9), (1, 7), (4, 1)])
def test_inputs_smaller_than_the_largest_kernel_are_refused(
    size: int, padding: Any, smallest: int
) -> None:
    layer = FlexConv1d(1, 1, 9, padding=padding, init_size=size, kernel=SMALL)
    assert layer(torch.zeros(1, 1, smallest)).shape[-1] == 1
    for length in range(1, smallest):
        with pytest.raises(ValueError, match=f"input must have at least {smallest} samples"):
            layer(torch.zeros(1, 1, length))


# ---- separable layers and options ----------------------------------------------------------------


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_separable_layer_is_depthwise_and_then_pointwise(ndim: int) -> None:
    layer = SEPARABLE[ndim](4, 6, 9, init_size=5, kernel=SMALL, dtype=torch.float64)
    depthwise, pointwise = layer.depthwise, layer.pointwise
    assert layer.size == depthwise.size == (5,) * ndim
    assert depthwise.weight.shape == (4, 1, *(5,) * ndim)
    nn.init.normal_(depthwise.bias)
    input = torch.randn(2, 4, *(7, 6, 5)[:ndim], dtype=torch.float64)
    convolution = CONVOLUTIONS[ndim]
    hidden = convolution(input, depthwise.weight, depthwise.bias, padding=2, groups=4)
    expected = convolution(hidden, pointwise.weight, pointwise.bias)
    torch.testing.assert_close(layer(input), expected)


def test_separable_layer_passes_its_options_on() -> None:
    layer = SeparableFlexConv1d(2, 3, 50, bias=False, causal=True, init_size=7, kernel=SMALL)
    assert layer.depthwise.bias is None
    assert layer.pointwise.bias is None
    assert layer.depthwise.causal
    assert layer.size == (7,)
    with pytest.raises(TypeError, match="groups is in_channels"):
        SeparableFlexConv2d(2, 3, 9, groups=1)


@pytest.mark.parametrize("kind", [MAGNet, Gabor, Fourier, SIREN, NSIREN, MLP])
def test_every_network_makes_kernels(kind: Callable[..., Any]) -> None:
    layer = FlexConv2d(2, 3, 9, kernel=kind)
    assert type(layer.kernel) is kind
    assert layer(torch.randn(1, 2, 8, 8)).shape == (1, 3, 8, 8)


def test_a_fixed_centre_is_no_parameter() -> None:
    layer = FlexConv2d(1, 1, 9, learn_center=False)
    assert [name for name, _ in layer.window.named_parameters()] == ["log_sigma"]
    layer(torch.randn(1, 1, 8, 8)).square().sum().backward()
    assert layer.window.center.tolist() == [0.0, 0.0]
