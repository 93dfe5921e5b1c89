"""DiffStride compiled, and what it keeps in evaluation."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from sizeless import DiffStride1d, DiffStride2d, DiffStride3d, refresh_sizes
from sizeless.functional.resampling import MATRIX_LIMIT, Resampling
from sizeless.functional.separable import Waves
from sizeless.nn import DiffStrideNd
from sizeless.nn.diffstride import HYSTERESIS, MOST_KEPT

from .caching_tools import silent
from .graphs import Graphs

LAYERS = {1: DiffStride1d, 2: DiffStride2d, 3: DiffStride3d}
DOUBLE = torch.float64

dimensions = pytest.mark.parametrize("ndim", [1, 2, 3])
rules = pytest.mark.parametrize("rule", ["exact", "paper"])


def make(ndim: int = 1, stride: float = 2.0, rule: str = "exact", **options: Any) -> DiffStrideNd:
    return LAYERS[ndim](stride, size_rule=rule, **{"dtype": DOUBLE, **options})


def maps(ndim: int = 1, size: int = 32, batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, *[size] * ndim, dtype=DOUBLE)


def set_stride(layer: DiffStrideNd, stride: float) -> None:
    with torch.no_grad():
        layer.log2_stride.fill_(math.log2(stride))


# ---- compiled ------------------------------------------------------------------------------------


@pytest.fixture
def graphs() -> Iterator[Graphs]:
    torch.compiler.reset()
    yield Graphs()
    torch.compiler.reset()


def same_derivatives(layer: nn.Module, compiled: Any, input: Tensor) -> None:
    """Check a compiled layer against an eager one, and the gradients of all."""
    input = input.requires_grad_()
    outputs = compiled(input), layer(input)
    assert_close(*outputs)
    parts = input, *layer.parameters()
    assert_close(*(torch.autograd.grad(output.sin().sum(), parts) for output in outputs))


@rules
@pytest.mark.parametrize("ndim", [1, 2])
def test_training_recompiles_for_another_output_size_only(
    ndim: int, rule: str, graphs: Graphs
) -> None:
    layer, sizes, counts = make(ndim, rule=rule), [], []
    compiled = graphs.compile(layer, with_backward=True)
    for samples in (15.7, 15.5, 15.3, 17.7, 17.4):
        set_stride(layer, 32 / samples)
        refresh_sizes(layer)
        sizes.append(layer.output_size(32)[0])
        same_derivatives(layer, compiled, maps(ndim))
        counts.append(graphs.since())
    assert sizes == ([16] * 3 + [18] * 2 if rule == "exact" else [24] * 3 + [26] * 2)
    assert counts == [1, 0, 0, 1, 0]


@pytest.mark.parametrize(("ndim", "shared"), [(2, True), (3, False)])
def test_a_compiled_layer_equals_an_eager_one(ndim: int, shared: bool, graphs: Graphs) -> None:
    layer = make(ndim, 1.7, shared=shared, max_stride=4.0)
    compiled = graphs.compile(layer, with_backward=True)
    same_derivatives(layer, compiled, maps(ndim, 11))
    layer.eval()
    with torch.no_grad():
        input = maps(ndim, 11)
        assert_close(compiled(input), layer(input))


def output_size(layer: DiffStrideNd, size: int, shift: float) -> int:
    """Output size by the words of the docstring, were the unrounded one larger by ``shift``."""
    unrounded = size / layer.stride[0] + shift
    if layer.size_rule == "exact":
        return math.ceil(unrounded - 1e-4)
    return min(2 * math.ceil(layer.smoothness + unrounded / 2 - 1e-4) - size % 2, size)


@rules
@given(strides=st.lists(st.floats(1.6, 2.6), min_size=2, max_size=10), size=st.integers(30, 41))
@settings(max_examples=40)
def test_a_size_of_a_graph_moves_only_with_room(rule: str, strides: list[float], size: int) -> None:
    layer = make(1, strides[0], rule)
    now = layer._compiled_size(layer._revision, size)[0]
    assert now == layer.output_size(size)[0]
    revision = layer._revision
    for stride in strides:
        set_stride(layer, stride)
        layer.refresh_size()
        least, most = (output_size(layer, size, sign * HYSTERESIS) for sign in (-1, 1))
        before, now = now, layer._compiled_size(layer._revision, size)[0]
        assert now == min(max(before, least), most)
        assert layer._revision - revision == (now != before)
        revision = layer._revision


@given(swings=st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=10), samples=st.integers(12, 20))
@settings(max_examples=40)
def test_a_stride_at_a_boundary_does_not_flap(swings: list[float], samples: int) -> None:
    layer = make()
    layer._compiled_size(layer._revision, 32)
    sizes = []
    for swing in swings:
        set_stride(layer, 32 / (samples + swing))
        layer.refresh_size()
        sizes.append(layer._compiled_size(layer._revision, 32)[0])
    assert len(set(sizes)) == 1
    assert abs(sizes[0] - samples) <= 1


def test_at_a_boundary_the_window_follows_and_the_size_stays(graphs: Graphs) -> None:
    layer = make()
    compiled = graphs.compile(layer)
    for stride in (2.0, 1.995, 2.005, 1.99, 2.0):
        set_stride(layer, stride)
        layer.refresh_size()
        input = maps()
        window = layer._window((32,))
        options = {"amplitude": "mean", "method": "auto", "dtype": DOUBLE, "device": input.device}
        expected = Resampling((32,), (16,), window, **options)(input)
        assert_close(compiled(input), expected)
    assert layer.output_size(32) == (16,)
    assert graphs.since() == 1


def test_without_a_refresh_a_graph_keeps_its_size(graphs: Graphs) -> None:
    layer = make()
    compiled, input = graphs.compile(layer), maps()
    assert compiled(input).shape[2] == 16
    set_stride(layer, 1.5)
    assert compiled(input).shape[2] == 16
    refresh_sizes(layer)
    assert_close(compiled(input), layer(input))
    assert compiled(input).shape[2] == 22
    assert graphs.since() == 2


def test_every_size_of_map_has_its_graph(graphs: Graphs) -> None:
    layer = make()
    compiled = torch.compile(layer, backend=graphs, fullgraph=True, dynamic=False)
    for size in (32, 21, 32, 21):
        input = maps(size=size)
        assert_close(compiled(input), layer(input))
    assert graphs.since() == 2
    set_stride(layer, 1.5)
    refresh_sizes(layer)
    for size in (32, 21, 32, 21):
        input = maps(size=size)
        assert_close(compiled(input), layer(input))
    assert graphs.since() == 2


@pytest.mark.parametrize("ndim", [1, 2])
def test_one_graph_for_every_batch(ndim: int, graphs: Graphs) -> None:
    layer = make(ndim)
    compiled = graphs.compile(layer, with_backward=True)
    for batch in (3, 5, 9, 4):
        input = maps(ndim, batch=batch)
        torch._dynamo.mark_dynamic(input, 0)
        same_derivatives(layer, compiled, input)
    assert graphs.since() == 1


@rules
def test_a_loaded_or_reset_stride_is_used_at_once(rule: str, graphs: Graphs) -> None:
    layer, other = make(rule=rule), make(1, 1.5, rule)
    compiled, input = graphs.compile(layer), maps()
    before = compiled(input)
    layer.load_state_dict(other.state_dict())
    assert_close(compiled(input), other(input))
    layer.reset_parameters()
    assert_close(compiled(input), before)
    assert graphs.since() <= 3


# ---- kept in evaluation --------------------------------------------------------------------------


class Made:
    """Counter of the matrices that are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = Waves.matrix

        def counted(waves: Waves, gain: Tensor) -> Tensor:
            self.count += 1
            return original(waves, gain)

        monkeypatch.setattr(Waves, "matrix", counted)

    def since(self) -> int:
        """Matrices since the last question."""
        count, self.count = self.count, 0
        return count


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


