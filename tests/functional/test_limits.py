"""Bounds and ramps keep their values, and never lose their gradient."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sizeless.functional import clamp_straight_through, ramp
from sizeless.functional.limits import EDGE


def gradient(function, values, *bounds):
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    y = function(x, *bounds)
    (g,) = torch.autograd.grad(y.sum(), x)
    return y.tolist(), g.tolist()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.0, 0.5, 1.0, 1.0]),
        (0.0, None, [0.0, 0.0, 0.5, 1.0, 7.0]),
        (None, 1.0, [-3.0, 0.0, 0.5, 1.0, 1.0]),
        (None, None, [-3.0, 0.0, 0.5, 1.0, 7.0]),
    ],
)
def test_clamp_bounds_the_value_and_passes_the_gradient(low, high, expected):
    values, slopes = gradient(clamp_straight_through, [-3.0, 0.0, 0.5, 1.0, 7.0], low, high)
    assert values == expected
    assert slopes == [1.0] * 5


def test_clamp_takes_one_bound_per_entry():
    x = torch.tensor([0.0, 5.0, 2.0], requires_grad=True)
    low, high = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0, 3.0, 4.0])
    y = clamp_straight_through(x, low, high)
    assert y.tolist() == [1.0, 3.0, 2.0]
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0]


def test_clamp_keeps_the_dtype_of_the_value():
    for dtype in (torch.float32, torch.float64):
        y = clamp_straight_through(torch.zeros(2, dtype=dtype), torch.tensor([1.0, 2.0]).double())
        assert y.dtype == dtype


def test_clamp_does_not_write_to_the_value():
    x = torch.zeros(3)
    assert clamp_straight_through(x, 1.0).tolist() == [1.0] * 3
    assert x.tolist() == [0.0] * 3


def test_ramp_has_a_slope_at_both_ends():
    values, slopes = gradient(ramp, [-2.0, 0.0, 0.25, 1.0, 3.0])
    assert values == [0.0, 0.0, 0.25, 1.0, 1.0]
    assert slopes == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_rounding_does_not_cost_the_ramp_its_slope():
    values, slopes = gradient(ramp, [-0.9 * EDGE, 1 + 0.9 * EDGE, -1.1 * EDGE, 1 + 1.1 * EDGE])
    assert values == [0.0, 1.0, 0.0, 1.0]
    assert slopes == [1.0, 1.0, 0.0, 0.0]


def test_ramp_differentiates_twice_away_from_its_ends():
    x = torch.tensor([-0.5, 0.1, 0.6, 0.9, 1.4], dtype=torch.float64, requires_grad=True)
    assert gradcheck(ramp, x)
    assert gradgradcheck(lambda v: ramp(v).square(), x)


def test_ramp_works_under_vmap():
    x = torch.linspace(-1, 2, 12).reshape(3, 4)
    slopes = torch.func.vmap(torch.func.grad(lambda row: ramp(row).sum()))(x)
    assert torch.equal(torch.func.vmap(ramp)(x), x.clamp(0, 1))
    assert torch.equal(slopes, ((x >= 0) & (x <= 1)).float())


def test_an_infinite_value_ends_at_the_limit() -> None:
    value = torch.tensor([torch.inf, -torch.inf], requires_grad=True)
    limited = clamp_straight_through(value, -1.0, 2.0)
    limited.sum().backward()
    assert limited.tolist() == [2.0, -1.0]
    assert value.grad.isfinite().all()
