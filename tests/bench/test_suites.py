"""The suites ``layers`` and ``models``: every case runs, and does what it says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import sizeless
from sizeless.bench import in_use, layers, models
from sizeless.bench.case import Case
from sizeless.bench.run import SUITES
from sizeless.models import flexnet7, flextcn6
from sizeless.nn import FlexConvNd
from sizeless.nn.caching import Caching

GROUPS = [g for g in layers.GROUPS if g not in {layers.network_cases, in_use.compiled_cases}]


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("suite", SUITES)
def test_names_are_unique_and_ours_comes_first(suite: str, quick: bool) -> None:
    cases = list(SUITES[suite](quick, "cpu"))
    assert len({(case.name, case.mode) for case in cases}) == len(cases) > 0
    for case in cases:
        roles = [contender.role for contender in case.contenders]
        assert roles[0] == "ours"
        assert roles.count("ours") == 1
        assert case.suite == suite
        assert not (quick and any(c.bar or c.memory_bar for c in case.contenders))


def test_the_bars_are_those_that_are_asked_for() -> None:
    found = {}
    for case in itertools.chain(layers.cases(False, "cpu"), models.cases(False, "cpu")):
        for contender in case.contenders:
            for bar in (contender.bar, contender.memory_bar):
                if bar is not None:
                    found.setdefault(case.kind, set()).add(round(1 / bar, 3))
    assert found == {
        "depthwise": {8, 20},
        "FlexConv": {1.2, 4, 30, 50, 3, 2},
        "NIFF": {3, 0.909},
        "DiffStride": {2.5, 2, 1.3, 1, 0.625},
        "cached": {0.98},
        "compiled": {1},
        "network": {8, 3},
    }


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_contender_runs(group: Callable[[bool, str], Iterator[Case]]) -> None:
    for case in group(True, "cpu"):
        for contender in case.contenders:
            assert contender.make is not None
            result: Any = contender.make()()
            if contender.role == "limit":
                continue
            if case.mode == "training":
                assert any(gradient is not None for gradient in result)
                assert result[0].shape == case.shape, "the gradient of the input"
            else:
                assert len(result) == case.shape[0]


def test_ours_and_theirs_have_the_same_gradients_to_compute() -> None:
    for group in (layers.flexconv_cases, layers.causal_flexconv_cases, layers.niff_cases):
        for case in group(True, "cpu"):
            if case.mode == "training":
                results: list[Any] = [c.make()() for c in case.contenders[:2]]
                shapes = [[g.shape for g in gradients] for gradients in results]
                assert shapes[0] == shapes[1]


def test_in_evaluation_the_kernel_is_kept_and_in_training_it_is_not() -> None:
    training, evaluation = [
        next(c for c in layers.flexconv_cases(True, "cpu") if c.mode == mode).contenders[0].make()
        for mode in ("training", "forward")
    ]
    rendered = []
    factors = FlexConvNd._factors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlexConvNd, "_factors", lambda *a: rendered.append(1) or factors(*a))
        for run, count in ((evaluation, 1), (training, 4)):
            rendered.clear()
            for _ in range(4):
                run()
            assert len(rendered) == count


@pytest.mark.parametrize("index", range(5))
def test_fixed_weights_compute_what_the_layer_computes(index: int) -> None:
    case = list(in_use.cached_cases(True, "cpu"))[index]
    outputs: list[Any] = []
    for contender in case.contenders:
        torch.manual_seed(0)
        outputs.append(contender.make()())
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_every_layer_is_compiled() -> None:
    exported = {name: getattr(sizeless, name) for name in sizeless.__all__}
    kinds = {n for n, v in exported.items() if isinstance(v, type) and issubclass(v, nn.Module)}
    assert in_use.LAYERS.keys() == kinds
    for name in kinds:
        layer, input = in_use.layer_and_input(name)
        assert type(layer).__name__ == name
        assert layer(input).shape[0] == len(input)


def test_layers_that_are_operators_have_the_compiler_for_a_limit() -> None:
    for case in in_use.compiled_cases(False, "cpu"):
        module = in_use.layer_and_input(case.name.split()[1])[0]
        has_limit = case.contenders[-1].role == "limit"
        kept = any(isinstance(part, Caching) for part in module.modules())
        assert has_limit == (kept and case.mode == "forward")


def test_an_empty_graph_adds_as_many_parameters() -> None:
    empty = in_use.EmptyGraph(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)))
    assert len(list(empty.parameters())) == 4
    for value, parameter in enumerate(empty.parameters()):
        nn.init.constant_(parameter, value)
    assert empty(torch.full((2, 3), 5.0)).tolist() == [11.0]


def test_the_limit_returns_what_the_layer_does() -> None:
    layer, input = sizeless.NIFFConv1d(1, 1).eval(), torch.randn(1, 1, 4)
    result = in_use.make_limit(lambda: (layer, input), "cpu")()
    with torch.no_grad():
        torch.testing.assert_close(result, layer(input))


def test_sizes_of_the_networks() -> None:
    for model, sizes in (
        (flexnet7(3, 10, kernel_size=33), models.FLEXNET_SIZES),
        (flextcn6(1, 10, kernel_size=16000), [(s,) for s in models.FLEXTCN_SIZES]),
    ):
        models.set_sizes(model, sizes)
        flexconvs = [m for m in model.modules() if isinstance(m, FlexConvNd)]
        assert [layer.size for layer in flexconvs] == list(sizes)


def test_sizes_that_cannot_be_are_refused() -> None:
    layer = sizeless.FlexConv2d(1, 1, 9)
    with pytest.raises(ValueError, match=r"a window for \(4, 5\) taps keeps"):
        models.set_sizes(layer, [(4, 5)])
    with pytest.raises(ValueError, match="zip"):
        models.set_sizes(layer, [(3, 3), (5, 5)])


def test_a_training_step_of_a_network_learns() -> None:
    made = models.flextcn(True)
    before = [p.detach().clone() for p in made[0].parameters()]
    models.make_training(lambda _: made, True, False, "cpu")()
    pairs = zip(before, made[0].parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs if new.grad.any())


def test_networks_of_torchvision_are_changed() -> None:
    pytest.importorskip("torchvision")
    for name, kind in (
        ("resnet50", sizeless.SeparableNIFFConv2d),
        ("convnext_tiny", sizeless.NIFFConv2d),
    ):
        network, input = layers.torchvision_network(name, True, (1, 3, 32, 32))
        assert sum(isinstance(module, kind) for module in network.modules()) > 10
        assert input.shape == (1, 3, 32, 32)
        plain, _ = layers.torchvision_network(name, False, (1, 3, 32, 32))
        assert not any(isinstance(module, kind) for module in plain.modules())


def test_a_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for case in layers.network_cases(True, "cpu"):
        assert {c.status for c in case.contenders} == {"not installed"}
        assert {c.note for c in case.contenders} == {"pip install torchvision"}
        assert all(c.make is None for c in case.contenders)
