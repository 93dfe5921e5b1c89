"""Residual blocks whose branches share one stride."""

import copy

import pytest
import torch
from torch import nn

from sizeless import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    DiffStrideResidual1d,
    DiffStrideResidual2d,
    DiffStrideResidual3d,
    SpectralPool2d,
    param_groups,
)
from sizeless.functional.resampled import correlate_resampled

BLOCKS = [
    (DiffStrideResidual1d, DiffStride1d),
    (DiffStrideResidual2d, DiffStride2d),
    (DiffStrideResidual3d, DiffStride3d),
]


def branches(block, x):
    """Both branches by the formula, the 1x1 convolution before its pool."""
    hidden = block.pool(block.conv1(block.norm1(x).relu()))
    return block.conv2(block.norm2(hidden).relu()), block.pool(block.shortcut(x))


@pytest.mark.parametrize(("block_class", "pool_class"), BLOCKS)
@pytest.mark.parametrize("channels", [(2, 3), (3, 3)])
@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_the_formula_and_pooling_before_the_1x1(block_class, pool_class, channels, rule):
    ndim = pool_class.ndim
    pool = pool_class(1.7, size_rule=rule)
    block = block_class(*channels, pool).double()
    x = torch.randn(2, channels[0], *(13, 12, 5)[:ndim], dtype=torch.float64)
    y = block(x)
    main, shortcut = branches(block, x)
    assert main.shape == shortcut.shape == y.shape
    assert y.shape[2:] == pool.output_size(x.shape[2:])
    assert torch.allclose(y, main + shortcut)
    assert isinstance(block.shortcut, nn.Identity) == (channels[0] == channels[1])


def test_the_stride_hears_both_branches():
    block = DiffStrideResidual2d(2, 4, DiffStride2d((1.6, 2.3))).double()
    x = torch.randn(2, 2, 12, 11, dtype=torch.float64)
    y = block(x)
    loss = torch.randn_like(y)
    stride = block.pool.log2_stride
    (both,) = torch.autograd.grad((y * loss).sum(), stride)
    each = [torch.autograd.grad((b * loss).sum(), stride)[0] for b in branches(block, x)]
    assert all((g != 0).all() for g in each)
    assert torch.allclose(both, sum(each))


def test_one_pool_may_serve_several_blocks():
    pool = DiffStride2d(1.5, size_rule="exact")
    model = nn.Sequential(DiffStrideResidual2d(1, 2, pool), DiffStrideResidual2d(2, 2, pool))
    assert sum(p is pool.log2_stride for p in model.parameters()) == 1
    assert model(torch.randn(2, 1, 18, 18)).shape == (2, 2, 8, 8)


def test_any_module_pools():
    x = torch.randn(2, 2, 12, 10)
    assert DiffStrideResidual2d(2, 3, SpectralPool2d(2.0))(x).shape == (2, 3, 6, 5)
    assert DiffStrideResidual2d(2, 3, nn.AvgPool2d(2))(x).shape == (2, 3, 6, 5)
    assert DiffStrideResidual2d(2, 2, nn.Identity())(x).shape == x.shape


@pytest.mark.parametrize(("block_class", "pool_class"), BLOCKS)
def test_defaults(block_class, pool_class):
    block = block_class(2, 3)
    assert type(block.pool) is pool_class
    assert block.pool.stride == (2.0,) * pool_class.ndim
    assert block.pool.size_rule == "exact"
    assert all(c.bias is None for c in (block.conv1, block.conv2, block.shortcut))
    assert block_class(2, 3, kernel_size=5, dtype=torch.float64).conv2.weight.shape[2:] == (
        (5,) * pool_class.ndim
    )


def test_a_step_of_training_moves_every_parameter():
    block = DiffStrideResidual2d(2, 3, DiffStride2d(2.0, shared=True))
    before = copy.deepcopy(block)
    optimiser = torch.optim.SGD(param_groups(block, lr=0.1))
    block(torch.randn(4, 2, 10, 10)).square().mean().backward()
    optimiser.step()
    for (name, new), old in zip(block.named_parameters(), before.parameters(), strict=True):
        assert not torch.equal(new, old), name


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((2, 3), {"kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ((2, 3), {"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        ((0, 3), {}, ValueError, "in_channels must be at least 1"),
        ((2, 3.0), {}, TypeError, "out_channels must be an int"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        DiffStrideResidual2d(*arguments, **options)


def block_that_fuses(monkeypatch):
    """A block, and the inputs of every call of the operation that does two steps in one."""
    calls = []

    def spy(*args):
        calls.append(args)
        return correlate_resampled(*args)

    monkeypatch.setattr("sizeless.functional.resampling.correlate_resampled", spy)
    return DiffStrideResidual2d(16, 32, DiffStride2d(2.2, size_rule="exact")).double(), calls


def test_one_step_has_the_gradients_of_two(monkeypatch):
    block, calls = block_that_fuses(monkeypatch)
    x = torch.randn(2, 16, 16, 14, dtype=torch.float64, requires_grad=True)
    tensors = [x, *block.parameters()]
    y, expected = block(x), sum(branches(block, x))
    assert len(calls) == 1
    assert torch.allclose(y, expected)
    weights = torch.randn_like(y)
    for mine, theirs in zip(
        torch.autograd.grad((y * weights).sum(), tensors),
        torch.autograd.grad((expected * weights).sum(), tensors),
        strict=True,
    ):
        assert torch.allclose(mine, theirs)


@pytest.mark.parametrize("part", ["conv1", "pool"])
def test_hooks_on_parts_are_called(monkeypatch, part):
    block, calls = block_that_fuses(monkeypatch)
    heard = []
    block.get_submodule(part).register_forward_hook(lambda *_: heard.append(part))
    block(torch.randn(2, 16, 16, 14, dtype=torch.float64))
    assert heard
    assert not calls


def test_another_convolution_in_the_block_is_called(monkeypatch):
    block, calls = block_that_fuses(monkeypatch)
    block.conv1 = nn.Conv2d(16, 32, 3, padding=1, dtype=torch.float64)
    nn.init.constant_(block.conv1.bias, 5.0)
    x = torch.randn(2, 16, 16, 14, dtype=torch.float64)
    assert torch.allclose(block(x), sum(branches(block, x)))
    assert not calls
