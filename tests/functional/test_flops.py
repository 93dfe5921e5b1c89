"""Operators count for what torch's own convolutions count for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sizeless.functional import convolve, convolve_factored


def count(step: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        step().sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("needs_input", "needs_weight"), [(1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("method", ["fft", "channels_last"])
def test_a_convolution_counts_as_torchs_own(
    groups: int, needs_input: int, needs_weight: int, method: str
) -> None:
    input = torch.randn(2, 8, 20, 30, requires_grad=bool(needs_input))
    weight = torch.randn(12, 8 // groups, 5, 7, requires_grad=bool(needs_weight))
    options = {"stride": (2, 1), "padding": (2, 3), "groups": groups}
    forward = count(lambda: F.conv2d(input.detach(), weight.detach().requires_grad_(), **options))
    # Torch counts a grouped weight gradient as if there were no groups.
    forward //= 1 + groups
    expected = forward * (1 + needs_input + needs_weight)
    assert count(lambda: convolve(input, weight, method=method, **options)) == expected > 0


def test_factored_kernels_count_their_rendering() -> None:
    input = torch.randn(2, 24, 512, requires_grad=True)
    coefficients = torch.randn(24, 24, 3, requires_grad=True)
    basis = torch.randn(3, 511, requires_grad=True)
    weight = torch.randn(24, 24, 511, requires_grad=True)
    plain = count(lambda: convolve(input, weight, padding="same", method="fft"))
    factored = count(
        lambda: convolve_factored(input, coefficients, basis, padding="same", method="fft")
    )
    rendering = 2 * coefficients.numel() * 511
    assert factored == plain + 3 * rendering
