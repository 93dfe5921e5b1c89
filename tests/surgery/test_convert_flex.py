"""``convert(conv="flex")``: kernels that were there, with room to grow."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

import sizeless
from sizeless.kernels import SIREN, MAGNet

from .folding import error_of

# What torch says of convolutions that pad one side more than the other.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIDES = {1: (19,), 2: (12, 13), 3: (7, 8, 9)}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-11}

LAYERS = {
    "dense": {},
    "without bias": {"bias": False},
    "grouped": {"groups": 2},
    "depthwise": {"groups": 4},
    "more outputs": {"outputs": 6, "groups": 2},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "dilated by more than it is padded": {"dilation": 2, "padding": 1},
    "same": {"padding": "same"},
    "valid": {"padding": "valid"},
    "wide padding": {"padding": 2},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "replicate": {"padding": 1, "padding_mode": "replicate"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "five taps": {"size": 5, "padding": 2, "stride": 2},
    "four taps": {"size": 4, "padding": "same"},
    "two taps": {"size": 2, "padding": "same"},
}


def converted(conv, input, **options):
    """A convolution as its FlexConv, and the report."""
    new, report = sizeless.convert(conv, input, conv="flex", stem=True, **options)
    assert isinstance(new, sizeless.nn.FlexConvNd), report
    return new, report


def energy_outside(layer, taps, factor):
    """Share of a kernel's energy outside of the ``taps`` in the middle once its window grows."""
    with torch.no_grad():
        layer.window.log_sigma += math.log(factor)
        weight = layer.weight
    assert weight.shape[2:] != tuple(taps)
    inner = weight
    for axis, size in enumerate(taps, start=2):
        inner = inner.narrow(axis, (weight.shape[axis] - size) // 2, size)
    return 1 - float(inner.square().sum() / weight.square().sum())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("ndim", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_computes_what_it_did(name, ndim, dtype):
    options = dict(LAYERS[name])
    conv = KINDS[ndim](4, options.pop("outputs", 4), options.pop("size", 3), **options, dtype=dtype)
    input = torch.randn(2, 4, *SIDES[ndim], dtype=dtype)
    layer, report = converted(conv, input)
    assert error_of(layer(input), conv(input)) < TOLERANCES[dtype]
    assert error_of(layer.eval()(input), conv(input)) < TOLERANCES[dtype]
    assert report.error < TOLERANCES[dtype]
    assert report.changes[0].error < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", [(1, 7), (7, 1), (3, 5), (9, 3), (11, 11), (2, 4)])
def test_rectangles_do(size, dtype):
    conv = nn.Conv2d(3, 5, size, padding="same", dtype=dtype)
    input = torch.randn(1, 3, 24, 26, dtype=dtype)
    layer, report = converted(conv, input)
    assert layer.size == tuple(k + 1 - k % 2 for k in size)
    assert error_of(layer(input), conv(input)) < TOLERANCES[dtype]
    assert report.error < TOLERANCES[dtype]


@pytest.mark.parametrize("size", [9, 31, 80])
def test_long_filters_do_too(size):
    conv = nn.Conv1d(1, 8, size, padding="same")
    input = torch.randn(1, 1, 1000)
    layer, _ = converted(conv, input)
    assert error_of(layer(input), conv(input)) < 1e-5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (nn.Conv2d, (3, 3)),
        (nn.Conv2d, (5, 5)),
        (nn.Conv2d, (7, 7)),
        (nn.Conv2d, (11, 11)),
        (nn.Conv2d, (1, 7)),
        (nn.Conv2d, (9, 3)),
        (nn.Conv1d, (3,)),
        (nn.Conv1d, (31,)),
        (nn.Conv1d, (79,)),
        (nn.Conv3d, (3, 3, 3)),
    ],
)
def test_a_window_that_grows_finds_a_quiet_rim(kind, size, seed):
    torch.manual_seed(seed)
    conv = kind(4, 4, size, padding="same")
    layer, _ = converted(conv, torch.randn(1, 4, *[n * 4 + 8 for n in size]))
    assert energy_outside(layer, size, 1.4) < 0.01


def test_kernels_may_grow_fourfold_within_the_map():
    conv = nn.Conv2d(1, 1, 5, padding=2)
    assert converted(conv, torch.randn(1, 1, 64, 64))[0].kernel_size == (17, 17)
    assert converted(conv, torch.randn(1, 1, 64, 6))[0].kernel_size == (17, 11)
    assert converted(conv, torch.randn(1, 1, 2, 2))[0].kernel_size == (5, 5)
    dilated = nn.Conv2d(1, 1, 5, dilation=3, padding=6)
    assert converted(dilated, torch.randn(1, 1, 14, 64))[0].kernel_size == (9, 17)


def test_the_smallest_map_counts():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), conv, nn.MaxPool2d(4), conv)
    new, _ = sizeless.convert(model, torch.randn(1, 2, 12, 12), conv="flex")
    assert new[1].kernel_size == (5, 5)


