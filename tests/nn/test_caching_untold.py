"""Kept kernels and changes that no version counter tells: of modules, by fused steps, elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sizeless.kernels import MLP
from sizeless.nn import FlexConvNd
from sizeless.nn.caching import RenderCache, cached_kernels

from .caching_tools import fresh, make, maps, silent

Layer = FlexConvNd


def test_a_part_without_parameters_that_is_replaced() -> None:
    layer, input = make(kernel=MLP).eval(), maps()
    before = silent(layer, input)
    layer.kernel.activation = nn.Tanh()
    after = silent(layer, input)
    assert_close(after, fresh(layer, input))
    assert not torch.allclose(before, after)


# ---- stale: modules replaced ---------------------------------------------------------------------


def parts_replaced(name: str) -> Callable[[Layer], None]:
    def change(layer: Layer) -> None:
        parent, _, child = name.rpartition(".")
        setattr(layer.get_submodule(parent), child, make(init_size=7).get_submodule(name))

    return change


def tied(layer: Layer) -> None:
    other = make()
    layer.kernel = other.kernel
    silent(layer, maps())
    with torch.no_grad():
        other.kernel.frequency.add_(0.5)


def no_longer_normalised(layer: Layer) -> None:
    nn.utils.parametrizations.weight_norm(layer.kernel.output)
    silent(layer, maps())
    nn.utils.parametrize.remove_parametrizations(layer.kernel.output, "weight")
    with torch.no_grad():
        layer.kernel.output.weight.mul_(2)


def fused(kind: Callable[..., torch.optim.Optimizer]) -> Callable[[Layer], None]:
    def change(layer: Layer) -> None:
        layer(maps()).square().sum().backward()
        kind(layer.parameters(), lr=0.1, fused=True).step()

    return change


CHANGES = {
    "kernel": parts_replaced("kernel"),
    "window": parts_replaced("window"),
    "output": parts_replaced("kernel.output"),
    "mixing": parts_replaced("kernel.mixing.0"),
    "tied": tied,
    "no longer normalised": no_longer_normalised,
    "fused SGD": fused(torch.optim.SGD),
    "fused Adam": fused(torch.optim.Adam),
    "fused AdamW": fused(torch.optim.AdamW),
    "fused Adagrad": fused(torch.optim.Adagrad),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_layer_renders_anew(change: Callable[[Layer], object], training: bool) -> None:
    layer, input = make().train(training), maps()
    before = silent(layer, input)
    change(layer)
    expected = fresh(layer, input)
    assert_close(silent(layer, input), expected)
    assert not torch.allclose(before, expected)


def test_a_fused_step_between_a_look_and_the_next() -> None:
    layer, input = make(), maps()
    loss = layer(input).square().sum()
    silent(layer, input)
    loss.backward()
    torch.optim.SGD(layer.parameters(), lr=0.1, fused=True).step()
    assert_close(silent(layer, input), fresh(layer, input))


def test_a_fused_step_within_a_block() -> None:
    layer, input = make(), maps()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, fused=True)
    with cached_kernels(layer):
        layer(input).square().sum().backward()
        optimiser.step()
        assert_close(layer(input).detach(), fresh(layer, input))


# ---- threads -------------------------------------------------------------------------------------


def test_a_rendering_that_was_outdated_meanwhile_is_not_kept() -> None:
    """As when another thread changes and uses the layer while this one renders."""
    layer, cache = make(), RenderCache()

    def render() -> torch.Tensor:
        with torch.no_grad():
            layer.kernel.frequency.add_(1)
            cache.fetch(layer, lambda: torch.ones(1))
        return torch.zeros(1)

    with torch.no_grad():
        cache.fetch(layer, render)
        assert cache.fetch(layer, lambda: torch.ones(1)) == 1


# ---- cached_kernels ------------------------------------------------------------------------------


def test_a_layer_that_fails_to_close_leaves_the_others_closed() -> None:
    model = nn.Sequential(make(), make())

    def fail() -> None:
        with cached_kernels(model, accumulate=True):
            model(maps()).sum().backward()
            with torch.no_grad():
                model[0].kernel.gamma.mul_(2)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        fail()
    assert [layer._cache._shared for layer in model] == [None, None]
    model.zero_grad()
    with cached_kernels(model, accumulate=True):
        model(maps()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_graph_does_not_care_whether_kernels_are_shared() -> None:
    torch.compiler.reset()
    layer, graphs = make(), []

    def count(module: nn.Module, _inputs: object) -> object:
        graphs.append(module)
        return module.forward

    compiled = torch.compile(layer, backend=count, fullgraph=True)
    compiled(maps())
    with cached_kernels(layer):
        compiled(maps())
    assert len(graphs) == 1
