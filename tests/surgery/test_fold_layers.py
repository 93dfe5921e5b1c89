"""Every layer with a learned size equals the modules of torch that fold puts in its place."""

import re

import pytest
import torch
from torch import nn

import sizeless
from sizeless import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    DiffStrideResidual1d,
    DiffStrideResidual2d,
    DiffStrideResidual3d,
    FlexConv1d,
    FlexConv2d,
    FlexConv3d,
    NIFFConv1d,
    NIFFConv2d,
    NIFFConv3d,
    SeparableFlexConv1d,
    SeparableFlexConv2d,
    SeparableFlexConv3d,
    SeparableNIFFConv1d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
)

from .folding import assert_folds, error_of

MAPS = [(16,), (15,), (1,), (12, 9), (7, 7), (1, 8), (6, 5, 4), (1, 5, 6)]
LARGE = [(16,), (15,), (12, 9), (9, 10, 11)]
FLEX = {1: FlexConv1d, 2: FlexConv2d, 3: FlexConv3d}
NIFF = {1: NIFFConv1d, 2: NIFFConv2d, 3: NIFFConv3d}
STRIDE = {1: DiffStride1d, 2: DiffStride2d, 3: DiffStride3d}
POOL = {1: SpectralPool1d, 2: SpectralPool2d, 3: SpectralPool3d}
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]

precisions = pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS, ids=["float32", "float64"])
maps = pytest.mark.parametrize("spatial", MAPS, ids=str)


def check(layer, spatial, dtype, tolerance, **options):
    input = torch.randn(2, 4, *spatial, dtype=dtype)
    return assert_folds(layer.to(dtype), input, tolerance, **options)


@precisions
@maps
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init_size": 7},
        {"stride": 2},
        {"stride": 3, "bias": False},
        {"groups": 2, "dilation": 2},
        {"padding": 5, "dilation": 1},
        {"padding_mode": "replicate"},
    ],
    ids=str,
)
def test_flexconv_is_a_convolution(options, spatial, dtype, tolerance):
    layer = FLEX[len(spatial)](4, 6, 9, **{"init_size": 3, **options})
    plain, report = check(layer, spatial, dtype, tolerance)
    conv = plain[-1] if isinstance(plain, nn.Sequential) else plain
    assert report.changes[0].size_after == conv.kernel_size == layer.size


@precisions
@pytest.mark.parametrize("spatial", LARGE, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "valid"},
        {"padding": 1},
        {"padding_mode": "circular", "init_size": 7},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 6, "padding_mode": "reflect", "init_size": 7},
        {"padding": 2, "padding_mode": "circular", "init_size": 7, "stride": 2},
    ],
    ids=str,
)
def test_padding_is_that_of_the_largest_kernel(options, spatial, dtype, tolerance):
    check(FLEX[len(spatial)](4, 6, 9, **{"init_size": 3, **options}), spatial, dtype, tolerance)


@precisions
@pytest.mark.parametrize(
    "options",
    [{}, {"dilation": 2}, {"stride": 2}, {"padding_mode": "replicate"}, {"groups": 2}],
    ids=str,
)
def test_causal_flexconv_pads_the_past(options, dtype, tolerance):
    layer = FlexConv1d(4, 6, 20, causal=True, init_size=5, **options)
    plain, _ = check(layer, (20,), dtype, tolerance)
    assert isinstance(plain, nn.Sequential)
    assert isinstance(plain[1], nn.Conv1d)


@pytest.mark.parametrize("size", [(3, 7), (1, 5)])
def test_flexconv_of_another_size_on_each_axis(size):
    layer = FlexConv2d(4, 6, (9, 11), init_size=size, min_size=1)
    plain, _ = check(layer, (12, 13), torch.float32, 1e-5)
    assert plain.kernel_size == layer.size


def test_flexconv_off_its_centre_is_a_convolution():
    layer = FlexConv2d(4, 6, 11, init_size=5)
    with torch.no_grad():
        layer.window.raw_center.add_(0.2)
    check(layer, (12, 13), torch.float32, 1e-5)


def test_flexconv_folds_for_maps_of_any_size():
    layer = FlexConv2d(4, 6, 9, init_size=5).eval()
    plain, _ = sizeless.fold(layer, torch.randn(1, 4, 8, 8))
    other = torch.randn(2, 4, 21, 13)
    assert error_of(plain(other), layer(other)) < 1e-5


