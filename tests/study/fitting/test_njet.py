"""The fixed basis of Gaussian derivatives."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from sizeless.study.fitting.njet import fit_njet
from sizeless.study.fitting.targets import Target, target


def axes(taps, ndim=2):
    return [np.linspace(-1.0, 1.0, taps)] * ndim


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_it_has_every_derivative_up_to_its_order(order):
    jet = fit_njet(target("gabor-4", 9), order=order)
    functions = math.comb(order + 2, 2)
    assert jet.coefficients.shape == (functions, 1)
    assert jet.parameters == functions + 1


@pytest.mark.parametrize("width", [0.15, 0.3, 0.8])
def test_it_finds_the_width_of_a_gaussian_derivative(width):
    x = np.linspace(-1, 1, 33)
    gaussian = np.exp(-0.5 * (x / width) ** 2)
    third = (x / width) ** 3 - 3 * x / width
    wanted = Target("third", np.multiply.outer(gaussian, third * gaussian)[None])
    jet = fit_njet(wanted, order=3)
    assert jet.width == pytest.approx(width, rel=0.02)
    np.testing.assert_allclose(jet.render(axes(33)), wanted.values, atol=2e-3)
    assert np.abs(jet.coefficients).argmax() == 3, "orders are sorted by the first axis"


def test_it_is_exact_on_a_line():
    x = np.linspace(-1, 1, 65)
    wanted = Target("line", ((1 + x) * np.exp(-0.5 * (x / 0.25) ** 2))[None])
    jet = fit_njet(wanted, order=1)
    np.testing.assert_allclose(jet.render(axes(65, 1)), wanted.values, atol=1e-4)


def test_higher_orders_never_fit_worse():
    wanted = target("gabor-16", 33)
    errors = [
        np.mean((fit_njet(wanted, order=order).render(axes(33)) - wanted.values) ** 2)
        for order in (2, 4, 6, 9)
    ]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(errors))


def test_it_cannot_follow_noise():
    wanted = target("noise", 33)
    jet = fit_njet(wanted)
    left = np.mean((jet.render(axes(33)) - wanted.values) ** 2) / wanted.variance
    assert left > 1 - 2 * jet.parameters / 33**2


def test_no_width_is_below_a_tap():
    assert fit_njet(target("noise", 9)).width >= 0.25 * (1 - 1e-9)


def test_a_negative_order_is_refused():
    with pytest.raises(ValueError, match="order must be at least 0, got -1"):
        fit_njet(target("noise", 5), order=-1)
