from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn

from sizeless.models import FlexTCN
from sizeless.nn import DiffStride2d, FlexConv1d, FlexConv2d, FlexConv3d, NIFFConv2d
from sizeless.study.figures import draw_sizes, render
from sizeless.trajectories import snapshot


def trajectory(network):
    return [point for epoch in range(3) for point in snapshot(network, epoch, 10 * epoch)]


@pytest.mark.parametrize(
    "network",
    [
        FlexTCN(1, 10, kernel_size=20, width=3),
        nn.Sequential(FlexConv2d(1, 2, 7), DiffStride2d(2.0, max_stride=4.0), NIFFConv2d(2, 8)),
        FlexConv3d(1, 1, 5),
        nn.Linear(2, 2),
        FlexTCN(1, 10, kernel_size=8, width=2, blocks=12),
    ],
    ids=["1d", "2d, three kinds", "3d", "no sizes", "24 layers"],
)
def test_a_picture_is_drawn(network, tmp_path):
    if isinstance(network, nn.Sequential):
        network(torch.randn(1, 1, 16, 16))
    draw_sizes(trajectory(network), network, tmp_path / "sizes.png")
    picture = imread(tmp_path / "sizes.png")
    assert picture.shape[0] > 300
    assert picture.std() > 0.02, "the picture is empty"
    assert [path.name for path in tmp_path.iterdir()] == ["sizes.png"]


def test_a_causal_kernel_lies_in_the_past():
    layer = FlexConv1d(2, 3, 10, causal=True, init_size=4)
    rendered = render(layer)
    assert rendered.taps[0].tolist() == [-3, -2, -1, 0]
    assert rendered.reach[0].tolist() == list(range(-9, 1))
    weight = layer.weight.detach().flatten(0, 1).numpy()
    norms = np.linalg.norm(weight, axis=1)
    np.testing.assert_array_equal(rendered.kernels, weight[np.argsort(-norms)][:6])


def test_a_centred_kernel_lies_around_its_tap():
    rendered = render(FlexConv2d(1, 1, (9, 7), init_size=(5, 3)))
    assert [taps.tolist() for taps in rendered.taps] == [[-2, -1, 0, 1, 2], [-1, 0, 1]]
    assert rendered.kernels.shape == (1, 5, 3)
    assert len(rendered.window) == 2


def test_only_layers_with_kernels_are_rendered():
    assert render(nn.Conv2d(1, 1, 3)) is None
    assert render(DiffStride2d(2.0)) is None
    assert render(NIFFConv2d(1, 1)) is None, "its map is not known yet"
