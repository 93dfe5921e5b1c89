"""How a FlexConv says it would compute."""

from __future__ import annotations

import pytest
import torch

from sizeless import FlexConv1d, FlexConv2d
from sizeless.functional import plan, use_method


def test_the_plan_is_that_of_the_present_size() -> None:
    layer = FlexConv2d(8, 16, 33, groups=4, init_size=5)
    small = layer.plan((4, 8, 40, 30))
    assert small == plan((4, 8, 40, 30), (16, 2, 5, 5), padding="same", groups=4)
    with torch.no_grad():
        layer.window.log_sigma.fill_(0.0)
    large = layer.plan((4, 8, 40, 30))
    assert large == plan((4, 8, 40, 30), (16, 2, 33, 33), padding="same", groups=4)
    assert small != large
    with use_method("channels_last"):
        assert {step.method for step in layer.plan((4, 8, 40, 30))} == {"channels_last"}


def test_the_plan_knows_strides_causality_and_padding_in_pixels() -> None:
    causal = FlexConv1d(4, 4, 64, init_size=64, causal=True, stride=2)
    assert causal.plan((2, 4, 100)) == plan((2, 4, 100), (4, 4, 64), stride=2, causal=True)
    # Less padding than the kernel has lost: the map is cropped.
    pixels = FlexConv2d(4, 4, 9, padding=1, init_size=3)
    assert pixels.plan((2, 4, 20, 20)) == plan((2, 4, 16, 16), (4, 4, 3, 3))


@pytest.mark.parametrize("shape", [(2, 3, 20, 20), (2, 4, 20)])
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="input_shape must"):
        FlexConv2d(4, 4, 9).plan(shape)
