"""Which method a convolution takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sizeless.functional import convolve

METHODS = ["direct", "channels_last", "fft"]


@pytest.mark.parametrize("kernel", [3, 63])
def test_auto_equals_both_methods(kernel: int) -> None:
    input, weight = torch.randn(4, 8, 64).double(), torch.randn(8, 8, kernel).double()
    automatic = convolve(input, weight, padding="same")
    for method in METHODS:
        expected = convolve(input, weight, padding="same", method=method)
        torch.testing.assert_close(automatic, expected, rtol=1e-10, atol=1e-10)


def test_runs_on_the_meta_device() -> None:
    input, weight = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    for method in ("auto", *METHODS):
        assert convolve(input, weight, padding="same", method=method).shape == (2, 4, 8, 8)


X, W = torch.zeros(2, 4, 8), torch.zeros(6, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, W), {}, TypeError, "input must be a torch.Tensor, got NoneType"),
        ((torch.zeros(4, 8), W), {}, ValueError, "input must have shape .* got shape .4, 8."),
        ((torch.zeros(1, 1, 2, 2, 2, 2), W), {}, ValueError, "1, 2 or 3 spatial axes"),
        ((X.long(), W), {}, TypeError, "input must be a real floating-point tensor, got torch.int"),
        ((X.cfloat(), W), {}, TypeError, "input must be a real floating-point tensor"),
        ((torch.zeros(2, 4, 0), W), {}, ValueError, "input must not have an empty spatial axis"),
        ((X, None), {}, TypeError, "weight must be a torch.Tensor, got NoneType"),
        ((X, W.int()), {}, TypeError, "weight must be a real floating-point tensor"),
        ((X, W.double()), {}, TypeError, "weight must have the dtype of input .*float64"),
        ((X, W.to("meta")), {}, ValueError, "weight must be on the device of input .cpu., got"),
        ((X, W[None]), {}, ValueError, "weight must have 3 dimensions .* got shape .1, 6, 2, 3."),
        ((X, W[..., :0]), {}, ValueError, "weight must not have an empty axis"),
        ((X, W), {}, ValueError, "the input has 4 channels and groups=1, got shape .6, 2, 3."),
        ((X, W[:5]), {"groups": 2}, ValueError, "groups must divide the output channels: .*=2"),
        ((X, W), {"groups": 0}, ValueError, "groups must be at least 1, got 0"),
        ((X, W), {"groups": 2.0}, TypeError, "groups must be an int, got 2.0"),
        ((X, W, torch.zeros(4)), {"groups": 2}, ValueError, r"None or have shape \(6,\), got .*4"),
        ((X, W, torch.zeros(6).double()), {"groups": 2}, TypeError, "bias must have the dtype"),
        ((X, W, 0.0), {"groups": 2}, TypeError, "bias must be a torch.Tensor, got float"),
        ((X, W), {"groups": 2, "stride": 0}, ValueError, "stride must be at least 1"),
        ((X, W), {"groups": 2, "stride": (1, 2)}, ValueError, "stride .* tuple of 1 ints"),
        ((X, W), {"groups": 2, "dilation": 1.5}, TypeError, "dilation must be an int or a tuple"),
        ((X, W), {"groups": 2, "padding": -1}, ValueError, "padding must be at least 0 .* got -1"),
        ((X, W), {"groups": 2, "padding": "full"}, ValueError, "'same' or 'valid', got 'full'"),
        ((X, W), {"groups": 2, "padding": True}, TypeError, "padding must be an int or a tuple"),
        (
            (X, W),
            {"groups": 2, "padding_mode": "constant"},
            ValueError,
            "padding_mode must be 'zeros', 'circular', 'reflect' or 'replicate', got 'constant'",
        ),
        ((X, W), {"groups": 2, "method": "winograd"}, ValueError, "method must be 'auto'"),
        ((X, W), {"groups": 2, "causal": True, "padding": 1}, ValueError, "0 or 'same', got 1"),
        ((X, W), {"groups": 2, "causal": True, "padding": "valid"}, ValueError, "got 'valid'"),
        (
            (X[..., None], W[..., None]),
            {"groups": 2, "causal": True},
            ValueError,
            "causal=True needs 1 spatial axis, got 2",
        ),
        (
            (X, W),
            {"groups": 2, "dilation": 4},
            ValueError,
            "weight reaches over 9 samples .* axis 0, but the padded input has 8; use a smaller",
        ),
    ],
)
def test_errors_say_what_is_wrong(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        convolve(*arguments, **options)


def test_autocast_does_not_hide_a_mix_with_float64() -> None:
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match="leaves float64 alone"),
    ):
        convolve(X, W.double(), groups=2)


def test_few_taps_need_no_graph_of_their_own_for_every_length() -> None:
    weight = torch.randn(1, 1, 9)
    compiled = torch.compile(
        lambda x: convolve(x, weight, padding="same"), fullgraph=True, backend="eager"
    )
    for length in range(50, 70):
        x = torch.randn(1, 1, length)
        torch.testing.assert_close(compiled(x), convolve(x, weight, padding="same"))
