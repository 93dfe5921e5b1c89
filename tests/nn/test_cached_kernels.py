"""Kernels that are rendered once for all their uses within ``cached_kernels``."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from sizeless import DiffStride1d, FlexConv1d, SeparableFlexConv1d, refresh_sizes
from sizeless.nn.caching import Caching, cached_kernels

from .caching_tools import DOUBLE, SMALL, Renderings, change_in_place, fresh, make, maps

both = pytest.mark.parametrize("accumulate", [False, True])


@pytest.fixture
def renderings(monkeypatch: pytest.MonkeyPatch) -> Renderings:
    return Renderings(monkeypatch)


def separable() -> nn.Module:
    return SeparableFlexConv1d(2, 2, 9, init_size=5, kernel=SMALL, dtype=DOUBLE)


def network() -> nn.Module:
    return nn.Sequential(make(), nn.Tanh(), separable(), nn.Conv1d(2, 2, 3, dtype=DOUBLE))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": make,
    "evaluated": lambda: make().eval(),
    "causal": lambda: make(causal=True),
    "looking ahead": lambda: make(look_ahead=2),
    "frozen but for the window": lambda: frozen(make(), "kernel"),
    "frozen window": lambda: frozen(make(), "window"),
    "separable": separable,
    "network": network,
}
models = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())


def frozen(layer: nn.Module, part: str) -> nn.Module:
    layer.get_submodule(part).requires_grad_(False)
    return layer


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def losses(model: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    return [model(input).sin().square().sum() for input in inputs]


# ---- the same gradients --------------------------------------------------------------------------


@models
def test_one_backward_through_all_uses(build: Callable[[], nn.Module]) -> None:
    model, inputs = build(), [maps().requires_grad_() for _ in range(3)]
    reference = copy.deepcopy(model)
    with cached_kernels(model):
        got = losses(model, inputs)
        sum(got).backward()
    to_inputs = [input.grad.clone() for input in inputs]
    expected = losses(reference, inputs)
    assert_close(got, expected)
    assert_close(to_inputs, list(torch.autograd.grad(sum(expected), inputs, retain_graph=True)))
    sum(expected).backward()
    assert_close(gradients(model), gradients(reference))


@models
def test_backward_after_the_block(build: Callable[[], nn.Module]) -> None:
    model, inputs = build(), [maps() for _ in range(2)]
    reference = copy.deepcopy(model)
    with cached_kernels(model):
        loss = sum(losses(model, inputs))
    loss.backward()
    sum(losses(reference, inputs)).backward()
    assert_close(gradients(model), gradients(reference))


@models
def test_many_backwards_within_the_block(build: Callable[[], nn.Module]) -> None:
    model, inputs = build(), [maps() for _ in range(3)]
    reference = copy.deepcopy(model)
    for _ in range(2):
        with cached_kernels(model, accumulate=True):
            for input in inputs:
                losses(model, [input])[0].backward()
        sum(losses(reference, inputs)).backward()
    assert_close(gradients(model), gradients(reference))


def test_double_backward_through_shared_kernels() -> None:
    model, input = make(), maps().requires_grad_()

    def penalty(model: nn.Module) -> Tensor:
        first = torch.autograd.grad(model(input).sin().sum(), input, create_graph=True)[0]
        return first.square().sum() + model(input).square().sum()

    wanted = torch.autograd.grad(penalty(model), list(model.parameters()))
    with cached_kernels(model):
        ours = torch.autograd.grad(penalty(model), list(model.parameters()))
    assert_close(ours, wanted)


@both
def test_uses_under_autocast_and_without_gradients(accumulate: bool) -> None:
    model, input = make(dtype=torch.float32), maps(torch.float32)
    reference = copy.deepcopy(model)
    expected = reference(input)
    (2 * expected.square().sum()).backward()
    with cached_kernels(model, accumulate=accumulate):
        with torch.no_grad():
            assert_close(model(input), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(input).dtype == torch.bfloat16
        with torch.inference_mode():
            assert_close(model(input), expected)
        (2 * model(input).square().sum()).backward()
    assert_close(gradients(model), gradients(reference))


# ---- once ----------------------------------------------------------------------------------------


@both
def test_each_kernel_is_rendered_once_in_a_block(accumulate: bool, renderings: Renderings) -> None:
    model = nn.Sequential(make(), make(), separable())
    renderings.since()
    for _ in range(2):
        with cached_kernels(model, accumulate=accumulate):
            for _ in range(4):
                model(maps())
        assert renderings.since() == 3
    model(maps())
    assert renderings.since() == 3


@both
def test_each_mode_renders_its_own(accumulate: bool, renderings: Renderings) -> None:
    model = make(look_ahead=1)
    renderings.since()
    with cached_kernels(model, accumulate=accumulate):
        model(maps())
        assert renderings.since() == 2
        model(maps())
        assert renderings.since() == 0
        model.eval()
        model(maps())
        assert renderings.since() == 1


@both
@pytest.mark.parametrize("depth", [2, 3])
def test_the_outermost_of_nested_blocks_decides(
    accumulate: bool, depth: int, renderings: Renderings
) -> None:
    model, inputs = make(), [maps() for _ in range(depth)]
    reference = copy.deepcopy(model)
    renderings.since()

    def nested(level: int) -> Tensor | float:
        with cached_kernels(model, accumulate=accumulate):
            inner = nested(level + 1) if level + 1 < depth else 0.0
            return inner + losses(model, [inputs[level]])[0]

    with cached_kernels(model, accumulate=accumulate):
        nested(0).backward()
    assert renderings.since() == 1
    sum(losses(reference, inputs)).backward()
    assert_close(gradients(model), gradients(reference))


def test_an_inner_block_for_more_layers_ends_on_its_own(renderings: Renderings) -> None:
    first, second = make(), make()
    model = nn.Sequential(first, second)
    renderings.since()
    with cached_kernels(first):
        with cached_kernels(model):
            model(maps())
            model(maps())
            assert renderings.since() == 2
        model(maps())
        assert renderings.since() == 1


@both
def test_shared_layers_are_opened_once(accumulate: bool) -> None:
    layer, input = make(), maps()
    model, reference = nn.Sequential(layer, layer), copy.deepcopy(layer)
    with cached_kernels(model, accumulate=accumulate):
        model(input).square().sum().backward()
    reference(reference(input)).square().sum().backward()
    assert_close(gradients(layer), gradients(reference))


# ---- changes and failures ------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", [name for name, _ in make().named_parameters() if name != "bias"])
def test_a_parameter_that_changes_within_the_block(
    name: str, accumulate: bool, renderings: Renderings
) -> None:
    model, input = make(), maps()
    with cached_kernels(model, accumulate=accumulate):
        before = model(input).detach()
        change_in_place(model, name)
        renderings.since()
        after = model(input).detach()
        assert renderings.since() == 1
    assert_close(after, fresh(model, input))
    assert not torch.allclose(before, after)


def test_a_step_within_the_block() -> None:
    model = make()
    inputs = [maps() for _ in range(3)]
    reference = copy.deepcopy(model)

    def train(model: nn.Module) -> None:
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for input in inputs:
            optimiser.zero_grad()
            losses(model, [input])[0].backward()
            optimiser.step()

    with cached_kernels(model):
        train(model)
    train(reference)
    assert_close(model.state_dict(), reference.state_dict())


@both
def test_a_cast_within_the_block(accumulate: bool) -> None:
    model = make()
    with cached_kernels(model, accumulate=accumulate):
        model(maps())
        model.float()
        output = model(maps(torch.float32))
        output.sum().backward()
    assert output.dtype == torch.float32
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def test_backward_after_the_block_is_refused_where_gradients_accumulate() -> None:
    model = make()
    with cached_kernels(model, accumulate=True):
        early, late = losses(model, [maps(), maps()])
        early.backward()
    expected = {name: gradient.clone() for name, gradient in gradients(model).items()}
    with pytest.raises(RuntimeError, match=r"call backward\(\) inside the block"):
        late.backward()
    for name in set(expected) - {"bias"}:
        assert_close(model.get_parameter(name).grad, expected[name])


@both
def test_a_block_that_fails_passes_its_error_on_and_closes(
    accumulate: bool, renderings: Renderings
) -> None:
    model = nn.Sequential(make(), make())

    def fail() -> None:
        with cached_kernels(model, accumulate=accumulate):
            losses(model, [maps()])[0].backward()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    kernels = [p for n, p in model.named_parameters() if not n.endswith("bias") or "kernel" in n]
    assert all((p.grad is None) == accumulate for p in kernels)
    model.zero_grad()
    reference, input = copy.deepcopy(model), maps()
    renderings.since()
    for each in (model, reference):
        for _ in range(2):
            losses(each, [input])[0].backward()
    assert renderings.since() == 8
    assert_close(gradients(model), gradients(reference))


@both
def test_kernels_are_freed_at_the_end_of_the_block(
    accumulate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels: list[weakref.ref[Any]] = []
    original = FlexConv1d._product

    def watched(layer: FlexConv1d, *factors: Tensor) -> Tensor:
        kernel = original(layer, *factors)
        kernels.append(weakref.ref(kernel))
        return kernel

    model = make()
    monkeypatch.setattr(FlexConv1d, "_product", watched)
    with cached_kernels(model, accumulate=accumulate):
        model(maps())
        kernels += map(weakref.ref, model._cache._shared.kept.values())
        assert [kernel() is None for kernel in kernels] == [False] * 2
    assert [kernel() is None for kernel in kernels] == [True] * 2


def test_copies_made_within_the_block_are_outside_of_it(renderings: Renderings) -> None:
    model = make()
    with cached_kernels(model, accumulate=True):
        model(maps())
        copied = copy.deepcopy(model)
        renderings.since()
        for _ in range(2):
            copied(maps()).sum().backward()
        assert renderings.since() == 2
    assert copied.kernel.frequency.grad is not None
    assert model.kernel.frequency.grad is None


def test_models_without_kernels_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 1), DiffStride1d())
    assert not any(isinstance(module, Caching) for module in model.modules())
    with cached_kernels(model, accumulate=True):
        model(torch.randn(1, 1, 16)).sum().backward()
    refresh_sizes(model)
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("model", [None, "layer", [make()], make().parameters()])
def test_a_model_must_be_a_module(model: Any) -> None:
    with pytest.raises(TypeError, match=r"model must be an instance of torch\.nn\.Module"):
        cached_kernels(model).__enter__()


@pytest.mark.parametrize("value", [1, None, "yes", torch.tensor(True)])
def test_accumulate_must_be_a_bool(value: Any) -> None:
    layer = make()
    with pytest.raises(TypeError, match="accumulate must be"):
        cached_kernels(layer, accumulate=value).__enter__()
    with pytest.raises(TypeError, match="positional"):
        cached_kernels(layer, True)