@precisions
@maps
@pytest.mark.parametrize(
    "options",
    [{}, {"groups": 4}, {"groups": 2, "bias": True}, {"boundary": "zeros"}],
    ids=str,
)
def test_niff_is_a_convolution(options, spatial, dtype, tolerance):
    layer = NIFF[len(spatial)](4, 8, **options)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    _, report = check(layer, spatial, dtype, tolerance)
    assert report.changes[0].size_after == spatial


@precisions
@maps
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size_rule": "exact"},
        {"size_rule": "exact", "stride": 1.7, "amplitude": "sum"},
        {"shared": True},
        {"stride": 1.0},
    ],
    ids=str,
)
def test_learned_stride_is_matrix_products(options, spatial, dtype, tolerance):
    check(STRIDE[len(spatial)](**options), spatial, dtype, tolerance)


@precisions
@maps
@pytest.mark.parametrize(
    "options",
    [{"stride": 2.0}, {"stride": 1.3}, {"output_size": 3}, {"output_size": 20}],
    ids=str,
)
@pytest.mark.parametrize("amplitude", ["mean", "sum"])
def test_spectral_pool_is_matrix_products(options, amplitude, spatial, dtype, tolerance):
    check(POOL[len(spatial)](**options, amplitude=amplitude), spatial, dtype, tolerance)


def test_long_axes_are_matrix_products_too():
    plain, _ = check(DiffStride1d(3.0), (400,), torch.float64, 1e-10)
    assert isinstance(plain[0], nn.Linear)


@pytest.mark.parametrize("layer", [DiffStride2d(1.7), SpectralPool2d(1.7)], ids=["ds", "sp"])
def test_resampling_is_frozen(layer):
    plain, _ = sizeless.fold(layer, torch.randn(1, 4, 9, 8))
    assert plain.state_dict()
    assert not any(parameter.requires_grad for parameter in plain.parameters())


def test_an_axis_that_stays_as_it_is_costs_nothing():
    plain, _ = sizeless.fold(SpectralPool3d(output_size=(6, 5, 2)), torch.randn(1, 4, 6, 5, 4))
    assert [type(part) for part in plain] == [nn.Linear]


@pytest.mark.parametrize("conv", [SeparableFlexConv1d, SeparableFlexConv2d, SeparableFlexConv3d])
def test_separable_flexconvs_are_graphs(conv):
    layer = conv(4, 6, 9)
    ndim = layer.depthwise.ndim
    check(layer, (12, 9, 7)[:ndim], torch.float32, 1e-5)


@pytest.mark.parametrize("conv", [SeparableNIFFConv1d, SeparableNIFFConv2d, SeparableNIFFConv3d])
def test_separable_niffs_are_graphs(conv):
    layer = conv(4, 6)
    ndim = layer.depthwise.ndim
    check(layer, (12, 9, 7)[:ndim], torch.float32, 1e-5)


@precisions
@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize(
    "block", [DiffStrideResidual1d, DiffStrideResidual2d, DiffStrideResidual3d]
)
def test_residual_blocks_are_graphs(block, width, dtype, tolerance):
    layer = block(4, width)
    ndim = layer.pool_class.ndim
    check(layer, (12, 9, 7)[:ndim], dtype, tolerance)


@pytest.mark.parametrize(
    "layer", [FlexConv2d(4, 6, 9), NIFFConv2d(4, 6), DiffStride2d(1.7)], ids=["flex", "niff", "ds"]
)
def test_inputs_in_channels_last(layer):
    plain, _ = sizeless.fold(layer, torch.randn(1, 4, 9, 8))
    input = torch.randn(2, 4, 9, 8)
    last = input.to(memory_format=torch.channels_last)
    assert error_of(plain(last), layer(input)) < 1e-5


def test_half_precision_stays():
    layer = DiffStride2d(1.7)
    input = torch.randn(2, 4, 9, 8, dtype=torch.bfloat16)
    plain, report = sizeless.fold(layer, input)
    assert plain(input).dtype == layer(input).dtype == torch.bfloat16
    assert report.error < 1e-2


def test_a_kernel_that_wraps_around_twice_is_refused():
    layer = FlexConv2d(4, 6, 9, init_size=7, padding_mode="circular")
    message = (
        "fold cannot replace the FlexConv2d at 'the top': its kernel of 7x7 taps wraps around a "
        "map of 2x8 more than once, which no layer of torch.nn does"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sizeless.fold(layer, torch.randn(1, 4, 2, 8))