@dimensions
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_matrices_are_made_once(ndim: int, mode: Callable[..., Any], made: Made) -> None:
    layer = make(ndim)
    input = maps(ndim, 12)
    expected = layer(input).detach()
    made.since()
    with mode():
        for _ in range(3):
            assert_close(layer(input), expected)
    assert made.since() == ndim


def test_training_keeps_nothing(made: Made) -> None:
    layer = make()
    for _ in range(3):
        layer(maps()).sum().backward()
    # One there and one back, each time.
    assert made.since() == 6
    assert layer._resamplings == {}


@rules
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_another_stride_makes_others(rule: str, mode: Callable[..., Any], made: Made) -> None:
    layer, input = make(rule=rule), maps()
    outputs = []
    for stride in (2.0, 2.0 + 1e-7, 1.7, 2.0):
        set_stride(layer, stride)
        expected = layer(input).detach()
        made.since()
        with mode():
            for _ in range(2):
                outputs.append(layer(input))
                assert_close(outputs[-1], expected, rtol=1e-12, atol=1e-12)
        assert made.since() == (len(outputs) < 8)
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.load_state_dict(make(1, 1.5).state_dict()),
        lambda layer: layer.load_state_dict(make(1, 1.5).state_dict(), assign=True),
        lambda layer: setattr(layer, "log2_stride", nn.Parameter(torch.zeros(1, dtype=DOUBLE))),
        lambda layer: layer.log2_stride.data.mul_(0.5),
        lambda layer: torch.optim.Adam(layer.parameters(), 0.1, fused=True).step(),
    ],
)
def test_however_the_stride_changes(change: Callable[[DiffStrideNd], object]) -> None:
    layer, input = make(), maps()
    layer(input).square().sum().backward()
    before = silent(layer, input)
    change(layer)
    output = silent(layer, input)
    assert_close(output, layer(input).detach())
    assert output.shape != before.shape or not torch.allclose(output, before)


