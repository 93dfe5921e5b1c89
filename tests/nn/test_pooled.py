"""NIFF with a pooling: when one step serves both, and what the tools of the library see of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from sizeless import (
    DiffStride1d,
    DiffStride2d,
    NIFFConv2d,
    PooledNIFFConv1d,
    PooledNIFFConv2d,
    PooledNIFFConv3d,
    SpectralPool2d,
    complexity_penalty,
    cost,
    fold,
    param_groups,
    sizes,
)
from sizeless.nn import niff


def layer_with(pool: nn.Module | None = None, **options: object) -> PooledNIFFConv2d:
    return PooledNIFFConv2d(4, 4, groups=4, pool=pool, dtype=torch.float64, **options)


def image() -> Tensor:
    return torch.randn(2, 4, 13, 12, dtype=torch.float64)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the outputs that one step gave."""
    seen: list[tuple[int, ...]] = []
    step = niff.convolve_resampled

    def counted(*arguments: object) -> Tensor:
        output = step(*arguments)
        seen.append(tuple(output.shape[2:]))
        return output

    monkeypatch.setattr(niff, "convolve_resampled", counted)
    return seen


@pytest.mark.parametrize(
    "pool",
    [
        None,
        DiffStride2d(1.7),
        DiffStride2d((1.3, 2.6), size_rule="exact", amplitude="sum", shared=False),
        SpectralPool2d(2.3),
        SpectralPool2d(output_size=(13, 5), amplitude="sum"),
    ],
    ids=str,
)
def test_one_step_serves_both(at_once: list[tuple[int, ...]], pool: nn.Module | None) -> None:
    layer, input = layer_with(pool, bias=True), image()
    expected = layer.pool(layer.conv(input))
    assert at_once == []
    torch.testing.assert_close(layer(input), expected)
    assert at_once == [tuple(expected.shape[2:])]


class Halved(DiffStride2d):
    def forward(self, input: Tensor) -> Tensor:
        return 0.5 * super().forward(input)


class HalvedPool(SpectralPool2d):
    def forward(self, input: Tensor) -> Tensor:
        return 0.5 * super().forward(input)


class HalvedConv(NIFFConv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 0.5 * super().forward(input)


def with_zeros(layer: PooledNIFFConv2d) -> None:
    layer.conv.boundary = "zeros"


def with_a_hook_on_the_filter(layer: PooledNIFFConv2d) -> None:
    layer.conv.register_forward_hook(lambda _module, _input, output: 2 * output)


def with_a_hook_before_the_pool(layer: PooledNIFFConv2d) -> None:
    layer.pool.register_forward_pre_hook(lambda _module, input: (input[0] + 1,))


def with_another_pool(layer: PooledNIFFConv2d) -> None:
    layer.pool = nn.AvgPool2d(2)


def with_a_pool_that_enlarges(layer: PooledNIFFConv2d) -> None:
    layer.pool = SpectralPool2d(output_size=(6, 15))


def with_a_pool_of_another_class(layer: PooledNIFFConv2d) -> None:
    layer.pool = Halved(2.0)


def with_a_fixed_pool_of_another_class(layer: PooledNIFFConv2d) -> None:
    layer.pool = HalvedPool(2.0)


def with_a_filter_of_another_class(layer: PooledNIFFConv2d) -> None:
    layer.conv = HalvedConv(4, 4, 4, dtype=torch.float64)


def with_another_convolution(layer: PooledNIFFConv2d) -> None:
    layer.conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)


@pytest.mark.parametrize(
    "change",
    [
        with_zeros,
        with_a_hook_on_the_filter,
        with_a_hook_before_the_pool,
        with_another_pool,
        with_a_pool_that_enlarges,
        with_a_pool_of_another_class,
        with_a_fixed_pool_of_another_class,
        with_a_filter_of_another_class,
        with_another_convolution,
    ],
)
def test_otherwise_they_are_called_one_after_the_other(
    at_once: list[tuple[int, ...]], change: Callable[[PooledNIFFConv2d], None]
) -> None:
    layer, input = layer_with(), image()
    change(layer)
    torch.testing.assert_close(layer(input), layer.pool(layer.conv(input)))
    assert at_once == []


