"""How FlexConv starts: the scale of its kernels, and where their units lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from sizeless import FlexConv1d, FlexConv2d, FlexConv3d
from sizeless.kernels import SIREN, Fourier, Gabor, MAGNet
from sizeless.nn import FlexConvNd

LAYERS = {1: FlexConv1d, 2: FlexConv2d, 3: FlexConv3d}

DENSE = {
    "1d": partial(FlexConv1d, 4, 8, 33),
    "1d causal": partial(FlexConv1d, 4, 8, 100, causal=True),
    "2d": partial(FlexConv2d, 4, 8, 17),
    "2d wide": partial(FlexConv2d, 4, 8, 9, init_size=9),
    "3d": partial(FlexConv3d, 4, 8, 7),
    "2d depthwise": partial(FlexConv2d, 8, 8, 17, groups=8),
    "1d depthwise causal": partial(FlexConv1d, 8, 8, 100, groups=8, causal=True),
    "2d grouped": partial(FlexConv2d, 4, 8, 17, groups=2),
    "2d siren": partial(FlexConv2d, 4, 8, 17, kernel=SIREN),
    "2d fourier": partial(FlexConv2d, 4, 8, 17, kernel=Fourier),
    "2d one tap": partial(FlexConv2d, 4, 8, 17, init_size=1),
}


@pytest.mark.parametrize("make", DENSE.values(), ids=DENSE)
def test_white_noise_keeps_its_variance(make: Callable[..., FlexConvNd]) -> None:
    variances = []
    for seed in range(4):
        torch.manual_seed(seed)
        layer = make()
        torch.testing.assert_close(
            layer.weight.square().sum() / layer.out_channels, torch.tensor(1.0)
        )
        sides = {1: (500,), 2: (30, 30), 3: (12, 12, 12)}[layer.ndim]
        with torch.no_grad():
            output = layer(torch.randn(4, layer.in_channels, *sides))
        # Away from the edges, where zeros thin the input out.
        edge = 100 if layer.causal else layer.size[0] // 2
        inside = (slice(edge, sides[0] if layer.causal else sides[0] - edge),) * layer.ndim
        variances.append(output[(..., *inside)].square().mean().item())
    assert sum(variances) / len(variances) == pytest.approx(1, abs=0.15)


def test_paper_init_leaves_the_kernel_as_drawn() -> None:
    kernels, outputs = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        layer = FlexConv2d(24, 24, 33, init="paper")
        assert layer.size == (5, 5)
        with torch.no_grad():
            kernels.append(layer.weight.std().item())
            outputs.append(layer(torch.randn(1, 24, 24, 24)).std().item())
    assert sum(kernels) / 8 == pytest.approx(0.048, rel=0.1)
    assert sum(outputs) / 8 == pytest.approx(1.15, rel=0.1)


@pytest.mark.parametrize("kind", [MAGNet, Gabor])
@pytest.mark.parametrize("init_size", [3, 9, 21])
def test_centred_networks_start_where_the_window_is(
    kind: Callable[..., MAGNet], init_size: int
) -> None:
    layer = FlexConv2d(1, 2, 33, init_size=(init_size, 5), kernel=kind)
    center = layer.kernel.center
    for axis, sigma in enumerate(layer.window.sigma.tolist()):
        furthest = center[..., axis].abs().max().item()
        assert 0.8 * 1.667 * sigma < furthest <= 1.667 * sigma * (1 + 1e-6)


@pytest.mark.parametrize("kind", [MAGNet, Gabor])
@pytest.mark.parametrize("init_size", [3, 9, 80])
def test_causal_networks_start_in_the_recent_past(
    kind: Callable[..., MAGNet], init_size: int
) -> None:
    layer = FlexConv1d(1, 2, 100, init_size=init_size, causal=True, kernel=kind)
    spread = 1.667 * layer.window.sigma.item()
    center = layer.kernel.center
    assert 1 - spread - 1e-6 <= center.min() < 1 - 0.9 * spread
    assert 1 - 0.1 * spread < center.max() <= 1


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_parameter_count(ndim: int) -> None:
    layer = LAYERS[ndim](5, 7, 9)
    count = 4 * 32 * (3 * ndim + 1) + 3 * (32**2 + 32) + 33 * 5 * 7 + 7 + 2 * ndim
    assert sum(p.numel() for p in layer.parameters()) == count
