"""The methods as their papers' programs run them compute what our layers compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sizeless
from sizeless.bench import literal
from sizeless.models import flexnet3, flextcn2
from sizeless.nn.window import GaussianWindow

TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}


def assert_equal(ours: nn.Module, theirs: nn.Module, input: Tensor) -> None:
    """Compare outputs, and the gradients of the input and of every parameter of ours."""
    input.requires_grad_()
    leaves = {"input": input, **dict(ours.named_parameters())}
    outputs = ours(input), theirs(input)
    torch.testing.assert_close(*outputs, **TOLERANCE)
    cotangent = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(each, list(leaves.values()), cotangent) for each in outputs]
    for name, one, other in zip(leaves, *gradients, strict=True):
        scale = float(one.abs().max().clamp_min(1.0))
        message = f"gradient of {name}"
        torch.testing.assert_close(one / scale, other / scale, msg=message, **TOLERANCE)


def spread(module: nn.Module) -> nn.Module:
    """Move every parameter off values at which gradients vanish."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    for part in module.modules():
        if isinstance(part, GaussianWindow):
            part.project_()
    return module


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: sizeless.FlexConv2d(3, 4, 9, init_size=5, dtype=torch.float64), (2, 3, 8, 10)),
        (lambda: sizeless.FlexConv2d(4, 6, 7, groups=2, dtype=torch.float64), (2, 4, 7, 9)),
        (lambda: sizeless.FlexConv2d(3, 2, 5, bias=False, dtype=torch.float64), (1, 3, 6, 6)),
        (lambda: sizeless.FlexConv3d(2, 2, 5, init_size=3, dtype=torch.float64), (1, 2, 6, 5, 4)),
        (lambda: sizeless.FlexConv1d(2, 3, 11, init_size=7, dtype=torch.float64), (2, 2, 20)),
        (lambda: sizeless.FlexConv1d(2, 3, 101, init_size=81, dtype=torch.float64), (2, 2, 90)),
        (lambda: sizeless.FlexConv1d(2, 3, 30, causal=True, dtype=torch.float64), (2, 2, 30)),
        (lambda: sizeless.FlexConv1d(2, 3, 90, causal=True, dtype=torch.float64), (2, 2, 90)),
    ],
    ids=["2d", "grouped", "no bias", "3d", "1d", "1d by FFT", "causal", "causal by FFT"],
)
def test_flexconv(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    layer = spread(make())
    assert_equal(layer, literal.LiteralFlexConv(layer), torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11)])
@pytest.mark.parametrize("bias", [False, True])
def test_niffconv(size: tuple[int, int], bias: bool) -> None:
    layer = spread(sizeless.NIFFConv2d(3, 3, groups=3, bias=bias, dtype=torch.float64))
    theirs = literal.LiteralNIFFConv2d(layer)
    assert_equal(layer, theirs, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.parametrize("rule", ["paper", "exact"])
# No end of a ramp falls on a frequency: the gradient there is a matter of taste.
@pytest.mark.parametrize("stride", [1.9, 1.65, (1.7, 2.9)])
@pytest.mark.parametrize("size", [(16, 16), (15, 18), (21, 13)])
def test_diffstride(rule: str, stride: float, size: tuple[int, int]) -> None:
    layer = sizeless.DiffStride2d(stride, size_rule=rule, dtype=torch.float64)
    theirs = literal.LiteralDiffStride2d(layer)
    assert_equal(layer, theirs, torch.randn(2, 2, *size, dtype=torch.float64))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: flexnet3(3, 5, kernel_size=9, width=4), (2, 3, 8, 8)),
        (lambda: flextcn2(1, 5, kernel_size=60, width=4), (2, 1, 60)),
    ],
    ids=["flexnet", "flextcn"],
)
def test_networks(model: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    ours = model().double()
    for part in ours.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    twin = literal.with_literal_flexconvs(ours)
    replaced = [m for m in twin.modules() if isinstance(m, literal.LiteralFlexConv)]
    flexconvs = [m for m in ours.modules() if isinstance(m, sizeless.nn.FlexConvNd)]
    assert len(replaced) == len(flexconvs) > 0
    input = torch.randn(shape, dtype=torch.float64)
    losses = [network(input).square().sum() for network in (ours, twin)]
    torch.testing.assert_close(*losses, **TOLERANCE)
    for one, other in zip(
        torch.autograd.grad(losses[0], list(ours.parameters())),
        torch.autograd.grad(losses[1], list(twin.parameters())),
        strict=True,
    ):
        scale = float(one.abs().max().clamp_min(1.0))
        torch.testing.assert_close(one / scale, other / scale, rtol=1e-8, atol=1e-9)


def test_a_copy_is_left_alone() -> None:
    model = flextcn2(1, 5, kernel_size=20, width=4)
    twin = literal.with_literal_flexconvs(model)
    assert not any(isinstance(m, literal.LiteralFlexConv) for m in model.modules())
    assert {id(p) for p in model.parameters()}.isdisjoint(map(id, twin.parameters()))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 5), (7, 9)])
def test_textbook_fft(groups: int, kernel: tuple[int, int]) -> None:
    input = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    weight = torch.randn(6, 4 // groups, *kernel, dtype=torch.float64)
    before = [k // 2 for k in kernel]
    torch.testing.assert_close(
        literal.fft_convolve(input, weight, before, groups),
        F.conv2d(input, weight, padding=tuple(before), groups=groups),
        **TOLERANCE,
    )


def test_strided_block_has_the_size_of_ours() -> None:
    input = torch.randn(1, 4, 12, 12)
    ours = sizeless.DiffStrideResidual2d(4, 8)(input)
    assert literal.StridedResidual2d(4, 8)(input).shape == ours.shape


def test_another_kernel_network_is_refused() -> None:
    def network(*args: int, **kwargs: object) -> nn.Module:
        return sizeless.kernels.MLP(*args, **kwargs)

    layer = sizeless.FlexConv2d(2, 2, 5, kernel=network)
    with pytest.raises(TypeError, match="must be a MAGNet, got MLP"):
        literal.LiteralFlexConv(layer)(torch.randn(1, 2, 6, 6))
