"""Wrong calls of functions and kernel networks."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from sizeless.functional import (
    circular_convolve,
    clamp_straight_through,
    convolve,
    good_length,
    hermitian_half,
    low_pass_window,
    ramp,
    resample,
    resampling_matrix,
    spatial_kernel,
)
from sizeless.kernels import MLP, NSIREN, SIREN, Fourier, Gabor, MAGNet

from .row import argument, wrong

NAN, INF = math.nan, math.inf
SIGNAL = torch.zeros(1, 2, 8)
WEIGHT, HALF = torch.zeros(3, 2, 3), torch.zeros(3, 2, 5)

convolved = partial(convolve, input=SIGNAL, weight=WEIGHT)
circular = partial(circular_convolve, input=SIGNAL, real=HALF, imag=HALF)
resized = partial(resample, input=SIGNAL, output_size=4)
windowed = partial(resized, cutoff=1.0, transition=1.0)
matrix = partial(resampling_matrix, size=8, output_size=4)
window = partial(low_pass_window, frequencies=4, cutoff=1.0, transition=1.0, like=SIGNAL)

FUNCTIONS = [
    argument(convolved, "input", [1.0], TypeError, "torch.Tensor"),
    argument(convolved, "input", torch.zeros(8), ValueError, "(N, C, *spatial)", "input[None]"),
    argument(convolved, "input", torch.zeros(1, 2, 0), ValueError, "empty spatial axis"),
    argument(convolved, "input", SIGNAL.int(), TypeError, "floating-point", ".float()"),
    argument(convolved, "input", SIGNAL.cfloat(), TypeError, "real", "floating-point"),
    argument(convolved, "weight", WEIGHT.double(), TypeError, "dtype of input (torch.float32)"),
    argument(convolved, "weight", torch.zeros(3, 2, 3, 3), ValueError, "3 dimensions"),
    argument(convolved, "weight", torch.zeros(3, 5, 3), ValueError, "2 channels and groups=1"),
    argument(convolved, "bias", torch.zeros(2), ValueError, "None or have shape (3,)"),
    argument(convolved, "bias", 1.0, TypeError, "torch.Tensor"),
    argument(convolved, "stride", 0, ValueError, "at least 1"),
    argument(convolved, "stride", True, TypeError, "an int or a tuple"),
    argument(convolved, "stride", (1, 1), ValueError, "a tuple of 1"),
    argument(convolved, "padding", -1, ValueError, "at least 0"),
    argument(convolved, "padding", "full", ValueError, "'same' or 'valid'"),
    argument(convolved, "dilation", 1.5, TypeError, "an int or a tuple"),
    argument(convolved, "groups", 0, ValueError, "at least 1"),
    argument(convolved, "groups", "1", TypeError, "an int"),
    argument(convolved, "padding_mode", "mirror", ValueError, "'zeros', 'circular', 'reflect'"),
    argument(convolved, "method", "FFT", ValueError, "'fft', or the name of a back end"),
    argument(convolved, "causal", "no", TypeError, "True or False"),
    argument(partial(convolved, padding="valid"), "causal", True, ValueError, "0 or 'same'"),
    wrong(
        "convolve: groups that do not divide",
        partial(convolve, SIGNAL, torch.zeros(3, 1, 3), groups=2),
        ValueError,
        "groups=2",
        "(3, 1, 3)",
        "a divisor of 3",
    ),
    wrong(
        "convolve: a map smaller than the kernel",
        partial(convolve, SIGNAL, torch.zeros(3, 2, 9), padding="valid"),
        ValueError,
        "weight reaches over 9",
        "the padded input has 8",
        "padding='same'",
    ),
    argument(circular, "real", torch.zeros(3, 2, 8), ValueError, "of shape (3, 2, 5)"),
    argument(circular, "imag", torch.zeros(2, 2, 5), ValueError, "of shape (3, 2, 5)"),
    argument(circular, "imag", HALF.cfloat(), TypeError, "real floating-point"),
    argument(circular, "imag", HALF.double(), TypeError, "dtype of input (torch.float32)"),
    argument(circular, "groups", 1.0, TypeError, "an int"),
    argument(circular, "bias", torch.zeros(4), ValueError, "None or have shape (3,)"),
    argument(partial(hermitian_half, HALF, HALF), "ndim", 0, ValueError, "at least 1"),
    argument(partial(hermitian_half, HALF, ndim=2), "imag", HALF.double(), TypeError, "of real"),
    argument(partial(spatial_kernel, HALF, HALF), "map_size", 8, TypeError, "a tuple of ints"),
    argument(partial(spatial_kernel, HALF, HALF), "map_size", (), ValueError, "one or more"),
    argument(partial(spatial_kernel, HALF, HALF), "map_size", (8.0,), TypeError, "ints only"),
    argument(good_length, "n", 0, ValueError, "at least 1"),
    argument(ramp, "value", 0.5, TypeError, "torch.Tensor"),
    argument(clamp_straight_through, "value", 0.5, TypeError, "torch.Tensor"),
    argument(resized, "input", SIGNAL.long(), TypeError, "floating-point"),
    argument(resized, "input", torch.zeros(1, 2, 8, 0), ValueError, "empty spatial axis"),
    argument(resized, "output_size", 0, ValueError, "at least 1"),
    argument(resized, "output_size", 4.0, TypeError, "an int or a tuple"),
    argument(resized, "output_size", torch.ones(1).int(), TypeError, "an int or a tuple"),
    argument(resized, "cutoff", 1.0, ValueError, "give both or neither"),
    argument(resized, "transition", 1.0, ValueError, "give both or neither"),
    argument(windowed, "cutoff", NAN, ValueError, "finite"),
    argument(windowed, "cutoff", "1", TypeError, "a number or a tuple"),
    argument(windowed, "cutoff", torch.ones(3), ValueError, "one number or 1"),
    argument(windowed, "cutoff", torch.ones(1).int(), TypeError, "floating-point"),
    argument(windowed, "transition", 0.0, ValueError, "above 0"),
    argument(windowed, "transition", INF, ValueError, "finite"),
    argument(windowed, "transition", True, TypeError, "numbers only"),
    argument(windowed, "amplitude", "paper", ValueError, "'mean' or 'sum'"),
    argument(windowed, "method", "dct", ValueError, "'auto', 'matrix' or 'fft'"),
    argument(matrix, "size", 0, ValueError, "at least 1"),
    argument(matrix, "output_size", True, TypeError, "an int"),
    argument(matrix, "window", torch.ones(5), ValueError, "frequencies 0 to 2", "low_pass_window"),
    argument(matrix, "window", [1.0, 1.0], TypeError, "torch.Tensor"),
    argument(matrix, "amplitude", "max", ValueError, "'mean' or 'sum'"),
    argument(matrix, "like", torch.zeros(1).int(), TypeError, "floating-point"),
    argument(window, "frequencies", 0, ValueError, "at least 1"),
    argument(window, "frequencies", 2.5, TypeError, "an int"),
    argument(window, "cutoff", NAN, ValueError, "a finite number"),
    argument(window, "cutoff", torch.ones(2), ValueError, "one number", "one window per axis"),
    argument(window, "transition", 0, ValueError, "above 0"),
    argument(window, "like", None, TypeError, "torch.Tensor"),
]

NETWORKS = (MAGNet, Gabor, Fourier, SIREN, NSIREN, MLP)
WAVES = NETWORKS[:-1]

KERNELS = [
    *(argument(partial(n, out_features=4), "ndim", 4, ValueError, "1, 2 or 3") for n in NETWORKS),
    *(argument(partial(n, out_features=4), "ndim", True, TypeError, "an int") for n in NETWORKS),
    *(argument(partial(n, 2), "out_features", 0, ValueError, "at least 1") for n in NETWORKS),
    *(argument(partial(n, 2), "out_features", "4", TypeError, "an int") for n in NETWORKS),
    *(argument(partial(n, 2, 4), "dtype", torch.int32, TypeError, "float") for n in NETWORKS),
    *(argument(partial(n, 2, 4), "hidden", 0, ValueError, "at least 1") for n in WAVES),
    *(argument(partial(n, 2, 4), "layers", 3.0, TypeError, "an int") for n in WAVES),
    argument(partial(SIREN, 2, 4), "layers", 1, ValueError, "at least 2"),
    argument(partial(SIREN, 2, 4), "omega_0", 0, ValueError, "above 0"),
    argument(partial(SIREN, 2, 4), "omega_0", "30", TypeError, "a number"),
    argument(partial(MAGNet, 2, 4), "input_scale", NAN, ValueError, "a finite number above 0"),
    argument(partial(Fourier, 2, 4), "input_scale", INF, ValueError, "a finite number above 0"),
    argument(partial(MLP, 2, 4), "hidden", (), ValueError, "one or more ints"),
    argument(partial(MLP, 2, 4), "hidden", 8, TypeError, "a tuple of ints"),
    argument(partial(MLP, 2, 4), "hidden", (8, 0), ValueError, "at least 1"),
    argument(partial(MLP, 2, 4), "activation", nn.ReLU(), TypeError, "class or function"),
    argument(partial(MLP, 2, 4), "activation", "relu", TypeError, "class or function"),
    argument(MAGNet(2, 4).forward, "coordinates", torch.zeros(5, 3), ValueError, "an axis of 2"),
    argument(MAGNet(2, 4).forward, "coordinates", torch.zeros(()), ValueError, "an axis of 2"),
    argument(MLP(2, 4).forward, "coordinates", torch.zeros(5, 2).int(), TypeError, "floating"),
    argument(SIREN(1, 4).forward, "coordinates", SIGNAL.double(), ValueError, "an axis of 1"),
    argument(SIREN(1, 4).forward, "coordinates", torch.ones(1).double(), TypeError, "float32"),
    argument(Gabor(2, 4).forward, "coordinates", [0.0, 0.0], TypeError, "torch.Tensor"),
    argument(
        MAGNet(2, 4).frequency_bounds, "formula", "loose", ValueError, "'tight' or 'official'"
    ),
    argument(MAGNet(2, 4).frequency_bounds, "stddevs", -1.0, ValueError, "at least 0"),
    argument(MAGNet(2, 4).max_frequency, "stddevs", "2", TypeError, "a number"),
    argument(MAGNet(2, 4).scale_output_, "factor", NAN, ValueError, "finite"),
    argument(partial(MAGNet(2, 4).place, (0, 0)), "spread", (-1, 1), ValueError, "at least 0"),
    wrong("SIREN: its highest frequency", SIREN(2, 4).max_frequency, ValueError, "SIREN", "MAGNet"),
]
