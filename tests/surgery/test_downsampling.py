"""``convert(downsample="diffstride")``: strides that are learned."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sizeless

from .folding import error_of
from .striding import learned, reasons, residual_net, set_strides, strides_of

STRIDES = {1: sizeless.DiffStride1d, 2: sizeless.DiffStride2d, 3: sizeless.DiffStride3d}


class BlurPool2d(nn.Module):
    """A blur pool as other libraries have it."""

    def __init__(self, channels, stride=2):
        super().__init__()
        self.stride = stride
        self.register_buffer("filter", torch.full((channels, 1, 2, 2), 0.25))

    def forward(self, input):
        return F.conv2d(input, self.filter, stride=self.stride, groups=len(self.filter))


@pytest.mark.parametrize("ndim", STRIDES)
@pytest.mark.parametrize("kind", ["Conv", "MaxPool", "AvgPool"])
def test_every_layer_with_a_stride_learns_it(kind, ndim):
    arguments = (2, 3, 3, 2) if kind == "Conv" else (2,)
    model = nn.Sequential(getattr(nn, f"{kind}{ndim}d")(*arguments))
    input = torch.randn(1, 2, *[12] * ndim)
    new, report = learned(model, input)
    (stride,) = strides_of(new)
    assert type(stride) is STRIDES[ndim]
    assert stride.size_rule == "exact"
    assert stride.stride == (2.0,) * ndim
    assert new(input).shape[2:] == (6,) * ndim
    new(input).square().mean().backward()
    assert stride.log2_stride.grad.count_nonzero() == ndim
    assert report.changed[0].size_after == (2.0,) * ndim


def test_a_layer_is_computed_at_every_position_and_then_strided():
    input = torch.randn(1, 2, 12, 14)
    conv = nn.Conv2d(2, 3, 5, 2, padding=2, padding_mode="reflect")
    new, _ = learned(conv, input)
    dense = nn.Conv2d(2, 3, 5, padding=2, padding_mode="reflect")
    dense.load_state_dict(conv.state_dict())
    assert error_of(new(input), strides_of(new)[0](dense(input))) < 1e-6
    new, _ = learned(nn.MaxPool2d(3, 2, 1), input)
    expected = strides_of(new)[0](nn.MaxPool2d(3, 1, 1)(input))
    assert torch.equal(new(input), expected)
    new, _ = learned(nn.MaxPool2d(2), -input.abs())
    padded = F.pad(-input.abs(), (0, 1, 0, 1), value=-math.inf)
    assert torch.equal(new(-input.abs()), strides_of(new)[0](F.max_pool2d(padded, 2, 1)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, 2, padding=1),
        nn.Conv2d(2, 3, 3, 2),
        nn.Conv2d(2, 3, 4, 4),
        nn.Conv2d(2, 3, 3, (2, 1), padding=1),
        nn.Conv2d(2, 3, 3, 2, padding=2, dilation=2),
        nn.Conv2d(2, 3, 1, 2),
        nn.Conv2d(2, 2, (3, 1), 2, groups=2, padding_mode="circular", padding=(1, 0)),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d((3, 2), (2, 1)),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        BlurPool2d(2),
    ],
)
def test_maps_become_smaller_by_the_stride(layer):
    input = torch.randn(1, 2, 20, 24)
    new, report = learned(layer, input)
    assert len(report.changed) == 1
    for value in (1.0, 1.5, 2.0, 2.7):
        set_strides(new, value)
        assert new(input).shape[2:] == (math.ceil(20 / value), math.ceil(24 / value))


@pytest.mark.parametrize("value", [1.3, 2.0, 2.7])
@pytest.mark.parametrize("layer", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), BlurPool2d(3)])
def test_the_mean_of_a_constant_map_stays(layer, value):
    input = torch.full((1, 3, 21, 22), 1.7)
    new, _ = learned(layer, input)
    set_strides(new, value)
    torch.testing.assert_close(new(input), torch.full_like(new(input), 1.7))


def test_a_convolution_of_a_constant_map_has_its_mean():
    conv = nn.Conv2d(2, 3, 3, 2, padding=1, padding_mode="replicate")
    input = torch.full((1, 2, 16, 16), 0.7)
    new, _ = learned(conv, input)
    set_strides(new, 2.3)
    expected = conv(input)[:, :, :1, :1]
    torch.testing.assert_close(new(input), expected.expand(new(input).shape))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.MaxPool2d(2, return_indices=True), "it returns indices or is dilated"),
        (nn.MaxPool2d(2, dilation=2), "it returns indices or is dilated"),
    ],
)
def test_what_cannot_be_is_left_alone(layer, reason):
    new, report = learned(layer, torch.randn(1, 2, 12, 12))
    assert type(new) is nn.MaxPool2d
    assert reasons(report) == {"": reason}


def test_pools_without_a_stride_are_not_looked_at():
    _, report = learned(nn.MaxPool2d(3, 1, 1), torch.randn(1, 2, 12, 12))
    assert report.changes == ()


def test_the_stem_is_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 2, padding=1), nn.MaxPool2d(2))
    _, report = sizeless.convert(model, torch.randn(1, 1, 12, 12), downsample="diffstride")
    assert reasons(report) == {"0": "the stem"}
    assert [change.name for change in report.changed] == ["1"]


def test_options_reach_the_stride():
    options = {"transition": 0.5, "max_stride": 3.0, "shared": True}
    new, _ = learned(nn.MaxPool2d(2), torch.randn(1, 1, 12, 12), stride_options=options)
    (stride,) = strides_of(new)
    assert (stride.transition, stride.max_stride, stride.shared) == (0.5, 3.0, True)
    rules = {"1": {"size_rule": "paper"}}
    model = nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(2))
    new, _ = learned(model, torch.randn(1, 1, 64, 64), rules=rules)
    assert [stride.size_rule for stride in strides_of(new)] == ["exact", "paper"]


def test_rules_that_contradict_each_other_are_refused():
    rules = {"1.conv1": {"max_stride": 3.0}, "1.shortcut": {"max_stride": 4.0}}
    with pytest.raises(ValueError, match=r"^rules must agree about 1\.conv1, 1\.shortcut, which "):
        learned(residual_net(), torch.randn(1, 1, 32, 32), rules=rules)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_do(dtype):
    model = residual_net().to(dtype)
    input = torch.randn(2, 1, 32, 32, dtype=dtype)
    new, report = learned(model, input)
    assert len(report.changed) == 4
    assert new(input).dtype == dtype
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert {stride.log2_stride.dtype for stride in strides_of(new)} == {expected}


@pytest.mark.parametrize("side", [12, 400])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, 2, padding=1)])
def test_what_comes_next_may_work_in_place(layer, layout, side):
    input = torch.randn(1, 2, side, side).to(memory_format=layout)
    model = nn.Sequential(layer, nn.ReLU(inplace=True))
    new, _ = learned(model, input)
    new(input).square().mean().backward()
    (stride,) = strides_of(new)
    assert stride.log2_stride.grad.count_nonzero() == 2
