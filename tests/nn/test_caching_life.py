"""Kept kernels and copies, transforms, threads and memory."""

from __future__ import annotations

import copy
import pickle
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.testing import assert_close

from sizeless import FlexConv1d, FlexConv2d, change_resolution_
from sizeless.nn import FlexConvNd
from sizeless.nn.caching import cached_kernels

from .caching_tools import SMALL, Renderings, change_in_place, fresh, make, maps, silent
from .layer_tools import Probe, Token

Layer = FlexConvNd


@pytest.fixture
def renderings(monkeypatch: pytest.MonkeyPatch) -> Renderings:
    return Renderings(monkeypatch)


@pytest.fixture
def layer() -> FlexConv1d:
    return make().eval()


# ---- copies, transforms, threads -----------------------------------------------------------------


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_copies_keep_nothing_of_the_original(
    duplicate: Callable[[Layer], Layer], layer: FlexConv1d, renderings: Renderings
) -> None:
    input = maps()
    before = silent(layer, input)
    copied = duplicate(layer)
    assert len(pickle.dumps(layer)) == len(pickle.dumps(copied))
    change_in_place(copied, "kernel.frequency")
    renderings.since()
    assert_close(silent(layer, input), before, rtol=0, atol=0)
    assert renderings.since() == 0
    assert not torch.allclose(silent(copied, input), before)
    assert renderings.since() == 1


def test_a_shallow_copy_is_never_stale(layer: FlexConv1d, renderings: Renderings) -> None:
    input, twin = maps(), copy.copy(layer)
    silent(layer, input)
    renderings.since()
    silent(twin, input)
    assert renderings.since() == 1
    for change in ("kernel.frequency", "window.log_sigma"):
        for each in (layer, twin, layer):
            assert_close(silent(each, input), fresh(each, input))
        change_in_place(twin, change)
    layer.kernel = make().kernel
    assert_close(silent(twin, input), fresh(twin, input))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_functional_calls_use_the_parameters_they_are_given(
    mode: Callable[..., Any], layer: FlexConv1d
) -> None:
    input = maps()
    own = silent(layer, input)
    others = {name: 1.2 * p.detach() for name, p in layer.named_parameters()}
    changed = copy.deepcopy(layer)
    changed.load_state_dict(others)
    expected = silent(changed, input)
    with mode():
        for _ in range(2):
            assert_close(functional_call(layer, others, (input,)), expected)
            assert_close(layer(input), own)
    assert not torch.allclose(own, expected)


def test_vmap_over_the_parameters_of_the_kernel(layer: FlexConv1d) -> None:
    input = maps()
    own = silent(layer, input)
    names = [name for name, _ in layer.named_parameters() if name.startswith("kernel")]
    stacked = {n: torch.stack([layer.get_parameter(n).detach() * s for s in (1, 2)]) for n in names}
    with torch.no_grad():
        outputs = vmap(lambda ensemble: functional_call(layer, ensemble, (input,)))(stacked)
    layer.load_state_dict({name: value[1] for name, value in stacked.items()}, strict=False)
    assert_close(outputs, torch.stack([own, fresh(layer, input)]))
    assert_close(silent(layer, input), outputs[1])


def test_two_threads_agree(layer: FlexConv1d) -> None:
    inputs = [maps() for _ in range(4)]
    expected = [fresh(layer, input) for input in inputs]
    barrier, results = threading.Barrier(4), {}

    def work(index: int) -> None:
        barrier.wait()
        results[index] = [silent(layer, inputs[index]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, output in enumerate(expected):
        assert_close(results[index], [output] * 20, rtol=1e-12, atol=1e-12)


def test_nothing_is_kept_on_the_meta_device(renderings: Renderings) -> None:
    layer = make(device="meta").eval()
    input = maps().to("meta")
    assert [silent(layer, input).is_meta for _ in range(2)] == [True] * 2
    assert renderings.since() == 2
    layer.to_empty(device="cpu").reset_parameters()
    assert_close(silent(layer, maps()).isfinite().all(), torch.tensor(True))


# ---- memory --------------------------------------------------------------------------------------


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Every kernel and basis that is rendered from here on, weakly."""
    tensors = []
    for name in ("_basis", "_product"):
        original = getattr(FlexConvNd, name)

        def watched(layer: Layer, *arguments: Any, original: Any = original) -> Tensor:
            tensor = original(layer, *arguments)
            tensors.append(weakref.ref(tensor))
            return tensor

        monkeypatch.setattr(FlexConvNd, name, watched)
    return tensors


def living(tensors: list[weakref.ref[Tensor]]) -> int:
    return sum(tensor() is not None for tensor in tensors)


def test_a_kernel_is_freed_with_its_layer(rendered: list[weakref.ref[Tensor]]) -> None:
    layer = FlexConv2d(2, 2, 9, kernel=SMALL).eval()
    silent(layer, torch.randn(1, 2, 9, 9))
    assert living(rendered) == 1
    del layer
    assert living(rendered) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: change_in_place(layer, "kernel.gamma"),
        lambda layer: layer.load_state_dict(make().state_dict(), assign=True),
        lambda layer: change_resolution_(layer, 2),
    ],
)
def test_a_kernel_is_freed_when_the_next_is_rendered(
    change: Callable[[Layer], object], layer: FlexConv1d, rendered: list[weakref.ref[Tensor]]
) -> None:
    silent(layer, maps())
    first = rendered[-1]
    assert first() is not None
    change(layer)
    silent(layer, maps())
    assert first() is None
    assert living(rendered) == 1


@pytest.mark.parametrize("change", [Layer.train, Layer.float])
def test_a_kernel_is_freed_when_the_layer_becomes_another(
    change: Callable[[Layer], object], layer: FlexConv1d, rendered: list[weakref.ref[Tensor]]
) -> None:
    silent(layer, maps())
    change(layer)
    assert rendered
    assert living(rendered) == 0


@pytest.mark.parametrize("accumulate", [None, False, True])
def test_no_graph_outlives_a_training_step(
    accumulate: bool | None, rendered: list[weakref.ref[Tensor]]
) -> None:
    layer, token = make(), Token()
    alive = weakref.ref(token)
    sharing = nullcontext() if accumulate is None else cached_kernels(layer, accumulate=accumulate)
    with sharing:
        layer(Probe.apply(maps().requires_grad_(), token)).square().sum().backward()
    del token
    assert alive() is None
    assert rendered
    assert living(rendered) == 0