def test_kernel_size_says_how_far_kernels_may_grow():
    conv, input = nn.Conv2d(2, 2, (1, 3), padding="same"), torch.randn(1, 2, 20, 20)
    # A single tap has no width to learn.
    layer, report = converted(conv, input, conv_options={"kernel_size": 15})
    assert layer.kernel_size == (1, 15)
    assert report.error < 1e-5
    layer, report = converted(conv, input, conv_options={"kernel_size": (9, 15)})
    assert layer.kernel_size == (9, 15)
    assert layer.size == (1, 3)
    assert report.error < 1e-5


def test_options_reach_the_layer():
    conv, input = nn.Conv2d(2, 2, 3, padding=1), torch.randn(1, 2, 20, 20)
    options = {"learn_center": False, "look_ahead": 1, "min_size": 1}
    layer, _ = converted(conv, input, conv_options=options)
    assert layer.look_ahead == 1
    assert layer.window.min_sizes == (1, 1)
    assert not any(name.endswith("center") for name, _ in layer.window.named_parameters())
    kernel = partial(MAGNet, hidden=11)
    layer, report = converted(conv, input, conv_options={"kernel": kernel})
    assert layer.kernel.hidden == 11
    assert report.error < 1e-3


def test_a_kernel_network_of_another_kind_does():
    kernel = partial(SIREN, hidden=48)
    conv = nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64)
    input = torch.randn(1, 2, 20, 20, dtype=torch.float64)
    assert converted(conv, input, conv_options={"kernel": kernel})[1].error < 1e-8


def test_too_few_functions_are_refused():
    with pytest.raises(ValueError, match=r"layer '': kernel must make a network of at least 8 fu"):
        sizeless.convert(
            nn.Conv2d(2, 2, 3, padding=1),
            torch.randn(1, 2, 9, 9),
            conv="flex",
            stem=True,
            conv_options={"kernel": partial(MAGNet, hidden=7)},
        )


def test_a_kernel_size_below_the_present_one_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 7, padding=3))
    with pytest.raises(ValueError, match=r"^layer '1': kernel_size, to which a kernel may grow"):
        sizeless.convert(
            model, torch.randn(1, 1, 20, 20), conv="flex", conv_options={"kernel_size": 5}
        )


def test_a_kernel_of_zeros_stays_one():
    conv, input = nn.Conv2d(2, 2, 3, padding=1), torch.randn(1, 2, 9, 9)
    nn.init.zeros_(conv.weight)
    layer, report = converted(conv, input)
    assert torch.equal(layer(input), conv(input))
    assert report.changes[0].error == 0


@pytest.mark.parametrize("trained", [True, False])
def test_what_was_trained_is_trained(trained):
    conv, input = nn.Conv2d(2, 2, 3, padding=1), torch.randn(1, 2, 9, 9)
    conv.weight.requires_grad_(trained)
    conv.bias.requires_grad_(not trained)
    layer, _ = converted(conv, input)
    assert layer.bias.requires_grad is not trained
    assert layer.window.log_sigma.requires_grad is trained
    assert layer.kernel.output.weight.requires_grad is trained


def test_gradients_reach_every_size():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    input = torch.randn(2, 1, 12, 12)
    new, _ = sizeless.convert(model, input, conv="flex", stem=True)
    new(input).square().mean().backward()
    for layer in (new[0], new[2]):
        assert layer.window.log_sigma.grad.count_nonzero() == 2
        assert layer.window.raw_center.grad.count_nonzero() == 2


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (nn.Conv2d(2, 2, 1), "1x1: there is no size to learn"),
        (nn.Conv2d(2, 2, 2, padding=1), "its kernel (2, 2) has no middle tap"),
        (nn.Conv2d(2, 2, (3, 4), padding=1), "its kernel (3, 4) has no middle tap"),
        (
            nn.Conv2d(2, 2, 4, padding="same", dilation=2),
            "its kernel (4, 4) has no middle tap",
        ),
        (
            nn.Conv2d(2, 2, 31, padding=15),
            "961 taps would need a kernel network of more than 640 functions",
        ),
        (
            nn.Conv2d(2, 2, 3, dtype=torch.bfloat16),
            "torch.bfloat16 cannot hold the coefficients: convert in float32",
        ),
    ],
)
def test_what_cannot_be_is_left_alone(conv, reason):
    input = torch.randn(1, 2, 20, 20, dtype=conv.weight.dtype)
    new, report = sizeless.convert(conv, input, conv="flex", stem=True)
    assert type(new) is nn.Conv2d
    assert torch.equal(new(input), conv(input))
    assert [change.reason for change in report.left_alone] == [reason]
    assert report.error == 0


def test_channels_last_does():
    conv = nn.Conv2d(4, 8, 3, padding=1).to(memory_format=torch.channels_last)
    input = torch.randn(2, 4, 10, 10).to(memory_format=torch.channels_last)
    layer, _ = converted(conv, input)
    assert error_of(layer(input), conv(input)) < 1e-5


def test_the_new_network_is_saved_and_copied_as_any_other():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    input = torch.randn(1, 1, 9, 9)
    first, _ = sizeless.convert(model, input, conv="flex")
    second, _ = sizeless.convert(model, input, conv="flex")
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(input), first(input))
    assert torch.equal(copy.deepcopy(first)(input), first(input))
