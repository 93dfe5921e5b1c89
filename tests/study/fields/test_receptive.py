from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import sizeless
from sizeless.models import FlexTCN
from sizeless.models.small import DiffStrideNet
from sizeless.study.fields.receptive import receptive_fields

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
FLEX = {1: sizeless.FlexConv1d, 2: sizeless.FlexConv2d}


def last(network, example, **options):
    return receptive_fields(network, example, **options).layers[-1]


def positive(network):
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    return network


def seen(network, example, position):
    """First and last sample with a gradient, for each axis, and the share of the output's sum."""
    example = example.clone().requires_grad_()
    output = network(example)
    gradient = torch.autograd.grad(output[(..., *position)].sum(), example)[0].abs().sum((0, 1))
    places = (gradient > 1e-9 * gradient.max()).nonzero()
    return [(int(p.min()), int(p.max())) for p in places.T]


@st.composite
def layers(draw, ndim):
    """A stack of layers along ``ndim`` axes, each with sizes of its own along each of them."""

    def number(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    stack = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "pool", "flex"]))
        taps = number(1, 4)
        if kind == "conv":
            padding = draw(st.integers(0, 2))
            options = {"stride": number(1, 3), "padding": padding, "dilation": number(1, 3)}
            stack.append(positive(CONVOLUTIONS[ndim](1, 1, taps, **options)))
        elif kind == "pool":
            padding = tuple(k // 2 for k in taps)
            stack.append(POOLS[ndim](taps, number(1, 3), padding))
        else:
            largest = tuple(2 * k + 1 for k in taps)
            padding = draw(st.sampled_from(["same", "valid", 1]))
            options = {"stride": number(1, 2), "dilation": number(1, 2), "padding": padding}
            stack.append(FLEX[ndim](1, 1, largest, init_size=3, **options))
    return nn.Sequential(*stack).double()


@pytest.mark.parametrize(("ndim", "size"), [(1, 300), (2, 150)])
def test_gradients_reach_exactly_the_samples_of_the_field(ndim, size):
    @settings(max_examples=25, deadline=None)
    @given(network=layers(ndim))
    def check(network):
        example = torch.ones(1, 1, *(size,) * ndim, dtype=torch.float64)
        found = last(network, example)
        position = [axis.map // 2 for axis in found.axes]
        centers = [a.center + p * a.jump for a, p in zip(found.axes, position, strict=True)]
        expected = [
            (center - (axis.field - 1) / 2, center + (axis.field - 1) / 2)
            for center, axis in zip(centers, found.axes, strict=True)
        ]
        assume(all(low >= 0 and high < size for low, high in expected))
        assert seen(network, example, position) == expected

    check()


def resnet50_of_the_paper(models):
    """Strides in the first convolution of a block, as in the table of the source."""
    network = models.resnet50()
    for module in network.modules():
        if isinstance(module, models.resnet.Bottleneck):
            stride = module.conv2.stride
            module.conv2.stride = (1, 1)
            module.conv1.stride = stride
    return network


@pytest.mark.parametrize(
    ("make", "side", "field"),
    [
        (lambda models: models.alexnet(), 224, 195),
        (lambda models: models.vgg16(), 224, 212),
        (resnet50_of_the_paper, 224, 483),
        (lambda models: models.resnet50(), 224, 427),
        (lambda models: models.inception_v3(init_weights=False), 299, 1311),
        (lambda models: models.mobilenet_v2(), 224, 491),
    ],
    ids=["AlexNet", "VGG-16", "ResNet-50", "ResNet-50 v1.5", "Inception v3", "MobileNet v2"],
)
def test_published_fields(make, side, field):
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        network, example = make(models), torch.empty(1, 3, side, side)
    found = receptive_fields(network, example).layers
    assert max(layer.axes[0].field for layer in found if not layer.whole) == field


def test_jump_and_center_follow_strides_and_padding():
    network = nn.Sequential(nn.Conv1d(1, 1, 7, stride=2, padding=3), nn.MaxPool1d(3, 2))
    first, second = (
        layer.axes[0] for layer in receptive_fields(network, torch.ones(1, 1, 64)).layers
    )
    assert (first.field, first.jump, first.center, first.taps) == (7, 2, 0, 7)
    assert (second.field, second.jump, second.center, second.stride) == (11, 4, 2, 2)
    assert second.share == 11 / 64


def test_axes_are_measured_apart():
    layer = last(nn.Conv2d(1, 1, (3, 5), stride=(1, 2), dilation=(4, 1)), torch.ones(1, 1, 20, 30))
    assert [(a.field, a.jump, a.taps, a.dilation) for a in layer.axes] == [
        (9, 1, 3, 4),
        (5, 2, 5, 1),
    ]


def test_a_causal_network_looks_back_only():
    network = FlexTCN(1, 3, kernel_size=30, width=2, init_size=4)
    found = receptive_fields(network, torch.ones(1, 1, 30)).layers
    assert [layer.axes[0].field for layer in found if layer.kind == "FlexConv"] == [4, 7, 10, 13]
    assert found[-1].axes[0].center == -6


def test_learned_sizes_are_those_of_now():
    layer = sizeless.FlexConv1d(1, 1, 33, init_size=5)
    before = last(layer, torch.ones(1, 1, 64)).axes[0].field
    nn.init.constant_(layer.window.log_sigma, -1.0)
    after = last(layer, torch.ones(1, 1, 64)).axes[0].field
    assert (before, after) == (5, layer.size[0])
    assert after > before


@pytest.mark.parametrize("stride", [1.7, 2.0, 3.3])
@pytest.mark.parametrize("rule", ["exact", "paper"])
def test_the_jump_behind_a_learned_stride_is_the_ratio_of_the_maps(stride, rule):
    pool = sizeless.DiffStride1d(stride, size_rule=rule)
    layer = last(nn.Sequential(pool, nn.Conv1d(1, 1, 3)), torch.ones(1, 1, 60))
    assert layer.axes[0].jump == pytest.approx(60 / pool.output_size(60)[0])
    assert "main lobe" in layer.note
    assert not layer.whole


def test_the_counted_part_of_a_low_pass_filter_holds_most_of_it():
    pool = sizeless.SpectralPool1d(4.0)
    axis = last(pool, torch.ones(1, 1, 64)).axes[0]
    impulse = torch.eye(64)[:, None]
    kernel = pool(impulse)[:, 0, 8].abs().numpy()
    low = round(axis.center + 8 * axis.jump - (axis.field - 1) / 2)
    inside = np.square(kernel[low : low + axis.field]).sum() / np.square(kernel).sum()
    assert axis.field == 7
    assert 0.85 < inside < 0.99


def test_a_pool_that_keeps_the_map_widens_nothing():
    assert last(sizeless.SpectralPool1d(1.0), torch.ones(1, 1, 20)).axes[0].field == 1


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        (sizeless.NIFFConv2d(2, 2), "NIFF"),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1)), "pool"),
        (nn.Sequential(nn.Conv2d(2, 1, 3), nn.Flatten(), nn.Linear(36, 2)), "global"),
    ],
    ids=["NIFF", "global pooling", "flattening"],
)
def test_what_sees_everything_is_whole(network, kind):
    layer = last(network, torch.ones(1, 2, 8, 8))
    assert (layer.whole, layer.kind, layer.note) == (True, kind, "")
    assert [(axis.field, axis.share) for axis in layer.axes] == [(8, 1.0), (8, 1.0)]


