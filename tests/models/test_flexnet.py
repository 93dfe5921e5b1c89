"""FlexNet: sizes, counts and structure that the paper and the authors' program give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sizeless import FlexConv2d
from sizeless.kernels import SIREN, Fourier, Gabor
from sizeless.models import FlexNet, flexnet3, flexnet5, flexnet7


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def layers_of(model: nn.Module) -> list[FlexConv2d]:
    return [module for module in model.modules() if isinstance(module, FlexConv2d)]


def small(**options: object) -> FlexNet:
    return FlexNet(2, 5, kernel_size=9, widths=(4, 4, 6), **options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: flexnet3(init="paper"), 277_090),
        (lambda: flexnet5(init="paper"), 454_046),
        (lambda: flexnet7(init="paper"), 671_650),
        (lambda: flexnet7(1, init="paper"), 670_066),
        (lambda: flexnet5(3, 1000, init="paper"), 498_596),
        (lambda: flexnet7(kernel_size=97, width=68, init="paper"), 4_939_452),
        (lambda: flexnet7(kernel=SIREN, init="paper"), 627_970),
        (lambda: flexnet7(kernel=Gabor, init="paper"), 669_730),
        (lambda: flexnet7(kernel=Fourier, init="paper"), 663_970),
    ],
)
def test_parameter_count(make: Callable[[], FlexNet], expected: int) -> None:
    assert count(make()) == expected


@pytest.mark.parametrize(
    ("make", "widths"),
    [
        (flexnet3, (24, 36, 48)),
        (flexnet5, (22, 33, 33, 44, 44)),
        (flexnet7, (24, 24, 36, 36, 36, 48, 48)),
    ],
)
def test_layers(make: Callable[..., FlexNet], widths: tuple[int, ...]) -> None:
    model = make(init="paper")
    shapes, before = [(widths[0], 3, 5, 5)], widths[0]
    for width in widths:
        shapes += [(width, before, 5, 5), (width, width, 5, 5)]
        before = width
    layers = layers_of(model)
    assert [tuple(layer.weight.shape) for layer in layers] == shapes
    assert all(layer.kernel_size == (33, 33) and layer.bias is not None for layer in layers)
    for block, n, m in zip(model.blocks, (widths[0], *widths), widths, strict=False):
        assert isinstance(block.shortcut, nn.Identity if n == m else nn.Conv2d)
    assert model.head.in_features == widths[-1]


def test_nothing_reduces_the_map_before_the_average() -> None:
    model = small().eval()
    maps = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: maps.append(tuple(output.shape)))
    assert model(torch.randn(3, 2, 7, 10)).shape == (3, 5)
    assert maps == [(3, 4, 7, 10), (3, 4, 7, 10), (3, 6, 7, 10)]


def test_forward_is_what_the_paper_draws() -> None:
    model = small(dropout=0.0).double()
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    hidden = model.norm(model.stem(x)).clamp_min(0)
    for block in model.blocks:
        inner = block.norm1(block.conv1(hidden)).clamp_min(0)
        hidden = (block.norm2(block.conv2(inner)) + block.shortcut(hidden)).clamp_min(0)
    expected = hidden.mean(dim=(2, 3)) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)


def test_dropout_follows_the_first_activation_of_a_block() -> None:
    model = small(dropout=1.0)
    x = torch.randn(3, 2, 8, 8)
    hidden = model.norm(model.stem(x)).relu()
    block = model.blocks[0]
    empty = torch.zeros_like(hidden)
    torch.testing.assert_close(block(hidden), (block.norm2(block.conv2(empty)) + hidden).relu())


def test_classifier_starts_as_in_the_authors_program() -> None:
    head = FlexNet(1, 2000, kernel_size=5, widths=(50,), init="paper").head
    assert head.weight.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.02)
    assert head.bias.abs().max() == 0


def test_a_batch_of_one_keeps_its_axis() -> None:
    assert small().eval()(torch.randn(1, 2, 8, 8)).shape == (1, 5)


def test_options_reach_every_layer() -> None:
    model = small(kernel=SIREN, init_size=7, padding_mode="circular", learn_center=False)
    layers = layers_of(model)
    assert len(layers) == 7
    for layer in layers:
        assert type(layer.kernel) is SIREN
        assert layer.size == (7, 7)
        assert layer.padding_mode == "circular"
        assert [name for name, _ in layer.window.named_parameters()] == ["log_sigma"]


def test_every_parameter_gets_a_gradient() -> None:
    model = small()
    model(torch.randn(4, 2, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(layer.window.log_sigma.grad.abs().max() > 0 for layer in layers_of(model))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlexNet(3, 10, kernel_size=32), "kernel_size is the maximum size and must be odd"),
        (lambda: FlexNet(3, 0, kernel_size=33), "num_classes must be at least 1"),
        (lambda: FlexNet(3, 10, kernel_size=33, widths=()), "widths"),
        (lambda: FlexNet(0, 10, kernel_size=33), "in_channels must be at least 1"),
        (lambda: small(padding_mode="full"), "padding_mode must be 'zeros', 'circular'"),
        (lambda: small()(torch.zeros(2, 2, 8)), "input must have 4 dimensions"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("option", [{"padding": 4}, {"stride": 2}, {"no_such": 1}])
def test_options_that_would_change_the_maps_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=next(iter(option))):
        small(**option)
