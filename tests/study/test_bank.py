"""The kernels that a study measures are those that the layers convolve with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sizeless import study as public
from sizeless.models.small import SmallResNet
from sizeless.nn import (
    FlexConv1d,
    FlexConv2d,
    FlexConv3d,
    NIFFConv1d,
    NIFFConv2d,
    NIFFConv3d,
    SeparableNIFFConv2d,
)
from sizeless.study import layer_kernels


def correlated(layers, input):
    """One-channel layers: correlate with the kernel, its origin over each position."""
    (layer,) = layers
    (kernel,) = layer.kernels
    padding = []
    for n, origin in reversed(list(zip(layer.size, layer.origin, strict=True))):
        padding += [int(origin), int(n - 1 - origin)]
    mode = "circular" if layer.kind == "NIFF" else "constant"
    padded = F.pad(input, padding, mode=mode)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[input.dim() - 3]
    return convolve(padded, torch.from_numpy(kernel)[None, None])


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (NIFFConv1d(1, 1), (9,)),
        (NIFFConv1d(1, 1), (8,)),
        (NIFFConv2d(1, 1), (8, 5)),
        (NIFFConv2d(1, 1), (7, 6)),
        (NIFFConv3d(1, 1), (4, 3, 5)),
        (FlexConv1d(1, 1, 9, init_size=5, bias=False), (20,)),
        (FlexConv1d(1, 1, 12, init_size=7, bias=False, causal=True), (20,)),
        (FlexConv2d(1, 1, (9, 7), init_size=(5, 3), bias=False), (11, 12)),
        (FlexConv2d(1, 1, 5, init_size=3, dilation=2, bias=False), (11, 12)),
        (FlexConv3d(1, 1, 5, init_size=3, bias=False), (6, 5, 7)),
        (nn.Conv1d(1, 1, 5, padding=2, bias=False), (12,)),
        (nn.Conv2d(1, 1, (3, 5), padding="same", dilation=(2, 1), bias=False), (9, 8)),
        (nn.Conv3d(1, 1, 3, padding=1, bias=False), (5, 4, 6)),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else str(value)[:40],
)
def test_correlation_with_the_kernel_is_the_layer(module, shape):
    input = torch.randn(2, 1, *shape)
    module.eval()
    layers = layer_kernels(module, input)
    torch.testing.assert_close(correlated(layers, input), module(input), rtol=1e-4, atol=1e-5)


def test_taps_of_a_causal_kernel_lie_in_the_past():
    (layer,) = layer_kernels(FlexConv1d(1, 1, 10, init_size=4, causal=True), torch.zeros(1, 1, 10))
    assert layer.causal
    assert layer.taps()[0].tolist() == [-3, -2, -1, 0]


def test_an_even_kernel_has_its_origin_between_taps():
    (layer,) = layer_kernels(nn.Conv2d(3, 2, 4, stride=4), torch.zeros(1, 3, 8, 8))
    assert layer.origin == (1.5, 1.5)
    assert layer.stride == (4, 4)
    assert layer.total == 6


def test_what_has_one_tap_is_left_out():
    with pytest.raises(ValueError, match="called no layer with a kernel larger than one tap"):
        layer_kernels(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 8, 8))
    layers = layer_kernels(SeparableNIFFConv2d(3, 4), torch.zeros(1, 3, 8, 8))
    assert [layer.kind for layer in layers] == ["NIFF"]


def test_stages_are_map_sizes_in_the_order_of_layers():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 1, 3)
    )
    layers = layer_kernels(model, torch.zeros(1, 1, 16, 16))
    assert [(layer.stage, layer.map_size) for layer in layers] == [
        (1, (16, 16)),
        (2, (8, 8)),
        (2, (8, 8)),
    ]


def test_layers_that_are_not_called_are_left_out():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv1d(1, 1, 3), nn.Conv1d(1, 1, 3)

        def forward(self, input):
            return self.used(input)

    assert [layer.name for layer in layer_kernels(Idle(), torch.zeros(1, 1, 8))] == ["used"]


def test_of_many_kernels_the_same_ones_are_drawn_each_time():
    model = nn.Conv2d(16, 16, 3)
    input = torch.zeros(1, 16, 8, 8)
    (first,), (again,) = (layer_kernels(model, input, most=20) for _ in range(2))
    assert first.kernels.shape == (20, 3, 3)
    assert first.total == 256
    np.testing.assert_array_equal(first.kernels, again.kernels)
    every = {kernel.tobytes() for kernel in model.weight.detach().flatten(0, 1).numpy()}
    assert all(kernel.tobytes() in every for kernel in first.kernels)


def test_half_precision_is_read_as_float32():
    model = nn.Conv2d(1, 1, 3).to(torch.bfloat16)
    (layer,) = layer_kernels(model, torch.zeros(1, 1, 8, 8, dtype=torch.bfloat16))
    assert layer.kernels.dtype == np.float32


def test_the_state_of_the_network_is_left_alone():
    model = SmallResNet(1, 3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_kernels(model, torch.randn(2, 1, 16, 16))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 7), (14, 14)])
def test_unused_energy_of_a_filter_is_that_of_the_imaginary_part(size):
    layer = NIFFConv2d(6, 6, groups=6)
    (bank,) = layer_kernels(layer, torch.zeros(1, 6, *size))
    points = layer.frequencies(size)
    spectrum = torch.complex(layer.real(points), layer.imag(points)).movedim(-1, 0)
    kernel = torch.fft.ifft2(spectrum.detach())
    expected = kernel.imag.square().sum() / kernel.abs().square().sum()
    assert bank.unused == pytest.approx(float(expected), rel=1e-4)
    assert 0.3 < bank.unused < 0.7


def test_unused_energy_of_a_window_is_what_the_crop_cuts_off():
    layer = FlexConv2d(2, 3, 17, init_size=5)
    (bank,) = layer_kernels(layer, torch.zeros(1, 2, 20, 20))
    whole = FlexConv2d(2, 3, 17, init_size=5)
    whole.load_state_dict(layer.state_dict())
    axes = torch.linspace(-1, 1, 17)
    grid = torch.stack(torch.meshgrid(axes, axes, indexing="ij"), -1)
    sigma, center = layer.window.sigma.detach(), layer.window.center.detach()
    window = torch.exp(-0.5 * (((grid - center) / sigma) ** 2).sum(-1))
    values = (layer.kernel(grid) * window[..., None]).detach().double()
    energy = values.square().sum()
    kept = layer.weight.detach().double().square().sum()
    assert bank.unused == pytest.approx(float(1 - kept / energy), rel=1e-3)
    assert bank.unused > 0


def test_a_kernel_as_large_as_it_may_be_loses_nothing():
    layer = FlexConv2d(2, 3, 7, init_size=7)
    (bank,) = layer_kernels(layer, torch.zeros(1, 2, 20, 20))
    assert bank.size == (7, 7)
    assert bank.unused == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("no module", torch.zeros(1)), {}, TypeError, "model"),
        ((nn.Conv1d(1, 1, 3), [1, 2]), {}, TypeError, "example_input must be a tensor"),
        ((nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 8)), {"most": 0}, ValueError, "most"),
    ],
)
def test_wrong_calls(arguments, options, error, message):
    with pytest.raises(error, match=message):
        layer_kernels(*arguments, **options)


def test_weights_without_values():
    with pytest.raises(ValueError, match="meta device"):
        layer_kernels(nn.Conv2d(1, 1, 3, device="meta"), torch.zeros(1, 1, 9, 9, device="meta"))


def test_every_public_name_is_there():
    assert [name for name in public.__all__ if not hasattr(public, name)] == []


def test_fresh_networks_have_the_dtype_of_the_one_that_is_studied():
    def make():
        return nn.Sequential(nn.Conv1d(1, 2, 3), FlexConv1d(2, 2, 5))

    found = public.study(make().double(), torch.randn(1, 1, 12).double(), make=make, draws=1)
    assert found.left_out == {}
    assert "built anew" in found.about["control"]
    model = make()
    found = public.study(model, torch.randn(1, 1, 12), make=model, draws=1)
    assert "drawn anew" in found.about["control"]
