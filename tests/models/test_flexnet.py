"""FlexNet: sizes, counts and structure that the paper and the authors' program give."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from sizeless import FlexConv2d, aliasing_penalty, complexity_penalty, cost, sizes
from sizeless.kernels import SIREN, Fourier, Gabor, coordinate_axis
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
        (lambda: flexnet7(conv="ckconv", init="paper"), 671_590),
        (lambda: flexnet7(conv="ckconv", kernel=SIREN, init="paper"), 627_910),
        (lambda: flexnet7(conv="ckconv", kernel=Gabor, init="paper"), 669_670),
        (lambda: flexnet7(conv="ckconv", kernel=Fourier, init="paper"), 663_910),
        (lambda: flexnet7(conv="plain", kernel_size=3), 169_990),
        (lambda: flexnet7(conv="plain", kernel_size=33), 19_998_790),
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
        (lambda: small(conv="flexible"), "conv must be 'flex', 'ckconv' or 'plain'"),
        (lambda: small(dropout_in=-0.1), "dropout_in must be a finite number of at least 0"),
        (lambda: FlexNet(3, 10, 32, conv="plain"), "kernel_size is the maximum size and must be"),
        (lambda: small(conv="plain")(torch.zeros(2, 1, 8, 8)), "input must have 2 channels"),
        (lambda: small(conv="plain").change_resolution_(2), "no FlexConv layer whose resolution"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "option",
    [
        {"padding": 4},
        {"stride": 2},
        {"no_such": 1},
        {"init_size": 3, "conv": "ckconv"},
        {"look_ahead": 1, "conv": "ckconv"},
        {"padding": 4, "conv": "plain"},
        {"kernel": SIREN, "conv": "plain"},
    ],
)
def test_options_that_have_no_place_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"no option {next(iter(option))}"):
        small(**option)


def test_layers_are_drawn_in_the_order_in_which_they_stand() -> None:
    torch.manual_seed(3)
    model = small()
    torch.manual_seed(3)
    stem = FlexConv2d(2, 4, 9)
    drawn = [stem, FlexConv2d(4, 4, 9), FlexConv2d(4, 4, 9), *(FlexConv2d(4, 4, 9) for _ in "12")]
    assert [layer.weight.shape[0] for layer in layers_of(model)] == [4, 4, 4, 4, 4, 6, 6]
    for layer, twin in zip(layers_of(model), drawn, strict=False):
        assert torch.equal(layer.weight, twin.weight)


def test_dropout_of_the_image() -> None:
    x = torch.randn(3, 2, 8, 8)
    model = small(dropout_in=1.0, dropout=0.0)
    torch.testing.assert_close(model(x), model(torch.zeros_like(x)))
    assert not torch.allclose(model.eval()(x), model(torch.zeros_like(x)))


def ckconv(**options: object) -> FlexNet:
    return small(conv="ckconv", **options)


def test_kernels_without_a_window_are_their_network_on_all_taps() -> None:
    layer = ckconv(init="paper").double().stem
    axes = [coordinate_axis(9, 0, 9, torch.zeros((), dtype=torch.float64))] * 2
    values = layer.kernel(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1))
    expected = values.movedim(-1, 0).unflatten(0, (4, 2))
    torch.testing.assert_close(layer.weight, expected)
    x = torch.randn(2, 2, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), conv2d(x, expected, layer.bias, padding=4))
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), conv2d(x, expected, layer.bias, padding=4))


def test_without_a_window_units_lie_all_over_the_kernel() -> None:
    centers = FlexNet(1, 2, 33, widths=(4,), conv="ckconv").stem.kernel.center
    assert centers.abs().max() <= 1
    assert centers.std().item() == pytest.approx(3**-0.5, rel=0.15)


def test_without_a_window_no_size_is_learned_and_none_is_stored() -> None:
    model = ckconv()
    assert not [name for name in model.state_dict() if "window" in name]
    assert [row.size for row in sizes(model)] == [(9, 9)] * 7
    row = sizes(model)[0]
    assert (row.layer, row.limits, row.window, row.center) == (
        "CKConv2d",
        ((9, 9),) * 2,
        None,
        None,
    )


def test_without_a_window_white_input_keeps_its_variance() -> None:
    layer = FlexNet(3, 2, 9, widths=(16,), conv="ckconv").stem
    assert layer.weight.square().sum().item() == pytest.approx(16, rel=1e-4)


def test_a_network_without_windows_can_be_loaded_from_no_device() -> None:
    source = ckconv().eval()
    with torch.device("meta"):
        made = ckconv()
    made.load_state_dict(source.state_dict(), assign=True)
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(made.eval()(x), source(x))
    twin = ckconv().bfloat16().float().eval()
    twin.load_state_dict(source.state_dict())
    torch.testing.assert_close(twin(x), source(x))


def test_without_a_window_a_finer_image_gets_a_larger_kernel() -> None:
    model = ckconv(init="paper").eval()
    coarse = model.stem.weight.detach()
    model.change_resolution_(2)
    assert {layer.size for layer in convs_of(model)} == {(17, 17)}
    torch.testing.assert_close(model.stem.weight[..., ::2, ::2] * 4, coarse)
    assert model(torch.randn(1, 2, 16, 16)).shape == (1, 5)


@pytest.mark.parametrize("conv", ["flex", "ckconv", "plain"])
def test_every_kind_of_convolution_is_counted_and_trains(conv: str) -> None:
    model, x = small(conv=conv), torch.randn(2, 2, 8, 8)
    taps = [9 * 9 if conv != "flex" else layer.size[0] * layer.size[1] for layer in convs_of(model)]
    pairs = [2 * 4, 16, 16, 16, 16, 24, 36]
    expected = sum(t * p for t, p in zip(taps, pairs, strict=True)) * 64
    shortcut, head = 4 * 6 * 64, 6 * 5
    assert cost(model, x[:1]).macs.item() == expected + shortcut + head
    assert complexity_penalty(model, x[:1], form="macs") > 0
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def convs_of(model: FlexNet) -> list[nn.Module]:
    return [model.stem, *(conv for block in model.blocks for conv in (block.conv1, block.conv2))]


def test_plain_convolutions_are_those_of_torch() -> None:
    model = small(conv="plain", bias=False)
    assert {type(layer) for layer in convs_of(model)} == {nn.Conv2d}
    assert model.stem.kernel_size == (9, 9)
    assert model.stem.bias is None
    assert sizes(model) == []


@pytest.mark.parametrize("conv", ["flex", "ckconv", "plain"])
def test_copies_compute_the_same(conv: str) -> None:
    model, x = small(conv=conv).eval(), torch.randn(1, 2, 8, 8)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))


def test_a_kernel_without_a_window_has_the_frequencies_of_its_network_only() -> None:
    for conv, window_counts in (("flex", True), ("ckconv", False)):
        model = small(conv=conv)
        network = aliasing_penalty(model).item()
        both = aliasing_penalty(model, include_window=True).item()
        assert network > 0
        assert (both > network * 1.01) == window_counts
        assert both == pytest.approx(network, rel=1e-4) or window_counts