def test_both_learn_together() -> None:
    layer, input = layer_with(DiffStride2d(1.7, size_rule="exact", dtype=torch.float64)), image()
    target = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    grads = [
        torch.autograd.grad((output - target).square().sum(), list(layer.parameters()))
        for output in (layer(input), layer.pool(layer.conv(input)))
    ]
    assert layer.pool.log2_stride in set(layer.parameters())
    learning = dict(zip(dict(layer.named_parameters()), grads[0], strict=True))
    assert learning["pool.log2_stride"].all()
    assert learning["conv.real.output.weight"].all()
    torch.testing.assert_close(*grads)


def test_filters_are_rendered_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[tuple[int, ...]] = []
    lowest = NIFFConv2d._lowest

    def counted(self: NIFFConv2d, before: tuple[int, ...], waves: tuple[int, ...]) -> Tensor:
        rendered.append(waves)
        return lowest(self, before, waves)

    monkeypatch.setattr(NIFFConv2d, "_lowest", counted)
    layer, input = layer_with().eval(), image()
    with torch.no_grad():
        for _ in range(3):
            layer(input)
        assert rendered == [(7, 7)]
        layer.conv.real.output.bias.add_(1)
        changed = layer(input)
        assert rendered == [(7, 7), (7, 7)]
        layer.pool.log2_stride.mul_(1.5)
        torch.testing.assert_close(layer(input), layer.pool(layer.conv(input)))
        assert rendered[2] == (5, 5)
    assert changed.shape[2:] == (7, 6)


def test_the_sizes_are_those_of_both() -> None:
    layer = layer_with(DiffStride2d((1.7, 2.6), size_rule="exact"))
    layer(image())
    rows = {row.name: row for row in sizes(layer)}
    assert rows["conv"].size == (13, 12)
    assert rows["pool"].size == (1.7, 2.6)
    groups = {group["name"]: group["params"] for group in param_groups(layer, lr=0.1)}
    assert groups["sizes"] == [layer.pool.log2_stride]
    assert {id(p) for g in groups.values() for p in g} == {id(p) for p in layer.parameters()}


def test_the_cost_is_that_of_both() -> None:
    layer = layer_with()
    pair = nn.Sequential(layer.conv, layer.pool)
    ours, theirs = cost(layer, image()), cost(pair, image())
    assert [row.name for row in ours.rows] == ["conv", "pool"]
    assert ours.macs == theirs.macs
    penalties = [complexity_penalty(model, image()) for model in (layer, pair)]
    torch.testing.assert_close(*penalties)


def test_it_folds_to_plain_layers() -> None:
    layer, input = layer_with().eval(), image()
    folded, _ = fold(layer, input)
    assert not any(type(m).__module__.startswith("sizeless.nn.niff") for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(input), layer(input))


def test_it_can_be_exported_and_traced() -> None:
    layer, input = layer_with().eval(), image()
    expected = layer(input)
    torch.testing.assert_close(torch.export.export(layer, (input,)).module()(input), expected)

    class Whole(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, path: str) -> bool:
            return path in ("conv", "pool")

    graph = Whole().trace(layer)
    assert [n.target for n in graph.nodes if n.op == "call_module"] == ["conv", "pool"]


def test_evaluation_compiles() -> None:
    torch.compiler.reset()
    layer, input = layer_with().eval(), image()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(input), layer(input))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layer_with(DiffStride1d()), ValueError, "DiffStride2d.*got the 1-D DiffStride1d"),
        (lambda: PooledNIFFConv1d(2, 2, pool=DiffStride1d), TypeError, "DiffStride1d, a class"),
        (lambda: PooledNIFFConv3d(2, 2, stride=2), TypeError, "takes no option stride=2"),
        (lambda: PooledNIFFConv2d(3, 4, groups=2), ValueError, "groups"),
        (lambda: layer_with()(image()[:, :3]), ValueError, "4 channels"),
        (lambda: layer_with()(image().float()), TypeError, "parameters"),
    ],
)
def test_errors_say_what_is_wrong(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()
