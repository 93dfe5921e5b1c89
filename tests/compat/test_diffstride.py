"""The authors' DiffStride and spectral pooling: sizes, the parameter, numerics, errors."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from sizeless.compat.diffstride import OfficialDiffStride2d, OfficialSpectralPool2d


@pytest.mark.parametrize(
    ("stride", "sizes"),
    [
        (1.5, {24: 24, 32: 30, 56: 46, 64: 52, 112: 84, 224: 158}),
        (
            2.0,
            {16: 16, 20: 18, 24: 20, 28: 22, 32: 24, 40: 28, 48: 32, 56: 36, 64: 40, 112: 64}
            | {224: 120},
        ),
        (3.0, {16: 14, 24: 16, 32: 20, 56: 28, 64: 30, 112: 46, 224: 84}),
        (4.0, {32: 16, 56: 22, 64: 24, 112: 36, 224: 64}),
    ],
)
def test_table_of_output_sizes(stride: float, sizes: dict[int, int]) -> None:
    layer = OfficialDiffStride2d(stride)
    for extent, expected in sizes.items():
        # One input size would raise the strides for the next; output_size itself never does.
        assert layer.output_size(extent) == (expected, expected)
        assert layer.output_size((extent, 224))[0] == expected
    assert layer.strides.tolist() == [stride, stride]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    height=st.integers(5, 130),
    width=st.integers(5, 130),
    strides=st.tuples(st.floats(1.0, 20.0, width=32), st.floats(1.0, 20.0, width=32)),
)
def test_closed_formula_of_the_size(height: int, width: int, strides: tuple[float, float]) -> None:
    layer = OfficialDiffStride2d(strides).double()
    vertical, horizontal = (
        max(s, d / (d - 4.0)) for s, d in zip(strides, (height, width), strict=True)
    )
    rows = 2 * math.ceil(4 + max(height / vertical, 2) / 2) - height % 2
    columns = 2 * math.ceil(4 + max(width / horizontal, 2) / 2)
    assert layer.output_size((height, width)) == (min(height, rows), min(width // 2 * 2, columns))


def test_uncropped_sizes() -> None:
    assert OfficialDiffStride2d(3.0, crop=False).output_size((31, 33)) == (31, 32)


@pytest.mark.parametrize("training", [True, False])
def test_forward_raises_the_strides_in_place(training: bool) -> None:
    layer = OfficialDiffStride2d(1.3).train(training)
    layer(torch.zeros(1, 1, 8, 8))
    assert layer.strides.tolist() == [2.0, 2.0]


def test_shared_stride_is_raised_to_the_larger_bound() -> None:
    layer = OfficialDiffStride2d(1.0, shared=True)
    layer(torch.zeros(1, 1, 32, 8))
    assert layer.strides.tolist() == [2.0]


def test_an_axis_shorter_than_the_ramp_is_not_raised() -> None:
    layer = OfficialDiffStride2d(1.5)
    layer(torch.zeros(1, 1, 3, 2))
    assert layer.strides.tolist() == [1.5, 1.5]


def test_large_strides_are_not_written_to() -> None:
    layer = OfficialDiffStride2d(2.0)
    version = layer.strides._version
    layer(torch.zeros(1, 1, 32, 32))
    assert layer.strides._version == version


def test_the_raise_between_two_calls_keeps_the_first_graph() -> None:
    layer = OfficialDiffStride2d(1.3)
    first = layer(torch.randn(1, 1, 32, 32))
    second = layer(torch.randn(1, 1, 8, 8))
    (first.square().sum() + second.square().sum()).backward()
    assert layer.strides.grad is not None
    assert bool(layer.strides.grad.isfinite().all())


def test_raise_ignores_the_upper_limit() -> None:
    layer = OfficialDiffStride2d(1.0, max_stride=1.05)
    y = layer(torch.randn(1, 1, 32, 32))
    assert layer.strides.tolist() == pytest.approx([32 / 28] * 2)
    y.sum().backward()
    assert layer.strides.grad is not None
    assert layer.strides.grad.tolist() == [0.0, 0.0]


def test_project() -> None:
    layer = OfficialDiffStride2d((1.2, 5.0), min_stride=1.8, max_stride=3.0)
    layer.project_()
    assert layer.strides.tolist() == pytest.approx([1.8, 3.0])
    x = torch.randn(1, 1, 32, 32)
    layer(x).square().sum().backward()
    assert layer.strides.grad is not None
    assert bool((layer.strides.grad != 0).all()), "a stride on its limit keeps its gradient"


def test_lower_limit_lifts_a_dead_stride_after_one_update() -> None:
    layer = OfficialDiffStride2d(1.3, min_stride=1.8)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.0)
    layer(torch.randn(1, 1, 32, 32)).square().sum().backward()
    assert layer.strides.grad is not None
    assert layer.strides.grad.tolist() == [0.0, 0.0]
    optimiser.step()
    layer.project_()
    assert layer.strides.tolist() == pytest.approx([1.8, 1.8])


def test_stride_beyond_half_the_map_has_no_gradient() -> None:
    layer = OfficialDiffStride2d((8.5, 8.0))
    layer(torch.randn(1, 2, 16, 16)).square().sum().backward()
    assert layer.strides.grad is not None
    assert layer.strides.grad[0] == 0
    assert layer.strides.grad[1] != 0


def test_gradcheck() -> None:
    layer = OfficialDiffStride2d((1.7, 2.3), smoothness=2.0).double()
    x = torch.randn(1, 2, 9, 12, dtype=torch.float64, requires_grad=True)
    strides = torch.tensor([1.7, 2.3], dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, strides: Tensor) -> Tensor:
        return functional_call(layer, {"strides": strides}, (x,))

    assert torch.autograd.gradcheck(call, (x, strides))
    assert torch.autograd.gradgradcheck(call, (x, strides))


def test_gradcheck_shared_and_uncropped() -> None:
    layer = OfficialDiffStride2d(2.2, smoothness=2.0, crop=False, shared=True).double()
    x = torch.randn(1, 1, 8, 7, dtype=torch.float64, requires_grad=True)
    strides = torch.tensor([2.2], dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, strides: Tensor) -> Tensor:
        return functional_call(layer, {"strides": strides}, (x,))

    assert torch.autograd.gradcheck(call, (x, strides))


def test_gradcheck_spectral_pool() -> None:
    x = torch.randn(1, 1, 8, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(OfficialSpectralPool2d((1.7, 1.8)), (x,))


@pytest.mark.parametrize("layer", [OfficialDiffStride2d((2.1, 1.7)), OfficialSpectralPool2d(1.6)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
def test_dtypes(layer: nn.Module, dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(2, 3, 17, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = layer(x)
    assert y.dtype == dtype
    expected = layer(x.float())
    assert ((y.float() - expected).abs().max() / expected.abs().max()).item() < tolerance


@pytest.mark.parametrize("layer", [OfficialDiffStride2d(2.0), OfficialSpectralPool2d(2.0)])
def test_autocast_does_not_touch_the_computation(layer: nn.Module) -> None:
    x = torch.randn(1, 2, 24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert torch.equal(y, layer(x))


@pytest.mark.parametrize("layer", [OfficialDiffStride2d(2.0), OfficialSpectralPool2d(2.0)])
def test_channels_last_is_kept(layer: nn.Module) -> None:
    x = torch.randn(2, 3, 24, 24)
    y = layer(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, layer(x))
    assert layer(x).is_contiguous()


@pytest.mark.parametrize("size", [(32, 32), (31, 29), (12, 40)])
@pytest.mark.parametrize("layer", [OfficialDiffStride2d((2.3, 1.9)), OfficialSpectralPool2d(1.7)])
def test_only_hermitian_half_spectra_are_inverted(
    layer: nn.Module, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inverse = torch.fft.irfft
    seen = []

    def spy(input: Tensor, n: int, dim: int) -> Tensor:
        seen.append((input, n))
        return inverse(input, n=n, dim=dim)

    monkeypatch.setattr(torch.fft, "irfft", spy)
    layer(torch.randn(1, 2, *size))
    ((half, width),) = seen
    assert half.shape[-1] == width // 2 + 1
    assert bool((half[..., 0].imag == 0).all())
    assert width % 2 == 1 or bool((half[..., -1].imag == 0).all())


def test_constant_map_is_scaled_by_the_ratio_of_areas() -> None:
    x = torch.ones(1, 1, 32, 32)
    torch.testing.assert_close(OfficialDiffStride2d(2.0)(x), torch.full((1, 1, 24, 24), 16 / 9))
    torch.testing.assert_close(OfficialSpectralPool2d(2.0)(x), torch.full((1, 1, 16, 16), 4.0))


def test_spectral_pool_follows_the_input() -> None:
    layer = OfficialSpectralPool2d(2.0)
    assert layer(torch.randn(1, 1, 32, 32)).shape[2:] == (16, 16)
    assert layer(torch.randn(1, 1, 48, 50)).shape[2:] == (24, 25)
    assert not layer.state_dict()


def test_spectral_pool_of_stride_one() -> None:
    x = torch.randn(1, 2, 12, 9)
    torch.testing.assert_close(OfficialSpectralPool2d(1)(x), x)
    assert OfficialSpectralPool2d(1).output_size((13, 9)) == (12, 9)


@pytest.mark.parametrize("layer", [OfficialDiffStride2d(1.1), OfficialSpectralPool2d(1.1)])
def test_copies_and_inference(layer: nn.Module) -> None:
    x = torch.randn(1, 1, 16, 16)
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    with torch.inference_mode():
        y = layer(x)
    for twin in twins:
        torch.testing.assert_close(twin(x).detach(), y)
    assert layer(torch.randn(0, 1, 16, 16)).shape == (0, *y.shape[1:])


def test_repr_shows_the_strides() -> None:
    assert "strides=[2.0, 3.0], smoothness=4.0" in repr(OfficialDiffStride2d((2.0, 3.0)))
    assert "stride=(2.0, 2.0)" in repr(OfficialSpectralPool2d(2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stride": 0.5}, ValueError, r"stride must be at least 1 .* got 0\.5"),
        ({"stride": (2.0, 0.9)}, ValueError, "stride must be at least 1"),
        ({"stride": (2.0, 2.0, 2.0)}, ValueError, "stride must be a number or a tuple of 2"),
        ({"stride": "2"}, TypeError, "stride must be a number"),
        ({"stride": float("inf")}, ValueError, "stride must be finite"),
        ({"stride": (2.0, 3.0), "shared": True}, ValueError, "equal on both axes"),
        ({"smoothness": 0}, ValueError, "smoothness must be above 0, got 0"),
        ({"smoothness": -1.0}, ValueError, "smoothness must be above 0"),
        ({"smoothness": None}, TypeError, "smoothness must be a number"),
        ({"smoothness": (4.0, 4.0)}, TypeError, "smoothness must be one number"),
        ({"min_stride": 0.5}, ValueError, r"min_stride must be at least 1, got 0\.5"),
        ({"min_stride": float("nan")}, ValueError, "min_stride must be finite"),
        ({"min_stride": 3.0, "max_stride": 2.0}, ValueError, r"at least min_stride \(3\.0\)"),
        ({"max_stride": (2.0,)}, TypeError, "max_stride must be one number"),
    ],
)
def test_constructor_errors(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        OfficialDiffStride2d(**arguments)


@pytest.mark.parametrize("stride", [0.5, (0.5, 0.5), (2.0, 0.5), (0.5, 2.0)])
def test_spectral_pool_rejects_strides_below_one(stride: Any) -> None:
    with pytest.raises(ValueError, match="stride must be at least 1"):
        OfficialSpectralPool2d(stride)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(1, 8, 8), ValueError, "4 dimensions"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), TypeError, "floating-point"),
        (np.zeros((1, 1, 8, 8)), TypeError, "torch.Tensor"),
        (torch.zeros(1, 1, 0, 8), ValueError, "empty"),
        (torch.zeros(1, 1, 8, 1), ValueError, "2 wide, got 8 x 1"),
    ],
)
@pytest.mark.parametrize("layer", [OfficialDiffStride2d(), OfficialSpectralPool2d()])
def test_input_errors(layer: nn.Module, x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        layer(x)


@pytest.mark.parametrize(("size", "name"), [((4, 8), "height"), ((8, 4), "width")])
def test_map_as_large_as_the_ramp(size: tuple[int, int], name: str) -> None:
    layer = OfficialDiffStride2d(2.0)
    with pytest.raises(ValueError, match=rf"the {name} of the map must not equal smoothness"):
        layer(torch.zeros(1, 1, *size))
    with pytest.raises(ValueError, match="must not equal smoothness"):
        layer.output_size(size)


@pytest.mark.parametrize(
    ("size", "error"),
    [("16", TypeError), ((8.0, 8.0), TypeError), ((8,), ValueError), (0, ValueError)],
)
@pytest.mark.parametrize("layer", [OfficialDiffStride2d(), OfficialSpectralPool2d()])
def test_output_size_errors(layer: Any, size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="input_size"):
        layer.output_size(size)
