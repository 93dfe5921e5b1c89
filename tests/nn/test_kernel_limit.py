"""Kernels too large to be kept are convolved with as in training, from their factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sizeless import FlexConv1d, cached_kernels
from sizeless.nn import windowed

from .caching_tools import Renderings, make, maps
from .graphs import Graphs

BYTES = 2 * 2 * 5 * 8
"""Of the kernel of ``make``'s layer, which could grow to 9 taps."""


@pytest.fixture
def layer() -> FlexConv1d:
    return make().eval()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the limit."""
    return lambda number: monkeypatch.setattr(windowed, "KERNEL_LIMIT", number)


def rendered(layer: FlexConv1d, input: Tensor) -> Tensor:
    """Output with a kernel that is no part of the layer's memory."""
    return torch.conv1d(input, layer.weight, layer.bias, padding=2).detach()


def refuse(*_: Any) -> Tensor:
    raise AssertionError("the kernel was rendered as a whole")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_kernel_beyond_the_limit_is_neither_rendered_nor_kept(
    mode: Callable[..., Any],
    training: bool,
    layer: FlexConv1d,
    limit: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(BYTES - 1)
    layer.train(training)
    input = maps()
    expected = rendered(layer, input)
    monkeypatch.setattr(type(layer), "_product", refuse)
    with mode():
        for _ in range(2):
            assert_close(layer(input), expected)
    assert layer._cache._kept == {}


def test_a_kernel_at_the_limit_is_rendered_and_kept_until_it_grows(
    layer: FlexConv1d, limit: Callable[[int], None]
) -> None:
    limit(BYTES)
    input = maps()
    with torch.no_grad():
        assert_close(layer(input), rendered(layer, input))
        (kernel,) = layer._cache._kept.values()
        assert kernel.nbytes == BYTES
        layer.window.log_sigma.fill_(0.0)
        layer._cache.clear()
        layer(input)
    assert layer.size == (9,)
    assert layer._cache._kept == {}


def test_a_frozen_layer_passes_gradients_on_beyond_the_limit(
    layer: FlexConv1d, limit: Callable[[int], None]
) -> None:
    limit(BYTES - 1)
    layer.requires_grad_(False)
    input = maps().requires_grad_()
    (mine,) = torch.autograd.grad(layer(input).sin().sum(), input)
    output = torch.conv1d(input, layer.weight, layer.bias, padding=2)
    assert_close(mine, torch.autograd.grad(output.sin().sum(), input)[0])
    assert layer._cache._kept == {}


def test_what_is_shared_on_request_has_no_limit(
    layer: FlexConv1d, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(0)
    renderings = Renderings(monkeypatch)
    with cached_kernels(layer):
        (layer(maps()) + layer(maps())).sum().backward()
    assert renderings.since() == 1


def test_compiled_evaluation_keeps_no_more(layer: FlexConv1d, limit: Callable[[int], None]) -> None:
    limit(BYTES - 1)
    input = maps()
    with torch.no_grad():
        assert_close(Graphs().compile(layer)(input), rendered(layer, input))
    torch._dynamo.reset()
    assert layer._cache._kept == {}
