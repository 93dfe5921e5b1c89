"""``convert(conv="niff")``: frequency filters, drawn anew or fitted."""

import pytest
import torch
from torch import nn

import sizeless

from .folding import error_of

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIDES = {1: (17,), 2: (8, 9), 3: (5, 4, 6)}


def filtered(conv, input, **options):
    """The layer in the place of a convolution, and its entry in the report."""
    new, report = sizeless.convert(conv, input, conv="niff", stem=True, conv_options=options)
    (change,) = report.changed
    return new, change


def kernel_error(layer, conv, size):
    """Relative error of a layer's kernels, found from what both make of a single one."""
    circular = type(conv)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=False,
        padding_mode="circular",
    )
    circular.load_state_dict({"weight": conv.weight})
    # One input channel of each group at a time, so that every pair of channels is seen alone.
    difference, norm, inputs = 0.0, 0.0, conv.in_channels // conv.groups
    for channel in range(inputs):
        impulse = torch.zeros(1, conv.in_channels, *size)
        impulse[(0, slice(channel, None, inputs), *[0] * len(size))] = 1
        with torch.no_grad():
            found, wanted = layer(impulse), circular(impulse)
            found = found - layer(0 * impulse)
        difference += float((found - wanted).square().sum())
        norm += float(wanted.square().sum())
    return (difference / norm) ** 0.5


@pytest.mark.parametrize("ndim", KINDS)
@pytest.mark.parametrize(
    ("options", "form", "name"),
    [
        ({}, "split", "SeparableNIFFConv"),
        ({}, "full", "NIFFConv"),
        ({"groups": 4}, "split", "NIFFConv"),
        ({"groups": 4}, "full", "NIFFConv"),
        ({"groups": 2}, "split", "SeparableNIFFConv"),
        ({"groups": 2}, "full", "NIFFConv"),
    ],
)
def test_what_takes_the_place(ndim, options, form, name):
    conv = KINDS[ndim](4, 4, 3, padding=1, **options)
    input = torch.randn(2, 4, *SIDES[ndim])
    layer, change = filtered(conv, input, form=form)
    assert type(layer).__name__ == f"{name}{ndim}d"
    assert layer(input).shape == conv(input).shape
    assert (change.size_before, change.size_after) == ((3,) * ndim, SIDES[ndim])
    assert (change.error, change.reason) == (None, "drawn anew")
    layer(input).square().mean().backward()
    constants = [module.imag.output.bias for module in layer.modules() if hasattr(module, "imag")]
    for parameter in layer.parameters():
        # The odd part of a constant is nothing.
        silent = any(parameter is constant for constant in constants)
        assert bool(parameter.grad.count_nonzero()) is not silent


@pytest.mark.parametrize("form", ["split", "full"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("ndim", KINDS)
def test_a_fit_comes_closer_and_its_error_is_true(ndim, groups, form):
    conv = KINDS[ndim](4, 4, 3, padding=1, groups=groups)
    input = torch.randn(1, 4, *SIDES[ndim])
    drawn, _ = filtered(conv, input, form=form)
    layer, change = filtered(conv, input, form=form, fit=20)
    assert change.reason == "fitted in 20 steps"
    assert kernel_error(layer, conv, SIDES[ndim]) == pytest.approx(change.error, rel=1e-3)
    assert change.error < 0.9 * kernel_error(drawn, conv, SIDES[ndim])
    assert change.error < 1


@pytest.mark.parametrize("layer", [{"dilation": 2, "padding": 2}, {"padding": "same"}])
def test_dilated_kernels_are_fitted_where_they_are(layer):
    conv = nn.Conv2d(2, 2, 3, groups=2, **layer)
    new, change = filtered(conv, torch.randn(1, 2, 9, 8), fit=60, hidden=(32,))
    conv.padding = conv.dilation
    assert kernel_error(new, conv, (9, 8)) == pytest.approx(change.error, rel=1e-3)
    assert change.error < 0.7


def test_a_long_fit_of_a_large_network_is_close():
    conv = nn.Conv1d(3, 3, 3, padding=1, groups=3, padding_mode="circular")
    input = torch.randn(2, 3, 16)
    new, change = filtered(conv, input, fit=300, hidden=(64,))
    assert change.error < 0.1
    assert error_of(new(input), conv(input)) < 0.2


def test_a_fit_trains_nothing_else_and_leaves_no_gradients():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    conv.weight.requires_grad_(False)
    layer, _ = filtered(conv, torch.randn(1, 2, 8, 8), fit=3)
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trained == {"pointwise.bias"}
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_the_bias_is_taken_over_or_goes():
    conv, input = nn.Conv2d(2, 3, 3, padding=1), torch.randn(1, 2, 8, 8)
    assert torch.equal(filtered(conv, input)[0].pointwise.bias, conv.bias)
    assert torch.equal(filtered(conv, input, form="full")[0].bias, conv.bias)
    assert filtered(conv, input, bias=False)[0].pointwise.bias is None
    assert filtered(nn.Conv2d(2, 3, 3, padding=1, bias=False), input)[0].pointwise.bias is None


def test_options_reach_the_filters():
    layer, _ = filtered(nn.Conv2d(2, 2, 3, padding=1), torch.randn(1, 2, 8, 8), boundary="zeros")
    assert layer.depthwise.boundary == "zeros"


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (nn.Conv2d(2, 2, 1), "1x1: there is no size to learn"),
        (nn.Conv2d(2, 2, 3, 2, 1), "it has a stride"),
        (nn.Conv2d(2, 2, 3), "it does not keep the map's size"),
        (
            nn.Conv2d(2, 2, (1, 7), padding="same"),
            "1x7: a filter has the size of the map on every axis",
        ),
    ],
)
def test_what_cannot_be_is_left_alone(conv, reason):
    new, report = sizeless.convert(conv, torch.randn(1, 2, 9, 9), conv="niff", stem=True)
    assert type(new) is nn.Conv2d
    assert [change.reason for change in report.left_alone] == [reason]


def test_the_report_warns_of_borders():
    model = nn.Conv2d(2, 2, 3, padding=1)
    _, report = sizeless.convert(model, torch.randn(1, 2, 9, 9), conv="niff", stem=True)
    assert report.error is None
    assert report.notes[0].startswith("Frequency filters wrap around the map's border")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_do(dtype):
    conv = nn.Conv2d(2, 2, 3, padding=1, dtype=dtype)
    input = torch.randn(1, 2, 9, 9, dtype=dtype)
    assert filtered(conv, input)[0](input).dtype == dtype
    assert filtered(conv, input, fit=2)[1].error > 0


@pytest.mark.parametrize("boundary", ["circular", "zeros"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_comes_next_may_work_in_place(layout, boundary):
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    input = torch.randn(2, 4, 8, 8).to(memory_format=layout)
    layer, _ = filtered(conv, input, boundary=boundary)
    nn.Sequential(layer, nn.ReLU(inplace=True))(input).sum().backward()
    assert layer.real.output.weight.grad.count_nonzero() > 0
