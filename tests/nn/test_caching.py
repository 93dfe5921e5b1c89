"""What a FlexConv keeps of its kernel: rendered once, and never stale."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sizeless import FlexConv1d, SeparableFlexConv1d, change_resolution_
from sizeless.nn import FlexConvNd

from .caching_tools import DOUBLE, SMALL, Renderings, change_in_place, fresh, make, maps, silent

Layer = FlexConvNd


@pytest.fixture
def renderings(monkeypatch: pytest.MonkeyPatch) -> Renderings:
    return Renderings(monkeypatch)


@pytest.fixture
def layer() -> FlexConv1d:
    return make().eval()


# ---- once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [False, True])
def test_without_gradients_a_kernel_is_rendered_once(
    mode: Callable[..., Any], training: bool, renderings: Renderings
) -> None:
    layer = make(look_ahead=1).train(training)
    renderings.since()
    with mode():
        for length in (9, 9, 4, 12):
            input = torch.randn(3, 2, length, dtype=DOUBLE)
            expected = torch.conv1d(input, layer.weight, layer.bias, padding=layer.size[0] // 2)
            assert_close(layer(input), expected)
    # Four of them are what the test asked of the layer's weight.
    assert renderings.since() == 5


def test_in_training_a_kernel_is_rendered_each_time(
    layer: FlexConv1d, renderings: Renderings
) -> None:
    for _ in range(3):
        layer(maps())
    assert renderings.since() == 3


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("look_ahead", [0, 2])
def test_a_frozen_layer_renders_once_and_passes_gradients_on(
    training: bool, look_ahead: int, renderings: Renderings
) -> None:
    layer = make(look_ahead=look_ahead).requires_grad_(False).train(training)
    reference = copy.deepcopy(layer)
    renderings.since()
    inputs = [maps().requires_grad_() for _ in range(3)]
    got = [torch.autograd.grad(layer(x).sin().sum(), x)[0] for x in inputs]
    assert renderings.since() == (2 if look_ahead and training else 1)
    weight = reference.weight
    for x, gradient in zip(inputs, got, strict=True):
        output = torch.conv1d(x, weight, layer.bias, padding=2)
        assert_close(gradient, torch.autograd.grad(output.sin().sum(), x)[0])


def test_a_layer_frozen_but_for_its_bias_passes_gradients_on(layer: FlexConv1d) -> None:
    layer.requires_grad_(False).bias.requires_grad_()
    input = maps()
    silent(layer, input)
    layer(input).sum().backward()
    assert_close(layer.bias.grad, torch.full((2,), 18.0, dtype=DOUBLE))


def test_inference_mode_leaves_nothing_that_training_cannot_use(
    layer: FlexConv1d, renderings: Renderings
) -> None:
    input = maps()
    with torch.inference_mode():
        expected = layer(input)
    assert_close(silent(layer, input), expected.clone())
    assert renderings.since() == 1
    layer(input.requires_grad_()).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    frozen = make().eval().requires_grad_(False)
    with torch.inference_mode():
        frozen(input.detach())
    frozen(input).sum().backward()


# ---- never stale ---------------------------------------------------------------------------------


def step(kind: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[[Layer], object]:
    def change(layer: Layer) -> None:
        layer(torch.ones(1, 2, 9, dtype=DOUBLE)).square().sum().backward()
        kind(layer.parameters(), lr=0.1, **options).step()

    return change


def in_inference_mode(layer: Layer) -> None:
    with torch.inference_mode():
        layer.kernel.output.weight.mul_(2)


def through_a_view(layer: Layer) -> None:
    layer.kernel.output.weight.detach()[0].mul_(2)


def all_at_once(layer: Layer) -> None:
    with torch.no_grad():
        torch._foreach_mul_(list(layer.parameters()), 1.5)


def from_a_vector(layer: Layer) -> None:
    vector = nn.utils.parameters_to_vector(layer.parameters()).detach()
    nn.utils.vector_to_parameters(1.1 * vector, layer.parameters())


def another_storage(layer: Layer) -> None:
    layer.kernel.output.weight.data = 2 * layer.kernel.output.weight.data


def replaced(layer: Layer) -> None:
    layer.kernel.output.weight = nn.Parameter(2 * layer.kernel.output.weight.detach())


def in_the_same_storage(layer: Layer) -> None:
    weight = layer.kernel.output.weight
    other = nn.Parameter(weight.data)
    with torch.no_grad():
        while other._version < weight._version:
            other.mul_(1.5)
    layer.kernel.output.weight = other


def tied(layer: Layer) -> None:
    other = make()
    layer.kernel.output.weight = other.kernel.output.weight
    silent(layer, maps())
    step(torch.optim.SGD)(other)


def normalised(layer: Layer) -> None:
    nn.utils.parametrizations.weight_norm(layer.kernel.output)
    silent(layer, maps())
    with torch.no_grad():
        layer.kernel.output.parametrizations.weight.original0.mul_(2)


def redrawn(layer: Layer) -> None:
    layer.reset_parameters()


def loaded(part: str, **options: Any) -> Callable[[Layer], object]:
    def change(layer: Layer) -> None:
        state = make(init_size=3).get_submodule(part).state_dict()
        layer.get_submodule(part).load_state_dict(state, **options)

    return change


NAMES = [name for name, _ in make().named_parameters()]
CHANGES: dict[str, Callable[[Layer], object]] = {
    **{name: partial(change_in_place, name=name) for name in NAMES},
    "SGD": step(torch.optim.SGD),
    "Adam": step(torch.optim.Adam),
    "Adam for all at once": step(torch.optim.Adam, foreach=True),
    "RMSprop": step(torch.optim.RMSprop),
    "in inference mode": in_inference_mode,
    "through a view": through_a_view,
    "all at once": all_at_once,
    "from a vector": from_a_vector,
    "another storage": another_storage,
    "replaced": replaced,
    "in the same storage": in_the_same_storage,
    "tied": tied,
    "normalised": normalised,
    "redrawn": redrawn,
    "loaded": loaded(""),
    "loaded by assignment": loaded("", assign=True),
    "kernel loaded": loaded("kernel"),
    "kernel loaded by assignment": loaded("kernel", assign=True),
    "window loaded": loaded("window"),
    "resized": lambda layer: change_resolution_(layer, 2),
    "the paper's width": lambda layer: layer.window.assign_(
        torch.tensor([0.25]), torch.tensor([0.3])
    ),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_layer_renders_anew(
    change: Callable[[Layer], object],
    mode: Callable[..., Any],
    layer: FlexConv1d,
    renderings: Renderings,
) -> None:
    input = maps()
    with mode():
        before = layer(input)
    change(layer)
    expected = fresh(layer, input)
    renderings.since()
    with mode():
        for _ in range(2):
            assert_close(layer(input), expected, rtol=1e-12, atol=1e-12)
    assert renderings.since() == 1
    assert not torch.allclose(before, expected)


def test_a_changed_buffer_renders_anew(renderings: Renderings) -> None:
    layer, input = make(learn_center=False).eval(), maps()
    before = silent(layer, input)
    change_in_place(layer, "window.raw_center")
    assert_close(silent(layer, input), fresh(layer, input))
    assert not torch.allclose(before, silent(layer, input))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_change_inside_a_model_is_noticed(frozen: bool) -> None:
    model = nn.Sequential(SeparableFlexConv1d(2, 2, 9, kernel=SMALL), nn.ReLU(), nn.Dropout())
    model = model.double().eval().requires_grad_(not frozen)
    input = maps()
    silent(model, input)
    model.load_state_dict({name: 1.1 * value for name, value in model.state_dict().items()})
    assert_close(model(input).detach(), fresh(model, input))
    assert_close(silent(model, input), fresh(model, input))


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.train().eval(),
        lambda layer: nn.Sequential(layer).train().eval(),
        lambda layer: layer.to("cpu"),
        lambda layer: layer._cache.clear(),
    ],
)
def test_these_forget(
    change: Callable[[Layer], object], layer: FlexConv1d, renderings: Renderings
) -> None:
    silent(layer, maps())
    change(layer)
    silent(layer, maps())
    assert renderings.since() == 2


def test_a_write_without_a_version_needs_clear(layer: FlexConv1d) -> None:
    input = maps()
    silent(layer, input)
    layer.kernel.output.weight.data.mul_(2)
    layer._cache.clear()
    assert_close(silent(layer, input), fresh(layer, input))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", [lambda m, d: m.to(d), lambda m, d: m.type(d)])
def test_casts_render_anew(way: Callable[..., Any], dtype: torch.dtype, layer: FlexConv1d) -> None:
    expected = silent(layer, maps())
    way(layer, dtype)
    input = maps(dtype)
    output = silent(layer, input)
    assert output.dtype == dtype
    assert_close(output, fresh(layer, input), rtol=0, atol=0)
    layer.double()
    assert silent(layer, maps()).dtype == expected.dtype


def test_autocast_and_full_precision_share_a_kernel(renderings: Renderings) -> None:
    layer = make(dtype=torch.float32).eval()
    input = maps(torch.float32)
    renderings.since()
    with torch.autocast("cpu", torch.bfloat16):
        half = silent(layer, input)
    full = silent(layer, input)
    assert renderings.since() == 1
    assert (half.dtype, full.dtype) == (torch.bfloat16, torch.float32)
    assert_close(full, fresh(layer, input), rtol=0, atol=0)