def test_functional_calls_use_the_stride_they_are_given() -> None:
    layer, input = make(), maps()
    own = silent(layer, input)
    given = {"log2_stride": torch.full((1,), 0.7, dtype=DOUBLE)}
    with torch.no_grad():
        ours = functional_call(layer, given, (input,))
    layer.load_state_dict(given)
    assert_close(ours, layer(input).detach())
    assert ours.shape != own.shape


def test_maps_and_dtypes_keep_apart(made: Made) -> None:
    layer = make(dtype=torch.float32)
    kinds = [(32, torch.float32), (21, torch.float32), (32, DOUBLE), (32, torch.bfloat16)]
    for repeated in (False, True):
        made.since()
        for size, dtype in kinds:
            input = maps(size=size).to(dtype)
            expected = layer(input.double())
            output = silent(layer, input)
            assert output.dtype == dtype
            error = {torch.bfloat16: 4e-2, torch.float32: 1e-5, DOUBLE: 1e-12}[dtype]
            assert_close(output.double(), expected.detach(), rtol=error, atol=error)
        # The first of each pair is the eager reference; bfloat16 shares the gains of float32.
        assert made.since() == (4 if repeated else 8)


def test_autocast_has_its_own_matrices() -> None:
    layer, input = make(dtype=torch.float32), maps().float()
    full = silent(layer, input)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert silent(layer, input).dtype == torch.bfloat16
        assert_close(silent(layer, input), full, rtol=0, atol=0)


@given(sizes=st.lists(st.integers(8, 40), min_size=1, max_size=30))
@settings(max_examples=10)
def test_what_is_kept_is_bounded(sizes: list[int]) -> None:
    layer = make()
    for size in sizes:
        input = maps(size=size)
        assert_close(silent(layer, input), layer(input).detach())
        assert 1 <= len(layer._resamplings) <= MOST_KEPT


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_copies_are_empty(duplicate: Callable[[DiffStrideNd], DiffStrideNd]) -> None:
    layer, input = make(), maps()
    empty = len(pickle.dumps(layer))
    expected = silent(layer, input)
    assert layer._resamplings
    assert len(pickle.dumps(layer)) == empty
    copied = duplicate(layer)
    assert copied._resamplings == {}
    assert_close(silent(copied, input), expected, rtol=0, atol=0)
    assert len(layer._resamplings) == len(copied._resamplings) == 1


@pytest.mark.parametrize("size", [32, MATRIX_LIMIT + 1])
def test_inference_mode_leaves_nothing_that_others_cannot_use(size: int) -> None:
    layer, input = make(), maps(size=size)
    with torch.inference_mode():
        expected = layer(input).clone()
    assert_close(silent(layer, input), expected.clone())
    output = layer(input.requires_grad_())
    assert_close(output, expected.clone())
    output.sum().backward()
    assert layer.log2_stride.grad is not None
    with torch.no_grad():
        kept = layer.resampling(input)
    layer(input, kept).sum().backward()


def test_one_resampling_serves_several_maps(made: Made) -> None:
    layer, inputs = make(), [maps() for _ in range(3)]
    expected = [layer(input).detach() for input in inputs]
    made.since()
    with torch.no_grad():
        kept = layer.resampling(inputs[0])
    assert_close([layer(input.requires_grad_(), kept) for input in inputs], expected)
    assert made.since() == 1
