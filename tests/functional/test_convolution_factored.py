"""Convolution with kernels that are sums of shared functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sizeless.functional import convolve, convolve_factored
from sizeless.functional.geometry import Geometry
from sizeless.functional.plans import stays_factored


def factors(channels: int, taps: tuple[int, ...], groups: int = 1) -> list[torch.Tensor]:
    shapes = (channels, channels // groups, 3), (3, *taps)
    return [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
@pytest.mark.parametrize(
    ("size", "taps", "options"),
    [
        ((64,), (41,), {"padding": "same"}),
        ((64,), (64,), {"causal": True, "stride": 2}),
        ((14, 9), (7, 5), {"padding": (3, 1), "groups": 2, "dilation": (1, 2)}),
        ((14, 9), (13, 9), {"padding": "same", "padding_mode": "circular"}),
        ((5, 6, 7), (3, 3, 5), {"padding": "same", "groups": 4}),
    ],
)
def test_equals_convolve_with_the_kernels(
    method: str, size: tuple[int, ...], taps: tuple[int, ...], options: dict[str, Any]
) -> None:
    coefficients, basis = factors(4, taps, options.get("groups", 1))
    input = torch.randn(2, 4, *size, dtype=torch.double, requires_grad=True)
    bias = torch.randn(4, dtype=torch.double, requires_grad=True)
    parts = (input, coefficients, basis, bias)
    output = convolve_factored(*parts, method=method, **options)
    kernels = torch.einsum("oih,h...->oi...", coefficients, basis)
    expected = convolve(input, kernels, bias, method="direct", **options)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(output, parts, grad),
        torch.autograd.grad(expected, parts, grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("kernel", "groups", "expected"), [(16000, 1, True), (31, 1, False), (16000, 30, False)]
)
def test_where_kernels_stay_factored(kernel: int, groups: int, expected: bool) -> None:
    channels = 30
    geometry = Geometry(
        8, channels, channels, groups, (16000,), (kernel,), (1,), (1,), ((kernel - 1, 0),)
    )
    assert stays_factored(geometry, 33, "cpu") == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_full(dtype: torch.dtype) -> None:
    coefficients, basis = (part.detach().to(dtype) for part in factors(16, (255,)))
    input = torch.randn(2, 16, 256).to(dtype)
    output = convolve_factored(input, coefficients, basis, padding="same", method="fft")
    wide = [part.double() for part in (input, coefficients, basis)]
    expected = convolve_factored(*wide, padding="same", method="direct")
    assert output.dtype == dtype
    error = (output.double() - expected).abs().max() / expected.abs().max()
    assert error < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("coefficients", "basis", "message"),
    [
        (torch.zeros(4, 4), torch.zeros(3, 5), r"coefficients must have shape \(out, in / groups"),
        (torch.zeros(4, 4, 3), torch.zeros(3, 5, 5), r"basis must have shape \(H, \*kernel\)"),
        (torch.zeros(4, 4, 3), torch.zeros(2, 5), "one function for each of the 3 coefficients"),
    ],
)
def test_errors_say_what_is_wrong(
    coefficients: torch.Tensor, basis: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convolve_factored(torch.zeros(1, 4, 8), coefficients, basis)
