"""Kernels are rendered in float32 or better, whatever the layer's own precision."""

from __future__ import annotations

import pytest
import torch

from sizeless import FlexConv1d, FlexConv2d
from sizeless.kernels import MAGNet


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [33, 16_001])
def test_a_half_precision_layer_renders_the_same_kernel(length: int, dtype: torch.dtype) -> None:
    layer = FlexConv1d(1, 4, length, init_size=16, causal=True)
    expected = layer.weight.detach()
    actual = layer.to(dtype).weight.detach()
    assert actual.dtype == dtype
    error = (actual.float() - expected).norm() / expected.norm()
    assert error < 0.02


def test_only_the_output_of_a_kernel_network_is_halved() -> None:
    for kernel in (MAGNet(2, 3).bfloat16(), MAGNet(2, 3, dtype=torch.bfloat16)):
        dtypes = {name: parameter.dtype for name, parameter in kernel.named_parameters()}
        halved = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
        assert halved == {"output.weight", "output.bias"}
        assert kernel(torch.zeros(5, 2)).dtype == torch.bfloat16


def test_a_layer_of_half_precision_can_become_a_precise_one() -> None:
    layer = FlexConv2d(1, 1, 9).bfloat16().double()
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
    assert layer(torch.randn(1, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64
