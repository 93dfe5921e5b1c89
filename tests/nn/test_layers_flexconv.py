"""FlexConv against its twin and the rules of ``layer_case``."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.testing import assert_close

from sizeless.functional import naive
from sizeless.kernels import MAGNet
from sizeless.nn import (
    FlexConv1d,
    FlexConv2d,
    FlexConv3d,
    FlexConvNd,
    SeparableFlexConv1d,
    SeparableFlexConv2d,
    SeparableFlexConv3d,
)

from . import references
from .layer_case import Compiled, EndsInConv3d, SizedLayerCase
from .layer_tools import reset


class FlexConvCase(SizedLayerCase):
    maps = ((6, 5), (4, 7), (1, 3))
    layer_class: type[nn.Module] = FlexConv2d

    def flex(self, *arguments: Any, **options: Any) -> nn.Module:
        """Return the layer with a small kernel network, unless told otherwise."""
        network = partial(MAGNet, hidden=4, layers=1, input_scale=6.0)
        return self.layer_class(*arguments, **{"kernel": network, **options})

    def prepare(self, layer):
        super().prepare(layer)
        for name, parameter in layer.named_parameters():
            if name.endswith("raw_center"):
                # Off the middle tap, and causally off the last one, where the limit is.
                nn.init.constant_(parameter, 0.9 if parameter[0] > 0.5 else -0.03)

    def twin(self, layer, input):
        return references.flexconv(layer, input)

    def shown(self, layer):
        return f"size={layer.size}"

    def test_weight_is_the_window_times_the_network_at_every_tap(self, layer):
        for module in layer.modules():
            if isinstance(module, FlexConvNd):
                full = references.flexconv_kernel(module)
                places = [slice(*bound) for bound in module.window.bounds()]
                cropped = full[(..., *places)]
                assert_close(module.weight, cropped, rtol=1e-9, atol=1e-12)
                assert full.count_nonzero() == cropped.count_nonzero() == cropped.numel()

    def test_it_is_a_slow_convolution_with_its_weight(self, layer):
        module = next(m for m in layer.modules() if isinstance(m, FlexConvNd))
        if module.padding != "same":
            return
        input = self.input()
        expected = naive.convolve(
            input,
            module.weight,
            module.bias,
            module.stride,
            "same",
            module.dilation,
            module.groups,
            module.padding_mode,
            module.causal,
        )
        assert_close(module(input), expected)

    def test_made_on_the_meta_device_it_keeps_the_variance(self):
        layer = self.make(device="meta").to_empty(device="cpu")
        layer.apply(reset)
        module = next(m for m in layer.modules() if isinstance(m, FlexConvNd))
        energy = module.weight.square().sum() / module.out_channels
        assert_close(energy, torch.ones(()))


class TestFlexConv1d(FlexConvCase):
    maps = ((9,), (6,), (1,))
    layer_class = FlexConv1d

    def make(self, **factory):
        return self.flex(2, 3, 7, init_size=5, **factory)


class TestFlexConv1dCausal(Compiled, FlexConvCase):
    maps = ((9,), (12,), (1,))
    layer_class = FlexConv1d

    def make(self, **factory):
        return self.flex(2, 3, 12, init_size=5, causal=True, **factory)


class TestFlexConv1dCausalStridedDilated(FlexConvCase):
    maps = ((9,), (4,), (1,))
    layer_class = FlexConv1d

    def make(self, **factory):
        return self.flex(
            2, 4, 6, 2, dilation=3, groups=2, init_size=4, causal=True, bias=False, **factory
        )


class TestFlexConv1dCausalCircular(FlexConvCase):
    maps = ((9,), (4,), (1,))
    layer_class = FlexConv1d

    def make(self, **factory):
        options = {"causal": True, "padding_mode": "circular", "learn_center": False}
        return self.flex(2, 2, 6, init_size=4, **options, **factory)


class TestFlexConv1dDepthwiseByFourier(Compiled, FlexConvCase):
    maps = ((64,), (1,))
    layer_class = FlexConv1d

    def make(self, **factory):
        return self.flex(2, 2, 65, groups=2, init_size=61, **factory)


class TestFlexConv2d(Compiled, FlexConvCase):
    def make(self, **factory):
        return self.flex(2, 3, (5, 7), init_size=(3, 5), **factory)


class TestFlexConv2dByDefault(FlexConvCase):
    def make(self, **factory):
        return FlexConv2d(2, 2, 5, **factory)


class TestFlexConv2dGrouped(FlexConvCase):
    channels = 4

    def make(self, **factory):
        return self.flex(4, 6, 5, groups=2, init_size=3, learn_center=False, **factory)


class TestFlexConv2dDepthwise(FlexConvCase):
    def make(self, **factory):
        return self.flex(2, 4, 7, groups=2, init_size=5, **factory)


class TestFlexConv2dStrided(FlexConvCase):
    def make(self, **factory):
        return self.flex(2, 2, 5, stride=(2, 3), init_size=3, **factory)


class TestFlexConv2dDilated(FlexConvCase):
    def make(self, **factory):
        return self.flex(2, 2, 5, dilation=(2, 1), init_size=3, padding_mode="reflect", **factory)


class TestFlexConv2dCircular(FlexConvCase):
    def make(self, **factory):
        return self.flex(2, 2, 7, init_size=5, padding_mode="circular", **factory)


class TestFlexConv2dReplicate(FlexConvCase):
    def make(self, **factory):
        return self.flex(2, 2, 5, stride=2, init_size=3, padding_mode="replicate", **factory)


class TestFlexConv2dPixels(Compiled, FlexConvCase):
    """Padding that shrinks with the kernel: on one axis below nothing."""

    maps = ((8, 7), (9, 5), (7, 6))

    def make(self, **factory):
        return self.flex(2, 2, (9, 5), padding=(1, 2), dilation=(1, 2), init_size=3, **factory)


class TestFlexConv2dValid(FlexConvCase):
    maps = ((7, 8), (5, 6))

    def make(self, **factory):
        return self.flex(2, 2, 5, stride=2, padding="valid", init_size=3, **factory)


class TestFlexConv2dOneRow(FlexConvCase):
    maps = ((4, 5), (1, 6))

    def make(self, **factory):
        return self.flex(2, 2, (1, 5), init_size=(1, 3), **factory)


class TestFlexConv2dLookingAhead(FlexConvCase):
    """Training adds taps of value 0, whose gradients the formula of the layer does not have."""

    maps = ((6, 7), (1, 5))

    def make(self, **factory):
        return self.flex(2, 2, (5, 9), init_size=(3, 4.5), look_ahead=2, **factory)

    def prepare(self, layer):
        super().prepare(layer)
        layer.eval()

    def test_training_pads_the_kernel_with_zeros(self, layer):
        layer.train()
        for number in range(len(self.maps)):
            input = self.input(number=number)
            assert_close(layer(input), self.twin(layer, input))


class TestFlexConv3d(FlexConvCase):
    maps = ((3, 4, 5), (1, 2, 3))
    layer_class = FlexConv3d

    def make(self, **factory):
        return self.flex(2, 2, (3, 5, 3), init_size=3, **factory)


class TestFlexConv3dDepthwise(FlexConvCase):
    maps = ((4, 3, 4), (1, 3, 2))
    layer_class = FlexConv3d

    def make(self, **factory):
        options = {"groups": 2, "stride": (2, 1, 1), "padding_mode": "circular"}
        return self.flex(2, 2, 3, init_size=3, **options, **factory)


class SeparableFlexConvCase(FlexConvCase):
    def twin(self, layer, input):
        hidden = references.flexconv(layer.depthwise, input)
        return naive.convolve(hidden, layer.pointwise.weight, layer.pointwise.bias)


class TestSeparableFlexConv1d(SeparableFlexConvCase):
    maps = ((9,), (4,), (1,))
    layer_class = SeparableFlexConv1d

    def make(self, **factory):
        return self.flex(2, 3, 8, init_size=4, causal=True, **factory)


class TestSeparableFlexConv2d(SeparableFlexConvCase):
    layer_class = SeparableFlexConv2d

    def make(self, **factory):
        return self.flex(2, 3, 5, init_size=3, bias=False, **factory)


class TestSeparableFlexConv3d(EndsInConv3d, SeparableFlexConvCase):
    maps = ((3, 4, 3), (1, 2, 3))
    layer_class = SeparableFlexConv3d

    def make(self, **factory):
        return self.flex(2, 1, 3, **factory)