def test_a_filter_as_large_as_the_map_keeps_the_jump():
    network = nn.Sequential(nn.Conv1d(1, 1, 2, 2), sizeless.NIFFConv1d(1, 1), nn.Conv1d(1, 1, 3))
    axis = last(network, torch.ones(1, 1, 32)).axes[0]
    assert (axis.whole, axis.jump, axis.map) == (True, 2, 14)


class Gated(nn.Module):
    """A convolution whose output is scaled by one number per channel."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

    def forward(self, input):
        hidden = self.first(input)
        return self.second(hidden * hidden.mean((2, 3), keepdim=True).sigmoid())


def test_gates_count_unless_they_are_left_out():
    example = torch.ones(1, 1, 20, 20)
    assert last(Gated(), example).whole
    left_out = last(Gated(), example, gates=False)
    assert (left_out.axes[0].field, left_out.whole) == (5, False)
    assert "not counted" in left_out.note


def test_an_untrained_network_stands_beside_a_trained_one():
    trained, fresh = (sizeless.FlexConv1d(1, 1, 33, init_size=size) for size in (9, 3))
    found = receptive_fields(trained, torch.ones(1, 1, 64), control=[fresh, fresh])
    row = found.table().iloc[0]
    assert (row["field"], row["untrained"], row["untrained_std"]) == (9, 3, 0)


def test_the_table_has_a_row_for_each_call_and_axis():
    shared = nn.Conv2d(1, 1, 3, padding=1)
    table = receptive_fields(nn.Sequential(shared, shared), torch.ones(1, 1, 9, 9)).table()
    assert table["field"].tolist() == [3, 3, 5, 5]
    assert table["axis"].tolist() == [0, 1, 0, 1]
    assert table["order"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Conv1d(1, 1, 3), (1, 1, 30)),
        (DiffStrideNet(1, 3, widths=(2, 4)), (1, 1, 16, 24)),
        (nn.Sequential(nn.Conv3d(1, 1, (1, 3, 3)), nn.MaxPool3d(2)), (1, 1, 4, 16, 16)),
        (sizeless.NIFFConv2d(1, 1), (1, 1, 8, 8)),
    ],
    ids=["1-D", "2-D", "3-D", "whole from the start"],
)
def test_files_of_numbers_and_picture_are_written(network, shape, tmp_path):
    found = receptive_fields(network, torch.ones(shape), control=[network])
    names = {path.name for path in found.save(tmp_path)}
    assert names == {f"receptive_fields.{suffix}" for suffix in ("csv", "json", "png")}
    assert " x ".join(map(str, shape[2:])) in found.caption()


def test_the_caption_names_where_the_input_is_whole_from():
    network = nn.Sequential(nn.Conv1d(1, 1, 3), sizeless.NIFFConv1d(1, 1), nn.Conv1d(1, 1, 3))
    caption = receptive_fields(network, torch.ones(1, 1, 16)).caption()
    assert "grows to 3 in 0" in caption
    assert "whole input from NIFFConv1d in 1 on" in caption


def test_a_network_is_left_as_it_was():
    network = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Dropout(), nn.BatchNorm1d(1))
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    receptive_fields(network, torch.randn(2, 1, 9))
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_that_fails_is_left_as_it_was():
    network = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Linear(5, 1))
    with pytest.raises(RuntimeError):
        receptive_fields(network, torch.ones(1, 1, 9))
    assert network.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class TwoInputs(nn.Module):
    """A map, a number, and a map of the same size."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 5, padding=2)
        self.last = nn.Conv1d(1, 1, 1)

    def forward(self, first, scale, *, second=None):
        return self.last(self.one(first) * scale + self.other(first if second is None else second))


