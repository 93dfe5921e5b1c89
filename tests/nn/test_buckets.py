"""Buckets of taps: how they follow a window, and compiled layers that use them."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from sizeless import (
    FlexConv1d,
    FlexConv2d,
    change_resolution_,
    refresh_sizes,
)
from sizeless.kernels import MAGNet
from sizeless.nn import FlexConvNd, crop
from sizeless.nn.caching import cached_kernels
from sizeless.nn.crop import EDGE, ROOM, SLACK

from .graphs import Graphs

SMALL = partial(MAGNet, hidden=4, layers=1, input_scale=6.0)
DOUBLE = torch.float64
LADDER = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]

causalities = st.booleans()
taps = st.integers(1, 80).map(lambda n: 2 * n + 1)
sigmas = st.floats(0.005, 3)
centers = st.floats(-1, 1)


# ---- the rule ------------------------------------------------------------------------------------


@given(size=st.integers(0, 128), everything=st.integers(1, 128))
def test_a_rung_is_the_next_of_the_ladder(size: int, everything: int) -> None:
    size = min(size, everything)
    assert crop.rung(size, everything) == min(
        next(rung for rung in LADDER if rung >= size), everything
    )


@given(
    taps=taps,
    sigma=sigmas,
    center=centers,
    causal=causalities,
    low=st.floats(1, 2),
    high=st.floats(1, 2),
)
def test_a_window_that_reaches_farther_keeps_more(
    taps: int, sigma: float, center: float, causal: bool, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    kept = [crop.kept(sigma, center, taps, causal, factor) for factor in (1.0, low, high)]
    assert kept == sorted(kept)
    assert kept[0] <= crop.largest(taps, causal)


@given(
    taps=taps,
    sigma=sigmas,
    center=centers,
    causal=causalities,
    now=st.integers(1, 200) | st.none(),
    room=st.booleans(),
)
def test_the_next_bucket_holds_the_crop_and_stays(
    taps: int, sigma: float, center: float, causal: bool, now: int | None, room: bool
) -> None:
    everything = crop.largest(taps, causal)
    now = None if now is None else min(now, everything)
    place = (sigma, center, taps, causal)
    bucket = crop.next_bucket(now, *place, with_room=room)
    assert crop.kept(*place) <= crop.kept(*place, EDGE) <= bucket <= everything
    assert crop.rung(bucket, everything) == bucket or bucket == now
    assert bucket <= crop.rung(crop.kept(*place, SLACK), everything)
    assert crop.next_bucket(bucket, *place) == bucket


@given(
    taps=taps,
    sigma=sigmas,
    center=st.floats(0, 1),
    causal=causalities,
    swings=st.lists(st.floats(1, 0.999 * SLACK / EDGE), min_size=2, max_size=12),
    start=st.integers(1, 200) | st.none(),
)
def test_a_window_that_moves_to_and_fro_does_not_flap(
    taps: int,
    sigma: float,
    center: float,
    causal: bool,
    swings: list[float],
    start: int | None,
) -> None:
    bucket = None if start is None else min(start, crop.largest(taps, causal))
    buckets = []
    for swing in swings:
        # What counts is how far the window reaches: from the middle tap, or from the last.
        middle = 1 - swing * (1 - center) if causal else swing * center
        bucket = crop.next_bucket(bucket, swing * sigma, middle, taps, causal)
        buckets.append(bucket)
    left = [a for a, b in pairwise(buckets) if a != b]
    assert len(set(left)) == len(left)
    assert buckets[1:] == sorted(buckets[1:])


@given(taps=taps, sigma=sigmas, center=centers, causal=causalities)
def test_a_bucket_with_room_is_not_soon_too_small(
    taps: int, sigma: float, center: float, causal: bool
) -> None:
    bucket = crop.next_bucket(None, sigma, center, taps, causal, with_room=True)
    assert bucket >= crop.kept(sigma, center, taps, causal, ROOM)
    assert bucket >= crop.next_bucket(None, sigma, center, taps, causal)


@given(taps=taps, causal=causalities)
def test_buckets_come_down_with_the_window(taps: int, causal: bool) -> None:
    bucket = crop.largest(taps, causal)
    bucket = crop.next_bucket(bucket, 1e-4, float(causal), taps, causal)
    assert bucket == 1


# ---- layers --------------------------------------------------------------------------------------


def make(ndim: int = 1, largest: Any = 65, **options: Any) -> FlexConvNd:
    first = 10 if options.get("causal") else 11
    options = {"init_size": first, "kernel": SMALL, "dtype": DOUBLE, **options}
    return {1: FlexConv1d, 2: FlexConv2d}[ndim](2, 2, largest, **options)


def scale(model: nn.Module, factor: float) -> None:
    """Make every window of a model wider."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, FlexConvNd):
                module.window.log_sigma.add_(math.log(factor))


