"""FlexTCN: sizes, counts and structure that the paper and the authors' program give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, pad

from sizeless import FlexConv1d, complexity_penalty, cost, sizes
from sizeless.kernels import SIREN, Fourier, Gabor, MAGNet
from sizeless.models import FlexTCN, flextcn2, flextcn4, flextcn6


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def layers_of(model: nn.Module) -> list[FlexConv1d]:
    return [module for module in model.modules() if isinstance(module, FlexConv1d)]


def small(**options: object) -> FlexTCN:
    return FlexTCN(2, 5, kernel_size=20, width=4, **options)


COUNTS = {
    flextcn2: (105_548, 107_588, 124_928, 202_448),
    flextcn4: (239_436, 241_476, 258_816, 336_336),
    flextcn6: (373_324, 375_364, 392_704, 470_224),
}


@pytest.mark.parametrize("make", COUNTS)
def test_parameter_count(make: Callable[..., FlexTCN]) -> None:
    counts = [count(make(n, kernel_size=100, init="paper")) for n in (1, 3, 20, 96)]
    assert tuple(counts) == COUNTS[make]
    twenty_classes = make(3, 20, kernel_size=182, init="paper")
    assert count(twenty_classes) == COUNTS[make][1] + 310


@pytest.mark.parametrize(
    ("kernel", "without_windows"), [(SIREN, 95_300), (Gabor, 105_540), (Fourier, 104_516)]
)
def test_parameter_count_with_other_networks(
    kernel: Callable[..., object], without_windows: int
) -> None:
    # The published counts are of kernels without a window: 4 layers, each a centre and a width.
    model = flextcn2(kernel_size=100, kernel=kernel, init="paper")
    assert count(model) == without_windows + 8
    assert count(flextcn2(kernel_size=100, kernel=kernel, conv="ckconv")) == without_windows


def test_parameter_count_of_wide_kernels_without_windows() -> None:
    assert count(flextcn2(kernel_size=30, kernel=MAGNet, conv="ckconv")) == 105_540
    assert count(flextcn2(kernel_size=30, kernel=SIREN, conv="ckconv", width=100)) == 1_000_190


@pytest.mark.parametrize(("make", "blocks"), [(flextcn2, 2), (flextcn4, 4), (flextcn6, 6)])
def test_layers(make: Callable[..., FlexTCN], blocks: int) -> None:
    model = make(3, kernel_size=1024, init="paper")
    layers = layers_of(model)
    assert len(layers) == 2 * blocks
    assert [layer.in_channels for layer in layers] == [3] + [30] * (2 * blocks - 1)
    for layer in layers:
        assert layer.causal
        assert layer.kernel_size == (1024,)
        assert layer.size == (83,)
        assert layer.bias is not None
    shortcuts = [type(block.shortcut) for block in model.blocks]
    assert shortcuts == [nn.Conv1d] + [nn.Identity] * (blocks - 1)


def test_forward_is_what_the_paper_draws() -> None:
    model = small(dropout=0.0, blocks=3).double()
    x = torch.randn(3, 2, 20, dtype=torch.float64)
    hidden = x
    for block in model.blocks:
        inner = block.norm1(block.conv1(hidden)).clamp_min(0)
        inner = block.norm2(block.conv2(inner)).clamp_min(0)
        hidden = (inner + block.shortcut(hidden)).clamp_min(0)
    expected = hidden[:, :, -1] @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)


def test_hidden_states_do_not_see_the_future() -> None:
    model = small().eval()
    early = torch.randn(1, 2, 20)
    late = early.clone()
    late[..., 12:] = torch.randn(1, 2, 8)
    before, after = model.blocks(early), model.blocks(late)
    torch.testing.assert_close(before[..., :12], after[..., :12])
    assert not torch.allclose(before[..., 12:], after[..., 12:])
    torch.testing.assert_close(model(early[..., :12]), model.head(after[..., 11]))


def test_dropout_follows_both_activations_of_a_block() -> None:
    block = small(dropout=1.0).blocks[0]
    dropped = []
    block.dropout.register_forward_hook(lambda _, inputs, __: dropped.append(inputs[0]))
    nn.init.ones_(block.norm2.bias)
    x = torch.randn(3, 2, 20)
    torch.testing.assert_close(block(x), block.shortcut(x).relu())
    assert len(dropped) == 2
    torch.testing.assert_close(dropped[0], block.norm1(block.conv1(x)).relu())
    torch.testing.assert_close(dropped[1], torch.ones_like(dropped[0]))


def test_classifier_starts_as_in_the_authors_program() -> None:
    head = FlexTCN(1, 2000, kernel_size=5, width=30, blocks=1, init="paper").head
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert head.bias.abs().max() == 0


def test_a_batch_of_one_keeps_its_axis() -> None:
    assert small().eval()(torch.randn(1, 2, 20)).shape == (1, 5)


def test_options_reach_every_layer() -> None:
    layers = layers_of(small(kernel=SIREN, init_size=7, learn_center=False))
    assert len(layers) == 4
    for layer in layers:
        assert type(layer.kernel) is SIREN
        assert layer.size == (7,)
        assert [name for name, _ in layer.window.named_parameters()] == ["log_sigma"]


def test_every_parameter_gets_a_gradient() -> None:
    model = small()
    model(torch.randn(4, 2, 20)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(layer.window.log_sigma.grad.abs().max() > 0 for layer in layers_of(model))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlexTCN(3, 0, kernel_size=20), "num_classes must be at least 1"),
        (lambda: FlexTCN(3, 10, kernel_size=20, blocks=0), "blocks must be at least 1"),
        (lambda: FlexTCN(0, 10, kernel_size=20), "in_channels must be at least 1"),
        (lambda: small(init_size=0), "init_size must lie between 1 and"),
        (lambda: small()(torch.zeros(2, 2, 8, 8)), "input must have 3 dimensions"),
        (lambda: small(conv="none"), "conv must be 'flex', 'ckconv' or 'plain'"),
        (lambda: small(dropout_in=2), "dropout_in must be a finite number"),
        (lambda: small(conv="plain")(torch.zeros(2, 1, 8)), "input must have 2 channels"),
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
        {"min_size": 3, "conv": "ckconv"},
        {"causal": False, "conv": "ckconv"},
        {"init": "paper", "conv": "plain"},
    ],
)
def test_options_that_have_no_place_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"no option {next(iter(option))}"):
        small(**option)


def test_layers_are_drawn_in_the_order_in_which_they_stand() -> None:
    torch.manual_seed(3)
    layers = layers_of(small())
    torch.manual_seed(3)
    drawn = [FlexConv1d(n, 4, 20, causal=True) for n in (2, 4)]
    for layer, twin in zip(layers, drawn, strict=False):
        assert torch.equal(layer.weight, twin.weight)


def test_dropout_of_the_sequence() -> None:
    x = torch.randn(3, 2, 20)
    model = small(dropout_in=1.0, dropout=0.0)
    torch.testing.assert_close(model(x), model(torch.zeros_like(x)))
    assert not torch.allclose(model.eval()(x), model(torch.zeros_like(x)))


@pytest.mark.parametrize("conv", ["ckconv", "plain"])
def test_fixed_kernels_see_the_past_only(conv: str) -> None:
    layer = small(conv=conv).double().blocks[0].conv1
    x = torch.randn(3, 2, 20, dtype=torch.float64)
    assert layer.weight.shape == (4, 2, 20)
    torch.testing.assert_close(layer(x), conv1d(pad(x, (19, 0)), layer.weight, layer.bias))


def test_plain_kernels_pad_as_they_are_told() -> None:
    layer = small(conv="plain", padding_mode="replicate", dilation=2, bias=False).blocks[0].conv1
    x = torch.randn(3, 2, 20)
    padded = pad(x, (38, 0), mode="replicate")
    torch.testing.assert_close(layer(x), conv1d(padded, layer.weight, dilation=2))


def test_kernels_without_a_window_may_have_any_length() -> None:
    rows = sizes(small(conv="ckconv"))
    assert [(row.layer, row.size, row.limits) for row in rows] == [
        ("CKConv1d", (20,), ((20, 20),))
    ] * 4
    model = small(conv="ckconv")
    model.change_resolution_(2)
    assert {row.size for row in sizes(model)} == {(39,)}


@pytest.mark.parametrize("conv", ["flex", "ckconv", "plain"])
def test_every_kind_of_convolution_is_counted_and_trains(conv: str) -> None:
    model, x = small(conv=conv), torch.randn(4, 2, 20)
    taps = layers_of(model)[0].size[0] if conv == "flex" else 20
    expected = 20 * (taps * (2 * 4 + 3 * 16) + 2 * 4) + 4 * 5
    assert cost(model, x[:1]).macs.item() == expected
    assert complexity_penalty(model, x[:1], form="macs").item() == pytest.approx(expected / 1e9)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_answers_at_every_step() -> None:
    model, sequences = small(per_step=True).eval(), torch.randn(3, 2, 20)
    answers = model(sequences)
    assert answers.shape == (3, 5, 20)
    model.per_step = False
    torch.testing.assert_close(answers[..., -1], model(sequences))
    torch.testing.assert_close(answers[..., 11], model(sequences[..., :12]))
