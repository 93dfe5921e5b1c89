"""CCNN: the counts of the authors' program, and the network that its source describes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from sizeless import complexity_penalty, cost, sizes
from sizeless.kernels import SIREN, MAGNet
from sizeless.models import CCNN, ccnn4_140, ccnn6_380
from sizeless.nn import FlexConvNd

SHAPES = {1: (9,), 2: (7, 8), 3: (4, 5, 6)}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def layers_of(model: nn.Module) -> list[FlexConvNd]:
    return [module for module in model.modules() if isinstance(module, FlexConvNd)]


def small(**options: object) -> CCNN:
    options = {"blocks": 2, "width": 6, "ndim": 2, **options}
    return CCNN(2, 5, kernel_size=9, **options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ccnn4_140(1, kernel_size=31, ndim=1, causal=True, init="paper"), 198_769),
        (lambda: ccnn4_140(3, init="paper"), 201_042),
        (lambda: ccnn6_380(1, kernel_size=31, ndim=1, causal=True, init="paper"), 1_993_091),
    ],
)
def test_parameter_count(make: Callable[[], CCNN], expected: int) -> None:
    assert count(make()) == expected


@pytest.mark.parametrize("learn_center", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_parameter_count_by_formula(ndim: int, learn_center: bool) -> None:
    blocks, width, hidden = 2, 6, 8
    model = small(ndim=ndim, learn_center=learn_center, kernel=partial(MAGNet, hidden=hidden))
    network = 4 * hidden * (3 * ndim + 1) + 3 * (hidden**2 + hidden)
    window = ndim * (1 + learn_center)

    def separable(n: int) -> int:
        return network + (hidden + 1) * n + window + n + n * width + width

    block = separable(width) + width**2 + width + 2 * width
    norms, head = 2 * 2 * width, width * 5 + 5
    assert count(model) == separable(2) + blocks * block + norms + head


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_forward_is_what_the_source_describes(ndim: int, norm: str) -> None:
    model = small(ndim=ndim, norm=norm, dropout=0.0).double()
    x = torch.randn(3, 2, *SHAPES[ndim], dtype=torch.float64)
    hidden = gelu(model.stem_norm(model.stem(x)))
    for block in model.blocks:
        inner = gelu(block.conv.pointwise(block.conv.depthwise(block.norm(hidden))))
        hidden = hidden + gelu(block.mix(inner))
    pooled = model.norm(hidden).mean(dim=tuple(range(2, 2 + ndim)))
    torch.testing.assert_close(model(x), pooled @ model.head.weight.T + model.head.bias)


def test_dropout_takes_whole_channels() -> None:
    block = small(dropout=0.5, width=64, blocks=1).blocks[0]
    heard = []
    block.dropout.register_forward_hook(lambda _, __, output: heard.append(output))
    block(torch.randn(2, 64, 5, 5))
    silent = (heard[0] == 0).flatten(2)
    assert torch.equal(silent.all(dim=2), silent.any(dim=2))
    assert 0.2 < silent.float().mean().item() < 0.8


def test_dropout_of_the_input() -> None:
    x = torch.randn(3, 2, 8, 8)
    model = small(dropout_in=1.0, dropout=0.0)
    torch.testing.assert_close(model(x), model(torch.zeros_like(x)))
    assert not torch.allclose(model.eval()(x), model(torch.zeros_like(x)))


def hidden_states(model: CCNN, x: Tensor) -> Tensor:
    return model.norm(model.blocks(gelu(model.stem_norm(model.stem(x)))))


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_causal_network_does_not_see_the_future(norm: str) -> None:
    model = small(ndim=1, causal=True, norm=norm).train(norm == "layer")
    nn.init.zeros_(model.head.bias)
    for block in model.blocks:
        block.dropout.p = 0.0
    early = torch.randn(1, 2, 20)
    late = early.clone()
    late[..., 12:] = torch.randn(1, 2, 8)
    before, after = hidden_states(model, early), hidden_states(model, late)
    torch.testing.assert_close(before[..., :12], after[..., :12])
    assert not torch.allclose(before[..., 12:], after[..., 12:])


def test_layer_normalisation_keeps_samples_apart() -> None:
    model = small(norm="layer", dropout=0.0)
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    x = torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


def test_pointwise_convolutions_start_kaiming_normal() -> None:
    model = CCNN(1, 2, 5, blocks=1, width=60)
    for layer in (model.blocks[0].mix, model.blocks[0].conv.pointwise):
        assert layer.weight.std().item() == pytest.approx((2 / 60) ** 0.5, rel=0.1)
        assert layer.bias.abs().max() == 0


def test_options_reach_every_layer() -> None:
    model = small(kernel=SIREN, init_size=7, padding_mode="circular", learn_center=True)
    layers = layers_of(model)
    assert len(layers) == 3
    for layer in layers:
        assert type(layer.kernel) is SIREN
        assert layer.size == (7, 7)
        assert layer.padding_mode == "circular"
        assert layer.groups == layer.in_channels
        assert len(list(layer.window.parameters())) == 2
    assert layers_of(ccnn6_380(1, kernel_size=9, ndim=1, init="paper"))[0].kernel.hidden == 64


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_parameter_gets_a_gradient(ndim: int, norm: str) -> None:
    model = small(ndim=ndim, norm=norm)
    model(torch.randn(4, 2, *SHAPES[ndim])).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(layer.window.log_sigma.grad.abs().max() > 0 for layer in layers_of(model))


def test_sizes_and_cost() -> None:
    model, x = small(init_size=5), torch.zeros(1, 2, 8, 8)
    assert [row.size for row in sizes(model)] == [(5, 5)] * 3
    depthwise, pointwise = 25 * (2 + 6 + 6), 2 * 6 + 2 * (36 + 36)
    assert cost(model, x).macs.item() == 64 * (depthwise + pointwise) + 6 * 5
    complexity_penalty(model, x, form="macs").backward()
    assert all((layer.window.log_sigma.grad > 0).all() for layer in layers_of(model))


def test_a_finer_image_gets_larger_kernels() -> None:
    model = small().eval()
    model.change_resolution_(2)
    assert {layer.kernel_size for layer in layers_of(model)} == {(17, 17)}
    assert model(torch.randn(1, 2, 16, 16)).shape == (1, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CCNN(0, 10, 9), "in_channels must be at least 1"),
        (lambda: CCNN(1, 0, 9), "num_classes must be at least 1"),
        (lambda: CCNN(1, 10, 8), "kernel_size is the maximum size and must be odd"),
        (lambda: small(blocks=0), "blocks must be at least 1"),
        (lambda: small(width=0), "width must be at least 1"),
        (lambda: small(ndim=4), "ndim must be 1, 2 or 3, got 4"),
        (lambda: small(causal=True), "causal=True needs ndim=1, the axis of time, got ndim=2"),
        (lambda: small(norm="group"), "norm must be 'batch' or 'layer', got 'group'"),
        (lambda: small(dropout=1.5), "dropout must be a finite number"),
        (lambda: small()(torch.zeros(2, 2, 8)), "input must have 4 dimensions"),
        (lambda: small()(torch.zeros(2, 3, 8, 8)), "input must have 2 channels"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_copies_compute_the_same() -> None:
    model, x = small().eval(), torch.randn(1, 2, 8, 8)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))


@pytest.mark.parametrize("option", [{"padding": 4}, {"groups": 2}, {"no_such": 1}])
def test_options_that_have_no_place_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=f"no option {next(iter(option))}"):
        small(**option)