KINDS: dict[str, dict[str, Any]] = {
    "centred": {"padding_mode": "circular", "padding": 32, "bias": False},
    "causal": {"causal": True, "largest": 64},
    "two axes": {"ndim": 2, "largest": (33, 25), "groups": 2, "stride": (1, 2)},
    "looking ahead": {"look_ahead": 2, "learn_center": False},
    "causal and looking ahead": {"causal": True, "largest": 64, "look_ahead": 3},
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def maps(layer: FlexConvNd, batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, *(40, 17)[: layer.ndim], dtype=DOUBLE)


@kinds
def test_a_refreshed_bucket_holds_the_kernel(kind: dict[str, Any]) -> None:
    layer = make(**kind)
    for factor in (1.3, 1.3, 1.3, 1.3, 2, 0.4, 0.4, 0.4, 3, 9):
        scale(layer, factor)
        assert layer.refresh_size() == layer.size
        assert all(map(int.__ge__, layer.bucket, layer.size))


def test_only_a_refresh_moves_a_bucket() -> None:
    layer = make()
    before = layer.bucket
    scale(layer, 4)
    layer(maps(layer))
    repr(layer)
    assert layer.size != before == layer.bucket
    layer.refresh_size()
    assert layer.bucket != before


@pytest.mark.parametrize("with_room", [False, True])
def test_copies_have_the_same_bucket(with_room: bool) -> None:
    layer = make()
    scale(layer, 1.2)
    layer.renew_bucket(with_room=with_room)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.bucket == layer.bucket
    assert (layer.bucket > make().bucket) == with_room


def test_what_sets_the_window_chooses_the_bucket() -> None:
    wide = make(init_size=33)
    layer = make()
    assert layer.bucket < wide.bucket
    layer.load_state_dict(wide.state_dict())
    assert layer.bucket == wide.bucket
    nn.Sequential(layer).load_state_dict(nn.Sequential(make()).state_dict(), assign=True)
    assert layer.bucket == make().bucket
    change_resolution_(layer, 0.5)
    assert layer.size <= layer.bucket <= layer.kernel_size == (33,)
    layer.reset_parameters()
    assert layer.size <= layer.bucket < (33,)


# ---- compiled ------------------------------------------------------------------------------------


@pytest.fixture
def graphs() -> Iterator[Graphs]:
    torch.compiler.reset()
    yield Graphs()
    torch.compiler.reset()


def derivatives(output: Tensor, input: Tensor, layer: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output.sin().sum(), (input, *layer.parameters()))


FACTORS = (1, 0.9, 1.1, 1.25, 1.4, 1.2)
"""Widths of a window, of which the last three need the next bucket."""


@kinds
def test_training_recompiles_for_another_bucket_only(kind: dict[str, Any], graphs: Graphs) -> None:
    layer, width = make(**kind), 1.0
    compiled, sizes, buckets = graphs.compile(layer, with_backward=True), [], []
    for factor in FACTORS:
        scale(layer, factor / width)
        width = factor
        sizes.append(layer.refresh_size())
        buckets.append(layer.bucket)
        input = maps(layer).requires_grad_()
        ours, expected = compiled(input), layer(input)
        assert_close(ours, expected)
        assert_close(derivatives(ours, input, layer), derivatives(expected, input, layer))
        assert graphs.since() == (len(buckets) == 1 or buckets[-1] != buckets[-2])
    assert len(set(sizes)) > 2
    assert len(set(buckets[:3])) == len(set(buckets[3:])) == 1
    assert buckets[0] < buckets[-1]


@pytest.mark.parametrize("kind", ["centred", "causal", "two axes"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_follows_the_size_in_one_graph(kind: str, mode: Any, graphs: Graphs) -> None:
    layer, width = make(**KINDS[kind]).eval(), 1.0
    compiled, sizes = graphs.compile(layer), set()
    for factor in FACTORS[:3]:
        scale(layer, factor / width)
        width = factor
        refresh_sizes(layer)
        sizes.add(layer.size)
        with mode():
            for batch in (2, 2):
                input = maps(layer, batch)
                assert_close(compiled(input), layer(input))
    assert len(sizes) == 3
    assert graphs.since() == 1


def test_a_window_that_outgrows_its_bucket_is_cut_there(graphs: Graphs) -> None:
    layer = make().eval()
    compiled, input = graphs.compile(layer), maps(layer)
    scale(layer, 2.5)
    bucket = layer.bucket[0]
    assert layer.size[0] > bucket
    rim = (layer.size[0] - bucket) // 2
    expected = torch.conv1d(input, layer.weight[..., rim:-rim], layer.bias, padding=bucket // 2)
    assert_close(compiled(input), expected)
    refresh_sizes(layer)
    assert_close(compiled(input), layer(input))
    assert graphs.since() == 2


def test_a_loaded_state_is_used_at_once(graphs: Graphs) -> None:
    layer, other = make(), make(init_size=33)
    compiled, input = graphs.compile(layer), maps(layer)
    compiled(input)
    layer.load_state_dict(other.state_dict())
    assert_close(compiled(input), other(input))
    assert graphs.since() == 2


def network() -> nn.Sequential:
    causal = make(causal=True, largest=64, init_size=7)
    return nn.Sequential(make(init_size=9), nn.Tanh(), causal)


def test_a_model_is_compiled_again_once(graphs: Graphs) -> None:
    model = network()
    alone = [copy.deepcopy(model[0]), copy.deepcopy(model[-1])]
    compiled, counts, moves = graphs.compile(model), [], []
    for _ in range(6):
        refresh_sizes(model)
        input = torch.randn(2, 2, 20, dtype=DOUBLE)
        assert_close(compiled(input), model(input))
        counts.append(graphs.since())
        buckets = [layer.bucket for layer in alone]
        for layer in alone:
            refresh_sizes(layer)
        moves.append([layer.bucket for layer in alone] != buckets)
        for each in (model, *alone):
            scale(each, 1.06)
    assert counts == [1, 0, 1, 0, 0, 0]
    # Each on its own, they would have moved at different steps.
    assert moves == [False, False, True, False, True, False]


def test_training_a_compiled_model_is_training_an_eager_one(graphs: Graphs) -> None:
    eager = network()
    model = copy.deepcopy(eager)
    input, target = torch.randn(2, 4, 2, 20, dtype=DOUBLE)
    sizes: dict[nn.Module, list[Any]] = {}
    for module, forward in ((eager, eager), (model, graphs.compile(model, with_backward=True))):
        optimiser = torch.optim.Adam(module.parameters(), lr=0.04)
        sizes[module] = []
        for _ in range(4):
            optimiser.zero_grad()
            (forward(input) - target).square().sum().backward()
            optimiser.step()
            refresh_sizes(module)
            sizes[module].append((module[0].size, module[-1].size))
    assert sizes[eager] == sizes[model]
    assert len(set(sizes[eager])) > 1
    assert_close(model.state_dict(), eager.state_dict())


def test_kept_kernels_are_no_business_of_a_graph(graphs: Graphs) -> None:
    layer = make().eval()
    compiled, input = graphs.compile(layer), maps(layer)
    for _ in range(2):
        with torch.no_grad():
            expected = layer(input)
            assert_close(compiled(input), expected)
        with cached_kernels(layer), torch.no_grad():
            assert_close(compiled(input), expected)
        layer.load_state_dict({name: 1.1 * value for name, value in layer.state_dict().items()})
        layer.renew_bucket()
    assert graphs.since() <= 2
