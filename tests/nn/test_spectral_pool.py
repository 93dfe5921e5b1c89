"""Spectral pooling with a fixed stride or a fixed output."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizeless import DiffStride2d, SpectralPool1d, SpectralPool2d, SpectralPool3d
from sizeless.functional import resample


@given(size=st.integers(1, 500), stride=st.fractions(1, 30, max_denominator=9))
def test_the_size_is_that_of_a_strided_convolution(size, stride):
    assert SpectralPool1d(float(stride)).output_size(size) == (math.ceil(size / stride),)


@pytest.mark.parametrize("amplitude", ["mean", "sum"])
@pytest.mark.parametrize(
    ("pool", "size", "output_size"),
    [
        (SpectralPool1d, (9,), (4,)),
        (SpectralPool2d, (9, 12), (4, 5)),
        (SpectralPool3d, (4, 5, 6), (2, 2, 3)),
    ],
)
def test_it_is_resampling(pool, size, output_size, amplitude):
    x = torch.randn(2, 3, *size)
    strides = [n / m for n, m in zip(size, output_size, strict=True)]
    expected = resample(x, output_size, amplitude=amplitude)
    for layer in (
        pool(strides, amplitude=amplitude),
        pool(output_size=output_size, amplitude=amplitude),
    ):
        assert torch.equal(layer(x), expected)
        assert layer.output_size(size) == output_size
        assert not list(layer.parameters())
        assert not layer.state_dict()


def test_a_fixed_output_has_its_size_whatever_the_input():
    pool = SpectralPool2d(output_size=(7, 5))
    for size in [(7, 5), (14, 14), (3, 30)]:
        assert pool(torch.randn(1, 1, *size)).shape[2:] == (7, 5)
    assert pool.stride is None
    assert SpectralPool2d(1.7).stride == (1.7, 1.7)


def test_stride_1_changes_nothing():
    x = torch.randn(2, 3, 6, 7)
    assert torch.equal(SpectralPool2d(1.0)(x), x)


def test_it_passes_what_a_learned_stride_passes_and_more():
    """Where the learned window is 1, the two agree."""
    x = torch.randn(1, 2, 32, 24)
    smooth = resample(resample(x, 5), (32, 24))
    learned = DiffStride2d(2.0, size_rule="exact")(smooth)
    assert torch.allclose(SpectralPool2d(2.0)(smooth), learned, atol=1e-5)


def test_the_printed_form():
    assert repr(SpectralPool1d(2)) == "SpectralPool1d(stride=(2.0,))"
    assert repr(SpectralPool2d(output_size=4)) == "SpectralPool2d(output_size=(4, 4))"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "either stride or output_size"),
        ({"stride": 2.0, "output_size": 4}, ValueError, "and not both"),
        ({"stride": (2.0, 0.5)}, ValueError, "stride must be at least 1"),
        ({"output_size": 0}, ValueError, "output_size must be at least 1"),
        ({"output_size": 2.5}, TypeError, "output_size must be an int"),
        ({"stride": 2.0, "amplitude": "max"}, ValueError, "amplitude must be"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        SpectralPool2d(**options)