def test_a_tuple_holds_all_arguments():
    assert last(TwoInputs(), (torch.ones(1, 1, 20), torch.ones(()))).axes[0].field == 5


@pytest.mark.parametrize(
    ("network", "example", "options", "error", "words"),
    [
        (nn.Conv1d, torch.ones(1, 1, 9), {}, TypeError, "model must be an instance"),
        (nn.Conv1d(1, 1, 3), [1], {}, TypeError, "example_input must be a tensor"),
        (nn.Linear(3, 3), torch.ones(2, 3), {}, ValueError, r"spatial axes, got .* \(2, 3\)"),
        (nn.Conv1d(1, 1, 3), torch.ones(0, 1, 9), {}, ValueError, r"empty, got .* \(0, 1, 9\)"),
        (nn.ReLU(), torch.ones(1, 1, 9), {}, ValueError, "no layer that looks at neighbours"),
        (nn.Conv1d(1, 1, 3), torch.ones(1, 1, 9), {"gates": "no"}, TypeError, "gates must be"),
        (
            nn.Conv1d(1, 1, 3),
            torch.ones(1, 1, 9),
            {"control": [nn.MaxPool1d(3)]},
            ValueError,
            "control must hold networks",
        ),
    ],
)
def test_wrong_arguments_are_named(network, example, options, error, words):
    with pytest.raises(error, match=words):
        receptive_fields(network, example, **options)


def test_an_interval_of_unknown_position_has_no_center():
    class Tokens(nn.Module):
        def forward(self, input):
            return F.scaled_dot_product_attention(*[input.flatten(2).transpose(1, 2)] * 3)

    layer = last(nn.Sequential(nn.Conv2d(1, 2, 2, 2), Tokens()), torch.ones(1, 1, 8, 8))
    assert layer.layer == "Tokens"
    assert layer.whole
    assert all(math.isnan(axis.center) and math.isnan(axis.jump) for axis in layer.axes)
