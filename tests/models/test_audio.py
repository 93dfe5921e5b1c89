"""The network for spectrograms: counts, map sizes, poolings and tasks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sizeless import DiffStride2d, complexity_penalty, cost, param_groups, sizes
from sizeless.models import AudioNet

POOLINGS = ("diffstride", "spectral", "strided", "max")
FIXED = POOLINGS[1:]


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def small(pooling: str = "diffstride", **options: object) -> AudioNet:
    options = {"num_classes": 5, "strides": (2, 1), "widths": (4, 6), **options}
    return AudioNet(pooling=pooling, **options)


def map_sizes(model: AudioNet, x: Tensor) -> list[tuple[int, ...]]:
    sides: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: sides.append(tuple(output.shape[2:])))
    with torch.no_grad():
        model.eval()(x)
    return sides


@pytest.mark.parametrize("pooling", POOLINGS)
def test_parameter_count(pooling: str) -> None:
    learned = 12 if pooling == "diffstride" else 0
    model = AudioNet(num_classes=35, pooling=pooling)
    assert count(model.blocks) == 3_537_216 + learned
    assert count(model) == 3_537_216 + learned + 513 * 35


def test_parameter_count_with_several_tasks() -> None:
    tasks = (10, 2, 11, 112, 35)
    assert count(AudioNet(num_classes=tasks, pooling="max")) == 3_537_216 + 513 * sum(tasks)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_maps_are_the_input_over_the_strides(pooling: str) -> None:
    model = AudioNet(num_classes=2, widths=(2,) * 6, pooling=pooling)
    sides = [(50, 20), (25, 10), (25, 10), (13, 5), (13, 5), (7, 3)]
    assert map_sizes(model, torch.zeros(1, 1, 99, 40)) == sides


@pytest.mark.parametrize("pooling", POOLINGS)
def test_time_and_frequency_may_have_strides_of_their_own(pooling: str) -> None:
    model = small(pooling, strides=((4, 1), (1, 3)))
    assert map_sizes(model, torch.zeros(1, 1, 40, 30)) == [(10, 30), (10, 10)]


def test_maps_by_the_rules_of_the_paper() -> None:
    x = torch.zeros(1, 1, 100, 40)
    assert map_sizes(small(size_rule="paper"), x) == [(58, 28), (58, 28)]
    assert map_sizes(small("spectral", size_rule="paper", strides=(3, 1)), x)[0] == (32, 13)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_forward_is_what_the_source_describes(pooling: str) -> None:
    model = small(pooling, strides=((2, 3), 1), dropout=0.0).double()
    x = torch.randn(3, 1, 12, 9, dtype=torch.float64)
    hidden = x
    strides = ((2, 3), (1, 1)) if pooling == "strided" else ((1, 1), (1, 1))
    for block, (rows, columns) in zip(model.blocks, strides, strict=True):
        time, frequency = block.time, block.frequency
        hidden = torch.conv2d(hidden, time.weight, time.bias, padding=(1, 0))[..., ::rows, :]
        hidden = block.norm1(hidden.clamp_min(0))
        hidden = torch.conv2d(hidden, frequency.weight, frequency.bias, padding=(0, 1))
        hidden = block.pool(block.norm2(hidden[..., ::columns].clamp_min(0)))
    pooled = hidden.flatten(2).max(dim=2).values
    head = model.heads[0]
    torch.testing.assert_close(model(x), pooled @ head.weight.T + head.bias)


def test_the_maximum_pools_neighbours() -> None:
    pool = small("max", strides=((2, 3), 1)).blocks[0].pool
    x = torch.randn(1, 4, 5, 7)
    expected = torch.full((1, 4, 3, 3), -torch.inf)
    for row in range(5):
        for column in range(7):
            cell = expected[..., row // 2, column // 3]
            expected[..., row // 2, column // 3] = torch.maximum(cell, x[..., row, column])
    assert torch.equal(pool(x), expected)


def test_dropout_sits_before_the_pool() -> None:
    model = small(dropout=1.0)
    scores = model(torch.randn(3, 1, 12, 10))
    torch.testing.assert_close(scores, model.heads[0].bias.expand(3, -1))


def test_one_task_gives_a_tensor_and_several_a_tuple() -> None:
    x = torch.randn(3, 1, 20, 10)
    assert small(num_classes=5)(x).shape == (3, 5)
    for tasks in ((5,), [5, 2, 7]):
        logits = small(num_classes=tasks)(x)
        assert isinstance(logits, tuple)
        assert [tuple(task.shape) for task in logits] == [(3, n) for n in tasks]


def test_tasks_share_the_encoder_only() -> None:
    model = small(num_classes=(3, 2))
    first, _ = model(torch.randn(3, 1, 20, 10))
    first.square().sum().backward()
    assert model.heads[0].weight.grad is not None
    assert model.heads[1].weight.grad is None
    assert all(p.grad is not None for p in model.blocks.parameters())


def test_every_block_learns_its_strides() -> None:
    model = small(amplitude="sum", shared=True)
    pools = [m for m in model.modules() if isinstance(m, DiffStride2d)]
    assert [pool.stride for pool in pools] == [(2.0, 2.0), (1.0, 1.0)]
    assert all((p.shared, p.amplitude, p.size_rule) == (True, "sum", "exact") for p in pools)
    assert [row.kind for row in sizes(model)] == ["stride"] * 2


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_gets_a_gradient(pooling: str) -> None:
    model = small(pooling)
    model(torch.randn(4, 1, 20, 12)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    names = [group["name"] for group in param_groups(model, lr=0.1)]
    assert names == ["weights", "undecayed"] + ["sizes"] * (pooling == "diffstride")


def test_complexity_of_learned_strides() -> None:
    model, x = small(strides=((2, 4), 2)), torch.zeros(1, 1, 32, 32)
    penalty = complexity_penalty(model, x)
    assert penalty.item() == pytest.approx(1 / 8 + 1 / 32)
    penalty.backward()
    assert all((m.pool.log2_stride.grad < 0).all() for m in model.blocks)


def test_work_of_the_fixed_twins() -> None:
    x = torch.zeros(1, 1, 16, 16)
    macs = {p: complexity_penalty(small(p), x, form="macs").item() for p in FIXED}
    assert macs["strided"] < macs["max"] < macs["spectral"]
    assert cost(small("max"), x).macs.item() == 3 * (256 * (4 + 16) + 64 * (24 + 36)) + 30
    assert sizes(small("max")) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(in_channels=0), "in_channels must be at least 1"),
        (lambda: small(num_classes=0), "num_classes must be at least 1"),
        (lambda: small(num_classes=()), "num_classes must hold one or more ints"),
        (lambda: small(widths=(4, 0)), "widths must hold one or more ints of at least 1"),
        (lambda: small(strides=(2,)), r"strides must hold 2 numbers, got \(2,\)"),
        (
            lambda: small("max", strides=(1.5, 1)),
            "strides must be whole numbers with pooling='max'",
        ),
        (lambda: small(strides=(0, 1)), "strides must be at least 1"),
        (lambda: small(strides=((2, 2, 2), 1)), "strides must be a number or a tuple of 2"),
        (lambda: small(dropout=-1), "dropout must be a finite number"),
        (lambda: small("mean"), "pooling must be 'diffstride', 'spectral', 'strided' or 'max'"),
        (lambda: small(size_rule="floor"), "size_rule must be 'paper' or 'exact'"),
        (lambda: small()(torch.zeros(2, 16, 16)), "input must have 4 dimensions"),
        (lambda: small()(torch.zeros(2, 2, 16, 16)), "input must have 1 channels"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "options", [{"num_classes": "10"}, {"num_classes": 2.5}, {"num_classes": (2, 2.5)}]
)
def test_tasks_of_another_type_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="num_classes must"):
        small(**options)


def test_copies_compute_the_same() -> None:
    model, x = small(num_classes=(3, 2)).eval(), torch.randn(1, 1, 20, 12)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))


@pytest.mark.parametrize(
    ("pooling", "option"), [("max", {"shared": True}), ("spectral", {"transition": 0.5})]
)
def test_options_that_have_no_place_are_refused(pooling: str, option: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"AudioNet takes no option {next(iter(option))}"):
        small(pooling, **option)
