"""Windows of resampled axes, and the waves that they leave to be learned."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from sizeless.functional import low_pass, low_pass_window, ramp
from sizeless.functional.limits import clamp_straight_through
from sizeless.functional.low_pass import count_waves, cutoff, plain_gains, waves_on_ramp, windowed

DOUBLE = torch.float64
CPU = torch.device("cpu")


def gains_of(size: int, output_size: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return plain_gains((size,), (output_size,), "mean", dtype, CPU)


@pytest.mark.parametrize("size", [5, 8])
def test_every_wave_has_the_weight_of_its_frequency(size: int) -> None:
    gains = gains_of(size, size)
    end, width = torch.tensor([2.5], dtype=DOUBLE), torch.tensor([2.0], dtype=DOUBLE)
    weights = low_pass_window(size // 2 + 1, end - width, width, gains)
    expected = gains * weights.repeat_interleave(2)[1 : size + 1]
    assert_close(windowed(gains, end, width), expected)


def test_the_window_has_derivatives_of_any_order() -> None:
    gains = gains_of(9, 9)
    edges = [torch.tensor([at], dtype=DOUBLE, requires_grad=True) for at in (3.3, 2.1)]
    assert gradcheck(lambda end, width: windowed(gains, end, width), edges)
    assert gradgradcheck(lambda end, width: windowed(gains, end, width), edges)


def test_both_ends_of_the_ramp_are_learned() -> None:
    gains = torch.ones(1, 9, dtype=DOUBLE)
    end = torch.tensor([3.0], dtype=DOUBLE, requires_grad=True)
    width = torch.tensor([2.0], dtype=DOUBLE, requires_grad=True)
    ours = torch.autograd.grad(windowed(gains, end, width).sum(), (end, width))
    cycles = torch.tensor([1, 1, 2, 2, 3, 3, 4, 4], dtype=DOUBLE)
    theirs = torch.autograd.grad(ramp((end - cycles) / width).sum(), (end, width))
    assert_close(ours, theirs)
    assert ours[0] == 3.0


def test_the_cutoff_hears_strides_beyond_their_limits() -> None:
    octaves = torch.tensor([-1.0, 0.5, 9.0], dtype=DOUBLE, requires_grad=True)
    limits = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [8.0, 8.0, 16.0]], dtype=DOUBLE)
    edge = cutoff(octaves, limits)
    expected = limits[2] * (-clamp_straight_through(octaves, limits[0], limits[1])).exp2()
    assert_close(edge, expected)
    assert_close(
        torch.autograd.grad(edge.sum(), octaves), torch.autograd.grad(expected.sum(), octaves)
    )
    inside = torch.tensor([0.3, 0.5, 1.7], dtype=DOUBLE, requires_grad=True)
    assert gradcheck(lambda each: cutoff(each, limits), inside)
    assert gradgradcheck(lambda each: cutoff(each, limits), inside)


@pytest.mark.parametrize("known", [True, False])
@given(
    size=st.integers(1, 40),
    output_size=st.integers(1, 40),
    end=st.floats(-5, 60) | st.integers(0, 40).map(float),
    width=st.floats(0.5, 20) | st.integers(1, 20).map(float),
    room=st.floats(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_no_wave_that_learns_is_left_out(
    known: bool,
    size: int,
    output_size: int,
    end: float,
    width: float,
    room: float,
    dtype: torch.dtype,
) -> None:
    gains = gains_of(size, output_size, dtype)
    edges = [torch.tensor([edge], dtype=dtype, requires_grad=True) for edge in (end, width)]
    count = count_waves(size, output_size)
    with pytest.MonkeyPatch.context() as patch:
        # As in a graph, where the values are not known.
        patch.setattr(low_pass, "tensors_last", lambda: known)
        (learned,) = waves_on_ramp(edges, [width * room], [count])
    rows = windowed(gains, *edges)[0]
    jacobian = torch.stack(
        [torch.autograd.grad(row, edges[0], retain_graph=True)[0] for row in rows]
    )
    moving = set(jacobian.flatten().nonzero().flatten().tolist())
    assert moving <= set(learned.tolist()) <= set(range(count))
    assert len(learned) <= 2 * (math.floor(width * room * 1.001 + 0.1) + 1)
