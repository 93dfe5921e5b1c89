"""Kernels at another resolution, alone and in the papers' networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sizeless import FlexConv1d, FlexConv2d, FlexConv3d, change_resolution_
from sizeless.kernels import MAGNet
from sizeless.models import FlexNet, FlexTCN
from sizeless.nn import FlexConvNd

LAYERS = {1: FlexConv1d, 2: FlexConv2d, 3: FlexConv3d}
SMOOTH = partial(MAGNet, hidden=6, layers=2, input_scale=1.0)


def assign(layer: FlexConvNd, sigma: float) -> None:
    center = 1.0 if layer.causal else 0.0
    layer.window.assign_(torch.full((layer.ndim,), center), torch.full((layer.ndim,), sigma))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_coarse_taps_are_a_subset_of_the_fine_ones(ndim: int) -> None:
    size = {1: 17, 2: 17, 3: 5}[ndim]
    layer = LAYERS[ndim](1, 2, size, kernel=SMOOTH, dtype=torch.float64)
    assign(layer, 1.0)
    coarse = layer.weight
    layer.change_resolution_(2)
    fine = layer.weight
    assert layer.kernel_size == layer.size == (2 * size - 1,) * ndim
    every_second = (slice(None, None, 2),) * ndim
    torch.testing.assert_close(fine[(..., *every_second)], coarse * 0.5**ndim)


def test_causal_taps_are_a_subset_too() -> None:
    layer = FlexConv1d(1, 2, 50, causal=True, kernel=SMOOTH, dtype=torch.float64)
    assign(layer, 0.3)
    coarse = layer.weight
    layer.change_resolution_(2)
    assert layer.kernel_size == (99,)
    fine = layer.weight.flip(-1)[..., ::2]
    torch.testing.assert_close(fine, 0.5 * coarse.flip(-1)[..., : fine.shape[-1]])


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [(33, 0.5, 17), (33, 1, 33), (33, 3, 97), (9, 1.5, 13), (9, 0.1, 1), (17, 1.1, 19), (1, 2, 1)],
)
def test_the_largest_size_stays_odd(size: int, factor: float, expected: int) -> None:
    layer = FlexConv1d(1, 1, size, kernel=SMOOTH)
    before = layer.kernel.output.weight.clone()
    layer.change_resolution_(factor)
    assert layer.kernel_size == (expected,)
    gain = max(size - 1, 1) / max(expected - 1, 1)
    torch.testing.assert_close(layer.kernel.output.weight, before * gain)
    assert layer(torch.randn(1, 1, 7)).shape == (1, 1, 7)


def test_axes_have_gains_of_their_own() -> None:
    layer = FlexConv2d(1, 1, (9, 1), kernel=SMOOTH)
    before = layer.kernel.output.weight.clone()
    layer.change_resolution_(2)
    assert layer.kernel_size == (17, 1)
    torch.testing.assert_close(layer.kernel.output.weight, before / 2)


def test_the_state_dict_belongs_to_the_new_size() -> None:
    layer = FlexConv2d(2, 3, 17)
    layer.change_resolution_(2)
    fresh = FlexConv2d(2, 3, 33)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.weight, layer.weight)


def test_there_and_back_again() -> None:
    layer = FlexConv2d(2, 3, 17, kernel=SMOOTH)
    assign(layer, 0.2)
    weight, window = layer.weight, layer.window.sigma
    layer.change_resolution_(4)
    assert layer.size == (27, 27)
    assert torch.equal(layer.window.sigma, window)
    layer.change_resolution_(0.25)
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
def test_factors_that_mean_nothing_are_refused(factor: float) -> None:
    layer = FlexConv1d(1, 1, 9)
    with pytest.raises(ValueError, match="factor must be a finite number above 0"):
        layer.change_resolution_(factor)


def test_padding_in_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="change_resolution_ needs padding='same'"):
        FlexConv1d(1, 1, 9, padding=4).change_resolution_(2)


def test_a_model_without_flexible_kernels_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no FlexConv layer"):
        change_resolution_(nn.Linear(1, 1), 2)


# ---- a smooth world, sampled twice as finely -----------------------------------------------------


def scene(channels: int, sizes: Sequence[int], step: float, period: float) -> Tensor:
    """A periodic scene of low frequencies, seen at points ``step`` apart."""
    axes = [torch.arange(n, dtype=torch.float64) * step for n in sizes]
    points = torch.meshgrid(*axes, indexing="ij")
    waves = []
    for channel in range(channels):
        wave = torch.zeros(tuple(sizes), dtype=torch.float64)
        for cycles in range(3):
            for axis, point in enumerate(points):
                turns = cycles * point / period
                wave = wave + (2 * math.pi * turns + channel + 2 * axis + cycles).sin()
        waves.append(wave)
    return torch.stack(waves)[None]


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_smooth_kernel_sees_the_same_scene(ndim: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = LAYERS[ndim](2, 3, 33, padding_mode="circular", kernel=SMOOTH, dtype=torch.float64)
    assign(layer, 0.3)
    coarse = layer(scene(2, (32,) * ndim, 1.0, 32.0))
    fine_scene = scene(2, (64,) * ndim, 0.5, 32.0)
    every_second = (slice(None, None, 2),) * ndim
    unchanged = layer(fine_scene)[(..., *every_second)]
    layer.change_resolution_(2)
    fine = layer(fine_scene)[(..., *every_second)]
    assert relative_error(fine, coarse) < 0.05
    assert relative_error(unchanged, coarse) > 0.2


def test_flexnet_sees_the_same_scene() -> None:
    model = FlexNet(
        2, 10, kernel_size=17, widths=(4, 6), padding_mode="circular", kernel=SMOOTH, init_size=9
    )
    model.double().eval()
    coarse = model(scene(2, (16, 16), 1.0, 16.0))
    fine_scene = scene(2, (32, 32), 0.5, 16.0)
    unchanged = model(fine_scene)
    model.change_resolution_(2)
    layers = [module for module in model.modules() if isinstance(module, FlexConvNd)]
    assert len(layers) == 5
    assert all(layer.kernel_size == (33, 33) for layer in layers)
    assert relative_error(model(fine_scene), coarse) < 0.1
    assert relative_error(unchanged, coarse) > 0.2


def test_flextcn_hears_the_same_sequence() -> None:
    model = FlexTCN(2, 10, kernel_size=60, width=6, kernel=SMOOTH, init_size=30)
    model.double().eval()
    coarse = model(scene(2, (60,), 1.0, 60.0))
    fine_scene = scene(2, (119,), 0.5, 60.0)
    unchanged = model(fine_scene)
    model.change_resolution_(2)
    assert relative_error(model(fine_scene), coarse) < 0.1
    assert relative_error(unchanged, coarse) > 0.2


def test_limits_and_starts_keep_their_share() -> None:
    layer = FlexConv1d(1, 1, 65, init_size=17, min_size=9)
    share = layer.window.sigma
    layer.change_resolution_(0.5)
    assert layer.kernel_size == (33,)
    assert layer.describe_size().limits == ((5, 33),)
    assert torch.equal(layer.window.sigma, share)
    layer.reset_parameters()
    torch.testing.assert_close(layer.window.sigma, share)
