"""Wrong calls of layers."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from sizeless import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    DiffStrideResidual1d,
    DiffStrideResidual2d,
    FlexConv1d,
    FlexConv2d,
    FlexConv3d,
    NIFFConv1d,
    NIFFConv2d,
    SeparableFlexConv2d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
    SpectralPool1d,
    SpectralPool2d,
)
from sizeless.kernels import MAGNet

from .row import argument, filled, wrong

NAN, INF = math.nan, math.inf
SIGNAL, MAP, IMAGE = torch.zeros(1, 2, 8), torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 8, 8)
EMPTY = torch.zeros(1, 2, 0, 8)

flex1 = partial(FlexConv1d, 2, 4, kernel_size=5)
flex2 = partial(FlexConv2d, 2, 4, kernel_size=5)
niff2 = partial(NIFFConv2d, 2, 4)


def affine_kernel(ndim, out_features, **options):
    return nn.Linear(ndim, out_features)


def kernel_of_one_axis(ndim, out_features, **options):
    return MAGNet(1, out_features)


def kernel_without_options(ndim, out_features):
    return MAGNet(ndim, out_features)


CONVOLUTIONS = [
    argument(partial(FlexConv2d, out_channels=4, kernel_size=5), "in_channels", 0, ValueError, "1"),
    argument(partial(FlexConv2d, 2, kernel_size=5), "out_channels", "4", TypeError, "an int"),
    argument(partial(FlexConv3d, 4, 6, 3), "groups", 4, ValueError, "out_channels=6", "a divisor"),
    argument(partial(FlexConv2d, 4, 6, 3), "groups", 0, ValueError, "at least 1"),
    argument(flex2, "kernel_size", 6, ValueError, "must be odd", "the next odd number"),
    argument(flex1, "kernel_size", 6, ValueError, "must be odd", "causal=True"),
    argument(flex2, "kernel_size", 0, ValueError, "at least 1"),
    argument(flex2, "kernel_size", "5", TypeError, "an int or a tuple of 2"),
    argument(flex2, "kernel_size", (5, 5, 5), ValueError, "a tuple of 2"),
    argument(flex2, "stride", 0, ValueError, "at least 1"),
    argument(flex2, "dilation", True, TypeError, "an int or a tuple of 2"),
    argument(flex2, "padding", -1, ValueError, "at least 0"),
    argument(flex2, "padding", "full", ValueError, "'same' or 'valid'"),
    argument(flex2, "padding", 1.0, TypeError, "an int or a tuple of 2"),
    argument(partial(flex1, causal=True), "padding", 2, ValueError, "must be 'same'"),
    argument(partial(flex1, causal=True), "padding", "valid", ValueError, "must be 'same'"),
    argument(flex2, "padding_mode", "mirror", ValueError, "'zeros', 'circular', 'reflect'"),
    argument(flex2, "bias", "no", TypeError, "True or False"),
    argument(flex2, "causal", True, ValueError, "FlexConv1d"),
    argument(flex1, "causal", 1, TypeError, "True or False"),
    argument(flex2, "learn_center", None, TypeError, "True or False"),
    argument(flex2, "init", "kaiming", ValueError, "'variance' or 'paper'"),
    argument(flex2, "dtype", torch.int64, TypeError, "floating-point"),
    argument(flex2, "dtype", "float32", TypeError, "torch.float32"),
    argument(flex2, "init_size", 7, ValueError, "between 1 and kernel_size=(5, 5)"),
    argument(flex2, "init_size", 0, ValueError, "between 1 and kernel_size=(5, 5)"),
    argument(flex2, "init_size", 4, ValueError, "an odd number"),
    argument(flex2, "init_size", NAN, ValueError, "finite"),
    argument(flex2, "init_size", "33", TypeError, "a number or a tuple of 2"),
    argument(flex2, "init_size", True, TypeError, "numbers only"),
    argument(flex2, "init_size", (3, 3, 3), ValueError, "a tuple of 2"),
    argument(flex2, "min_size", 0, ValueError, "at least 1"),
    argument(flex2, "min_size", 2, ValueError, "an odd number"),
    argument(flex2, "min_size", 3.0, TypeError, "an int"),
    argument(partial(flex2, init_size=3), "min_size", 5, ValueError, "initial size (3.0, 3.0)"),
    argument(flex2, "look_ahead", -1, ValueError, "at least 0"),
    argument(flex2, "look_ahead", "1", TypeError, "an int"),
    argument(flex2, "kernel", MAGNet(2, 8), TypeError, "pass a class", "functools.partial"),
    argument(flex2, "kernel", "MAGNet", TypeError, "pass a class"),
    wrong(
        "FlexConv2d: kernel makes no kernel network",
        partial(flex2, kernel=affine_kernel),
        TypeError,
        "kernel",
        "ContinuousKernel",
        "Linear",
    ),
    wrong(
        "FlexConv2d: kernel of other axes",
        partial(flex2, kernel=kernel_of_one_axis),
        ValueError,
        "kernel",
        "ndim=2 and out_features=8",
        "got ndim=1",
    ),
    wrong(
        "FlexConv2d: kernel without device",
        partial(flex2, kernel=kernel_without_options),
        TypeError,
        "kernel",
        "kernel(2, 8, device=None, dtype=None)",
        "kernel_without_options",
    ),
    argument(flex2(), "input", SIGNAL, ValueError, "4 dimensions"),
    argument(flex2(), "input", IMAGE, ValueError, "2 channels"),
    argument(flex2(), "input", EMPTY, ValueError, "empty spatial axis"),
    argument(flex2(), "input", MAP.int(), TypeError, "floating-point"),
    argument(flex2(), "input", MAP.double(), TypeError, "parameters (torch.float32)"),
    argument(flex2(), "input", [1.0], TypeError, "torch.Tensor"),
    argument(flex2().change_resolution_, "factor", 0, ValueError, "above 0"),
    argument(flex2().change_resolution_, "factor", "2", TypeError, "a number"),
    wrong(
        "FlexConv2d: the resolution with fixed padding",
        partial(flex2(padding=1).change_resolution_, 2),
        ValueError,
        "padding=(1, 1)",
        "'same'",
    ),
    wrong(
        "FlexConv2d: a map smaller than the kernel",
        partial(flex2(padding="valid"), MAP[:, :, :4]),
        ValueError,
        "input",
        "at least 5 samples",
        "got 4",
        "padding='same'",
    ),
    wrong(
        "FlexConv2d: a width that became NaN",
        lambda: filled(flex2(), "window.log_sigma", NAN)(MAP),
        ValueError,
        "width sigma is [nan, nan]",
        "learning rate",
    ),
    wrong(
        "FlexConv2d: a centre that became NaN",
        lambda: filled(flex2(), "window.raw_center", NAN).size,
        ValueError,
        "centre is [nan, nan]",
        "learning rate",
    ),
    argument(
        partial(flex2().window.assign_, torch.zeros(2)), "sigma", torch.ones(3), ValueError, "(2,)"
    ),
    argument(partial(SeparableFlexConv2d, 2, 4, 5), "groups", 2, TypeError, "FlexConv2d"),
    argument(partial(SeparableFlexConv2d, 2, 4, 5), "window", 3, TypeError, "allowed are stride"),
    argument(partial(SeparableFlexConv2d, 2, kernel_size=5), "out_channels", 0, ValueError, "1"),
    argument(SeparableFlexConv2d(2, 4, 5), "input", IMAGE, ValueError, "2 channels"),
    argument(partial(NIFFConv1d, 2), "out_channels", 4.0, TypeError, "an int"),
    argument(niff2, "groups", 3, ValueError, "in_channels=2", "a divisor of 2"),
    argument(niff2, "bias", 1, TypeError, "True or False"),
    argument(niff2, "hidden", 8, TypeError, "a tuple of ints"),
    argument(niff2, "hidden", (8, -1), ValueError, "at least 1"),
    argument(niff2, "boundary", "reflect", ValueError, "'circular' or 'zeros'"),
    argument(niff2, "frequency_unit", "Hz", ValueError, "'cycles/map' or 'cycles/pixel'"),
    argument(niff2, "half_sample_grid", "no", TypeError, "True or False"),
    argument(niff2, "dtype", torch.complex64, TypeError, "floating-point"),
    argument(niff2(), "input", SIGNAL, ValueError, "4 dimensions"),
    argument(niff2(), "input", IMAGE, ValueError, "2 channels"),
    argument(niff2(), "input", EMPTY, ValueError, "empty spatial axis"),
    argument(niff2(), "input", MAP.double(), TypeError, "parameters (torch.float32)"),
    argument(niff2().spatial_kernel, "map_size", 0, ValueError, "at least 1"),
    argument(niff2().half_spectrum, "map_size", (4, True), TypeError, "ints only"),
    argument(partial(SeparableNIFFConv2d, 2, 4), "groups", 2, TypeError, "NIFFConv2d"),
    argument(partial(SeparableNIFFConv2d, 2, 4), "bias", "yes", TypeError, "True or False"),
    argument(partial(SeparableNIFFConv2d, 2, 4), "border", "x", TypeError, "allowed are bias"),
    argument(partial(SeparableNIFFConv3d, 2), "out_channels", 0, ValueError, "at least 1"),
]

pool2 = DiffStride2d
exact2 = partial(DiffStride2d, size_rule="exact")

POOLS = [
    argument(pool2, "stride", 0.5, ValueError, "at least 1", "sizeless.functional.resample"),
    argument(pool2, "stride", NAN, ValueError, "finite"),
    argument(pool2, "stride", "2", TypeError, "a number or a tuple of 2"),
    argument(pool2, "stride", True, TypeError, "numbers only"),
    argument(DiffStride3d, "stride", (2.0, 2.0), ValueError, "a tuple of 3"),
    argument(partial(pool2, shared=True), "stride", (2.0, 3.0), ValueError, "same", "shared=True"),
    argument(pool2, "smoothness", 0.5, ValueError, "at least 1"),
    argument(pool2, "smoothness", "4", TypeError, "a number"),
    argument(pool2, "smoothness", (4.0,), TypeError, "a number"),
    argument(exact2, "smoothness", 3.0, ValueError, "size_rule='paper'", "set transition"),
    argument(pool2, "transition", 0.5, ValueError, "size_rule='exact'", "set smoothness"),
    argument(exact2, "transition", 1.5, ValueError, "above 0 and at most 1"),
    argument(exact2, "transition", NAN, ValueError, "finite"),
    argument(pool2, "size_rule", "tight", ValueError, "'paper' or 'exact'"),
    argument(pool2, "amplitude", "paper", ValueError, "'mean' or 'sum'"),
    argument(pool2, "shared", "no", TypeError, "True or False"),
    argument(pool2, "min_stride", 0.5, ValueError, "at least 1"),
    argument(pool2, "min_stride", None, TypeError, "a number"),
    argument(pool2, "max_stride", INF, ValueError, "finite"),
    argument(partial(pool2, min_stride=4.0), "max_stride", 3.0, ValueError, "min_stride=4.0"),
    argument(
        partial(pool2, max_stride=1.5), "stride", 2.0, ValueError, "between", "max_stride=1.5"
    ),
    argument(pool2, "dtype", torch.int32, TypeError, "floating-point"),
    argument(pool2(), "input", SIGNAL, ValueError, "4 dimensions"),
    argument(pool2(), "input", MAP.int(), TypeError, "floating-point"),
    argument(pool2(), "input", EMPTY, ValueError, "empty spatial axis"),
    argument(pool2().output_size, "input_size", 0, ValueError, "at least 1"),
    argument(pool2().output_size, "input_size", 8.0, TypeError, "an int or a tuple of 2"),
    wrong(
        "DiffStride2d: a stride that became NaN",
        lambda: filled(pool2(), "log2_stride", NAN)(MAP),
        ValueError,
        "stride is [nan, nan]",
        "learning rate",
    ),
    wrong("SpectralPool2d: no size", SpectralPool2d, ValueError, "stride=None", "output_size=None"),
    argument(partial(SpectralPool2d, 2.0), "output_size", 8, ValueError, "either stride or"),
    argument(SpectralPool2d, "stride", 0.5, ValueError, "at least 1"),
    argument(SpectralPool1d, "stride", "2", TypeError, "a number"),
    argument(SpectralPool2d, "output_size", 0, ValueError, "at least 1"),
    argument(SpectralPool2d, "output_size", 8.0, TypeError, "an int or a tuple of 2"),
    argument(partial(SpectralPool2d, 2.0), "amplitude", "max", ValueError, "'mean' or 'sum'"),
    argument(SpectralPool2d(2.0), "input", SIGNAL, ValueError, "4 dimensions"),
    argument(partial(DiffStrideResidual2d, 2), "out_channels", 0, ValueError, "at least 1"),
    argument(partial(DiffStrideResidual2d, 2, 4), "kernel_size", 2, ValueError, "odd"),
    argument(partial(DiffStrideResidual2d, 2, 4), "pool", 2.0, TypeError, "torch.nn.Module"),
    argument(partial(DiffStrideResidual2d, 2, 4), "pool", DiffStride2d, TypeError, "a class"),
    wrong(
        "DiffStrideResidual2d: a pool of other axes",
        partial(DiffStrideResidual2d, 2, 4, pool=DiffStride1d()),
        ValueError,
        "pool",
        "DiffStride2d(2.0)",
        "1-D DiffStride1d",
    ),
    argument(DiffStrideResidual2d(2, 4), "input", IMAGE, ValueError, "2 channels"),
    argument(DiffStrideResidual1d(2, 4), "input", MAP, ValueError, "3 dimensions"),
    argument(DiffStrideResidual2d(2, 4), "input", MAP.double(), TypeError, "torch.float32"),
]
