"""ResNets with learned strides and their twins: counts, map sizes and work of the paper."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sizeless import (
    DiffStride2d,
    DiffStrideResidual2d,
    SpectralPool2d,
    complexity_penalty,
    cost,
    param_groups,
    sizes,
)
from sizeless.models import (
    DiffStrideResNet,
    diffstride_resnet18,
    diffstride_resnet18_imagenet,
    diffstride_resnet56,
)
from sizeless.nn import DiffStrideNd

POOLINGS = ("diffstride", "spectral", "strided")
TRIPLES = ((2, 2, 2), (2, 2, 3), (1, 3, 1), (3, 1, 3), (3, 1, 2), (3, 2, 3))

MAPS = {
    "strided": ((16, 8, 4), (16, 8, 3), (32, 11, 11), (11, 11, 4), (11, 11, 6), (11, 6, 2)),
    "spectral": (
        (16, 8, 4),
        (16, 8, 2),
        (32, 10, 10),
        (10, 10, (2, 3)),
        (10, 10, (4, 5)),
        (10, (4, 5), 2),
    ),
    "diffstride": (
        (24, 20, 18),
        (24, 20, 16),
        (32, 20, 20),
        (20, 20, 16),
        (20, 20, 18),
        (20, 18, 14),
    ),
}
GIGAMACS = {
    "strided": (0.555, 0.497, 1.958, 0.604, 0.772, 0.325),
    "spectral": (0.744, 0.659, 2.041, 0.664, 0.763, 0.404),
    "diffstride": (4.206, 3.724, 5.088, 3.589, 4.070, 2.930),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def small(pooling: str = "diffstride", **options: object) -> DiffStrideResNet:
    options = {"strides": (1, 1, 2), "widths": (4, 6), "size_rule": "exact", **options}
    return DiffStrideResNet(2, 5, pooling=pooling, **options)


def map_sizes(model: DiffStrideResNet, x: Tensor) -> list[tuple[int, ...]]:
    sides: list[tuple[int, ...]] = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _, __, output: sides.append(tuple(output.shape[2:])))
    with torch.no_grad():
        model.eval()(x)
    return sides


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    ("make", "ten", "hundred"),
    [(diffstride_resnet18, 11_172_170, 11_218_340), (diffstride_resnet56, 855_834, 861_684)],
)
def test_parameter_count(
    make: Callable[..., DiffStrideResNet], ten: int, hundred: int, pooling: str
) -> None:
    learned = 8 if pooling == "diffstride" else 0
    with torch.device("meta"):
        model, wider = make(pooling=pooling), make(3, 100, pooling=pooling)
    assert count(model) == ten + learned
    assert count(wider) == hundred + learned
    assert sum(row.kind == "stride" for row in sizes(model)) == learned / 2
    if make is diffstride_resnet18:
        statistics = [b for n, b in model.named_buffers() if "running" in n]
        assert sum(b.numel() for b in statistics) == 7_808


@pytest.mark.parametrize("pooling", POOLINGS)
def test_parameter_count_for_imagenet(pooling: str) -> None:
    learned = 8 if pooling == "diffstride" else 0
    with torch.device("meta"):
        small_images = diffstride_resnet18(3, 1000, pooling="strided")
        model = diffstride_resnet18_imagenet(pooling=pooling)
    stem, projection = 3 * 64 * (49 - 9), 64 * 64
    assert count(model) == count(small_images) + stem + projection + learned


def published_macs(model: DiffStrideResNet, sides: list[tuple[int, int]]) -> float:
    """Work of the convolutions, were the network 16 times as wide and its shortcuts not pooled."""
    total = 0.0
    for row in cost(model, torch.zeros(1, 3, 32, 32)).rows:
        macs = row.macs.item()
        if row.name.endswith("shortcut") and model.pooling != "strided":
            height, width = sides[int(row.name.split(".")[1]) - 1]
            macs *= height * width / math.prod(row.output_shape[2:])
        if row.layer == "Conv2d":
            total += macs * (16 if row.name.startswith("stem") else 256)
    return total


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("index", range(len(TRIPLES)))
def test_maps_and_work_at_the_initial_strides(pooling: str, index: int) -> None:
    model = DiffStrideResNet(3, 10, (1, 1, *TRIPLES[index]), (4, 8, 16, 32), pooling=pooling)
    sides = [(32, 32), *((s, s) if isinstance(s, int) else s for s in MAPS[pooling][index])]
    assert map_sizes(model, torch.zeros(1, 3, 32, 32)) == sides
    assert published_macs(model, sides) == pytest.approx(GIGAMACS[pooling][index] * 1e9, abs=6e5)


@pytest.mark.parametrize("strides", [(1, 1, 2, 2, 2), (2, 1, 3, 1, 2), (1, 1, 3, 2, 3)])
def test_by_the_exact_rule_all_twins_have_the_same_maps(strides: tuple[int, ...]) -> None:
    widths, x = (2, 2, 2, 2), torch.zeros(1, 1, 32, 27)
    maps = [
        map_sizes(DiffStrideResNet(1, 2, strides, widths, pooling=p, size_rule="exact"), x)
        for p in POOLINGS
    ]
    assert maps[0] == maps[1] == maps[2]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_maps_of_large_images(pooling: str) -> None:
    options = {"project_first": True, "imagenet": True, "pooling": pooling, "size_rule": "exact"}
    model = DiffStrideResNet(3, 2, (1, 2, 2, 2), (2, 2, 2, 2), **options)
    x = torch.zeros(1, 3, 224, 224)
    assert map_sizes(model, x) == [(56, 56), (28, 28), (14, 14), (7, 7)]
    imagenet = DiffStrideResNet(3, 2, (3, 1, 3, 1), (2, 2, 2, 2), **options)
    assert map_sizes(imagenet, x) == [(19, 19), (19, 19), (7, 7), (7, 7)]


def branch_sum(layer: nn.Module, x: Tensor) -> Tensor:
    """Both branches of a pre-activation layer, pooled or strided after full convolutions."""

    def pool(hidden: Tensor) -> Tensor:
        if isinstance(layer, DiffStrideResidual2d):
            return layer.pool(hidden)
        rows, columns = layer.conv1.stride
        return hidden[..., ::rows, ::columns]

    def full(convolution: nn.Module, hidden: Tensor) -> Tensor:
        if isinstance(convolution, nn.Identity):
            return hidden
        padding = convolution.weight.shape[-1] // 2
        return torch.conv2d(hidden, convolution.weight, padding=padding)

    hidden = pool(full(layer.conv1, layer.norm1(x).clamp_min(0)))
    hidden = full(layer.conv2, layer.norm2(hidden).clamp_min(0))
    return hidden + pool(full(layer.shortcut, x))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_forward_is_what_the_source_describes(pooling: str) -> None:
    model = small(pooling, strides=(2, 1, 3), depth=2).double()
    x = torch.randn(2, 2, 20, 18, dtype=torch.float64)
    hidden = torch.conv2d(x, model.stem[0].weight, padding=1)
    hidden = hidden[..., ::2, ::2] if pooling == "strided" else model.stem[1](hidden)
    for stage in model.stages:
        for layer in stage:
            hidden = branch_sum(layer, hidden)
    pooled = model.norm(hidden).clamp_min(0).mean(dim=(2, 3))
    torch.testing.assert_close(model(x), pooled @ model.head.weight.T + model.head.bias)


def test_where_pooling_sits() -> None:
    with torch.device("meta"):
        model = diffstride_resnet18(1, strides=(1.5, 1, 2, (2, 3), 2.5))
    pools = [(n, m) for n, m in model.named_modules() if isinstance(m, DiffStride2d)]
    assert [name for name, _ in pools] == ["stem.1", *(f"stages.{i}.0.pool" for i in (1, 2, 3))]
    strides = [pool.stride for _, pool in pools]
    assert strides == [(1.5, 1.5), (2.0, 2.0), (2.0, 3.0), (2.5, 2.5)]
    assert {(pool.size_rule, pool.smoothness) for _, pool in pools} == {("paper", 4.0)}
    first = model.stages[0]
    assert all(isinstance(layer.shortcut, nn.Identity) for layer in first)


def test_every_stage_of_the_deep_network_projects() -> None:
    model = diffstride_resnet56(pooling="spectral", strides=(1, 1.5, 2, 2))
    assert [len(stage) for stage in model.stages] == [9, 9, 9]
    for stage, width in zip(model.stages, (16, 32, 64), strict=True):
        assert isinstance(stage[0].pool, SpectralPool2d)
        assert stage[0].shortcut.weight.shape == (width, max(width // 2, 16), 1, 1)
        assert all(isinstance(layer.shortcut, nn.Identity) for layer in stage[1:])


def test_spectral_sizes_follow_the_rule() -> None:
    paper, exact = (
        small("spectral", size_rule=rule).stages[1][0].pool for rule in ("paper", "exact")
    )
    assert paper.output_size((10, 10)) == (4, 5)
    assert exact.output_size((10, 10)) == (5, 5)
    assert paper.output_size((2, 1)) == (2, 1)
    assert paper.output_size((33, 33)) == (16, 16)


def test_options_reach_every_pool() -> None:
    model = small(shared=True, transition=0.5, amplitude="sum")
    pools = [m for m in model.modules() if isinstance(m, DiffStrideNd)]
    assert len(pools) == 2
    assert all((p.shared, p.transition, p.amplitude) == (True, 0.5, "sum") for p in pools)
    spectral = small("spectral", amplitude="sum").stages[1][0].pool
    assert spectral.amplitude == "sum"


def test_weights_start_he_normal_within_two_deviations() -> None:
    model = small(widths=(4, 64))
    model_std = (2 / (64 * 9)) ** 0.5
    weight = model.stages[1][1].conv1.weight
    assert weight.std().item() == pytest.approx(model_std, rel=0.02)
    assert weight.abs().max().item() == pytest.approx(2 * model_std / 0.8796, rel=0.01)
    assert model.head.bias.abs().max() == 0


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_gets_a_gradient(pooling: str) -> None:
    model = small(pooling, strides=(2, 1, 2))
    model(torch.randn(4, 2, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    strides = [m.log2_stride for m in model.modules() if isinstance(m, DiffStrideNd)]
    assert all((stride.grad != 0).all() for stride in strides)
    names = [group["name"] for group in param_groups(model, lr=0.1)]
    assert names == ["weights", "undecayed"] + ["sizes"] * (pooling == "diffstride")


def test_learned_strides_multiply_along_the_network() -> None:
    model = DiffStrideResNet(1, 2, widths=(2, 2, 2, 2))
    penalty = complexity_penalty(model, torch.zeros(1, 1, 32, 32))
    assert penalty.item() == pytest.approx(1 + 1 / 4 + 1 / 16 + 1 / 64)
    penalty.backward()
    pools = [m for m in model.modules() if isinstance(m, DiffStrideNd)]
    assert len(pools) == len(sizes(model)) == 4
    assert all((pool.log2_stride.grad < 0).all() for pool in pools)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_work_of_a_twin(pooling: str) -> None:
    model = small(pooling)
    macs = complexity_penalty(model, torch.zeros(1, 2, 16, 16), form="macs")
    assert macs.item() == pytest.approx(cost(model, torch.zeros(1, 2, 16, 16)).macs.item() / 1e9)
    if pooling != "diffstride":
        with pytest.raises(ValueError, match="form='macs'"):
            complexity_penalty(model, torch.zeros(1, 2, 16, 16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(strides=(1, 2, 2)), "strides must be 1 at the first stage"),
        (lambda: small(strides=(1, 1)), r"strides must hold 3 numbers, got \(1, 1\)"),
        (lambda: diffstride_resnet18_imagenet(strides=(1, 1, 2, 2, 2)), "strides must hold 4"),
        (lambda: small(strides=(1, 1, 0.5)), "strides must be at least 1"),
        (lambda: small("strided", strides=(1, 1, 1.5)), "strides must be whole numbers with"),
        (lambda: small("average"), "pooling must be 'diffstride', 'spectral' or 'strided'"),
        (lambda: small("strided", size_rule="round"), "size_rule must be 'paper' or 'exact'"),
        (lambda: small(size_rule="paper", smoothness=0.5), "smoothness must be at least 1"),
        (lambda: small(depth=0), "depth must be at least 1"),
        (lambda: small(widths=()), "widths must hold one or more"),
        (lambda: DiffStrideResNet(0, 10), "in_channels must be at least 1"),
        (lambda: DiffStrideResNet(1, 0), "num_classes must be at least 1"),
        (lambda: small()(torch.zeros(2, 3, 8, 8)), "input must have 2 channels"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("pooling", "option"),
    [
        ("diffstride", {"stride": 2}),
        ("diffstride", {"output_size": 8}),
        ("spectral", {"smoothness": 3.0}),
        ("strided", {"amplitude": "sum"}),
        ("strided", {"smoothness": 4.0}),
        ("diffstride", {"no_such": 1}),
    ],
)
def test_options_that_have_no_place_are_refused(pooling: str, option: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"no option {next(iter(option))}"):
        small(pooling, **option)


def test_copies_compute_the_same() -> None:
    model, x = small().eval(), torch.randn(1, 2, 16, 16)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))


@pytest.mark.parametrize("strides", [2, "1, 1, 2", None, (1, 1, "2")])
def test_strides_of_another_type_are_refused(strides: object) -> None:
    with pytest.raises(TypeError, match="strides must"):
        small(strides=strides)
