"""Each method of each product against torch's own convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from sizeless.functional import spectral
from sizeless.functional.blocks import cut
from sizeless.functional.correlation import correlate
from sizeless.functional.factored import correlate_factored, render
from sizeless.functional.fft import good_length
from sizeless.functional.geometry import Geometry, geometry_of

METHODS = ("direct", "channels_last", "fft")
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.double, requires_grad=True)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Geometry, Tensor, Tensor]:
    ndim = draw(st.integers(1, 3))
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    size = [draw(st.integers(1, (40, 14, 8)[ndim - 1])) for _ in range(ndim)]
    kernel = [draw(st.integers(1, (12, 6, 4)[ndim - 1])) for _ in range(ndim)]
    amounts, dilation = [], []
    for n, k in zip(size, kernel, strict=True):
        step = draw(st.integers(1, 2))
        pair = [draw(st.integers(0, 9)) for _ in range(2)]
        pair[0] += max(step * (k - 1) + 1 - n - sum(pair), 0)
        amounts.append((pair[0], pair[1]))
        dilation.append(step)
    stride = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    input = random(draw(st.integers(1, 3)), groups * inputs, *size)
    weight = random(groups * outputs, inputs, *kernel)
    geometry = geometry_of(input, weight, stride, tuple(dilation), tuple(amounts), groups)
    return geometry, input, weight


def expected(geometry: Geometry, input: Tensor, weight: Tensor) -> Tensor:
    flat = [amount for pair in reversed(geometry.amounts) for amount in pair]
    convolution: Callable[..., Tensor] = CONVOLUTIONS[geometry.ndim]
    return convolution(
        F.pad(input, flat), weight, None, geometry.stride, 0, geometry.dilation, geometry.groups
    )


def assert_equal(actual: Any, wanted: Any) -> None:
    for mine, theirs in zip(actual, wanted, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_method_and_gradient(problem: tuple[Geometry, Tensor, Tensor]) -> None:
    geometry, input, weight = problem
    reference = expected(geometry, input, weight)
    grad = torch.randn_like(reference)
    wanted = torch.autograd.grad(reference, (input, weight), grad)
    for method in METHODS:
        output = correlate(input, weight, geometry, method)
        assert_equal([output], [reference])
        assert_equal(torch.autograd.grad(output, (input, weight), grad), wanted)
        alone = correlate(input, weight.detach(), geometry, method)
        assert_equal(torch.autograd.grad(alone, input, grad), wanted[:1])
        alone = correlate(input.detach(), weight, geometry, method)
        assert_equal(torch.autograd.grad(alone, weight, grad), wanted[1:])


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 5), st.booleans(), st.sampled_from((200, 2000, 1 << 24)))
def test_blocks_of_any_length_in_chunks_of_any_size(
    problem: tuple[Geometry, Tensor, Tensor], extra: int, odd: bool, workspace: int
) -> None:
    geometry, input, weight = problem
    reference = expected(geometry, input, weight)
    grad = torch.randn_like(reference)
    wanted = torch.autograd.grad(reference, (input, weight), grad)
    lengths = tuple(
        reach + 1 + extra if odd else good_length(reach + 1 + extra) for reach in geometry.reach
    )
    blocks = cut(geometry, lengths)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(spectral, "WORKSPACE", workspace)
        assert_equal([spectral.output(input, weight, geometry, blocks)], [reference])
        assert_equal(spectral.gradients(grad, input, weight, geometry, blocks), wanted)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 4), st.sampled_from((500, 1 << 24)))
def test_factored_kernels_equal_rendered_ones(
    problem: tuple[Geometry, Tensor, Tensor], functions: int, workspace: int
) -> None:
    geometry, input, weight = problem
    coefficients, basis = random(*weight.shape[:2], functions), random(functions, *weight.shape[2:])
    parts = (input, coefficients, basis)
    reference = expected(geometry, input, render(coefficients, basis))
    grad = torch.randn_like(reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sizeless.functional.factored.WORKSPACE", workspace)
        output = correlate_factored(*parts, geometry)
        assert_equal([output], [reference])
        gradients = torch.autograd.grad(output, parts, grad)
    assert_equal(gradients, torch.autograd.grad(reference, parts, grad))


def plain(method: str) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    input, weight = random(2, 4, 6, 5), random(6, 2, 3, 2)
    geometry = geometry_of(input, weight, (1, 1), (1, 1), ((1, 1), (1, 0)), 2)
    return lambda x, w: correlate(x, w, geometry, method), (input, weight)


def factored() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    parts = random(2, 4, 6, 5), random(6, 2, 3), random(3, 3, 2)
    geometry = geometry_of(parts[0], (6, 2, 3, 2), (1, 1), (1, 1), ((1, 1), (1, 0)), 2)
    return lambda x, a, b: correlate_factored(x, a, b, geometry), parts


CASES = [(lambda m=method: plain(m)) for method in METHODS] + [factored]


@pytest.mark.parametrize("case", CASES, ids=[*METHODS, "factored"])
class TestTransforms:
    def test_second_derivatives(self, case: Any) -> None:
        function, parts = case()
        assert gradcheck(function, parts)
        assert gradgradcheck(function, parts)

    def test_compiles_as_one_graph(self, case: Any) -> None:
        function, parts = case()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        gradients = torch.autograd.grad(compiled(*parts).sin().sum(), parts)
        assert_equal(gradients, torch.autograd.grad(function(*parts).sin().sum(), parts))

    @pytest.mark.parametrize("shared", [None, 0, 1])
    def test_vmap_of_gradients(self, case: Any, shared: int | None) -> None:
        function, parts = case()
        places = tuple(None if index == shared else 0 for index in range(len(parts)))
        many = [
            part.detach() if place is None else torch.randn(3, *part.shape, dtype=torch.double)
            for part, place in zip(parts, places, strict=True)
        ]
        wanted_of = tuple(range(len(parts)))
        gradient = torch.func.grad(lambda *p: function(*p).square().sum(), wanted_of)
        together = torch.func.vmap(gradient, places)(*many)
        for row in range(3):
            own = [
                part if place is None else part[row]
                for part, place in zip(many, places, strict=True)
            ]
            assert_equal([each[row] for each in together], gradient(*own))


def test_memory_does_not_grow_with_all_pairs_of_channels() -> None:
    """The largest tensor made on the way is far below the spectra of all kernels."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple) else (result,):
                if isinstance(value, Tensor):
                    largest = max(largest, value.numel() * value.element_size())
            return result

    channels, length = 32, 4096
    input, weight = torch.randn(1, channels, length), torch.randn(channels, channels, length)
    geometry = geometry_of(input, weight, (1,), (1,), ((length - 1, 0),), 1)
    blocks = cut(geometry, (8192,))
    with Watch(), torch.no_grad():
        spectral.output(input, weight, geometry, blocks)
        spectral.gradients(torch.randn_like(input), input, weight, geometry, blocks)
    spectra = 8 * channels**2 * blocks.frequencies
    assert 0 < largest <= max(spectral.WORKSPACE, 4 * weight.numel()) < spectra / 1.9


@pytest.mark.parametrize("method", ["auto", "direct", "channels_last", "fft"])
@pytest.mark.parametrize(("shape", "groups"), [((2, 4, 9, 8), 4), ((2, 4, 6, 5, 7), 1)])
def test_operators_lay_out_their_results_as_compilers_are_told(method, shape, groups):
    ndim = len(shape) - 2
    input, weight = torch.randn(shape), torch.randn(4, 4 // groups, *(3,) * ndim)
    one = [1] * ndim
    layout = (one, one, one, one, groups, method)
    ops = torch.ops.sizeless
    for node, arguments in (
        (ops.correlate, (input, weight)),
        (ops.correlate_gradients, (torch.randn(shape), input, weight)),
        (ops.correlate_input_gradient, (torch.randn(shape), weight, list(shape[2:]))),
        (ops.correlate_weight_gradient, (torch.randn(shape), input, [3] * ndim)),
    ):
        torch.library.opcheck(node.default, (*arguments, *layout), test_utils="test_faketensor")
