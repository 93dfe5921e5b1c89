"""Moments of kernels: known shapes, a naive twin, and what turning and scaling do to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sizeless.study.shapes.ellipses import Ellipses, grid_of, moments

SIZES = st.lists(st.integers(2, 6), min_size=1, max_size=3).map(tuple)


@st.composite
def kernels(draw, sizes=SIZES):
    size = draw(sizes)
    values = st.floats(0.1, 3.0)
    return draw(arrays(np.float64, (2, *size), elements=values))


def centred(size):
    return [np.arange(n) - (n - 1) / 2 for n in size]


def naive(kernel, taps, power):
    """By its definition, tap by tap."""
    total, ndim = 0.0, kernel.ndim
    center, covariance = np.zeros(ndim), np.zeros((ndim, ndim))
    for index in np.ndindex(*kernel.shape):
        total += abs(kernel[index]) ** power
    for index in np.ndindex(*kernel.shape):
        place = np.array([taps[axis][i] for axis, i in enumerate(index)])
        center += abs(kernel[index]) ** power / total * place
    for index in np.ndindex(*kernel.shape):
        place = np.array([taps[axis][i] for axis, i in enumerate(index)]) - center
        covariance += abs(kernel[index]) ** power / total * np.outer(place, place)
    return center, covariance


@settings(max_examples=40)
@given(kernel=kernels(), power=st.sampled_from([1, 2]), shift=st.integers(-40, 40))
def test_moments_are_those_of_the_definition(kernel, power, shift):
    taps = [np.arange(n) + shift for n in kernel.shape[1:]]
    found = moments(-kernel, taps, power)
    for place in range(2):
        center, covariance = naive(kernel[place], taps, power)
        np.testing.assert_allclose(found.center[place], center, atol=1e-9)
        np.testing.assert_allclose(found.covariance[place], covariance, atol=1e-9)


@pytest.mark.parametrize("size", [(7,), (4, 9), (3, 5, 8)])
def test_a_box_has_the_width_of_a_uniform_distribution(size):
    found = moments(np.full((1, *size), -0.3), centred(size))
    np.testing.assert_allclose(found.sigma[0], [math.sqrt((n**2 - 1) / 12) for n in size])
    np.testing.assert_allclose(found.center[0], 0, atol=1e-12)


def test_a_gaussian_has_its_own_width():
    taps = centred((41, 61))
    y, x = np.meshgrid(*taps, indexing="ij")
    kernel = np.exp(-0.5 * (((y - 1) / 3) ** 2 + ((x + 2) / 5) ** 2))[None]
    found = moments(kernel, taps)
    np.testing.assert_allclose(found.center[0], (1, -2), atol=1e-4)
    np.testing.assert_allclose(found.sigma[0], (3, 5), rtol=1e-4)
    assert found.log_axes[0] == pytest.approx(math.log(5 / 3), abs=1e-4)
    assert found.log_ratio[0] == pytest.approx(math.log(5 / 3), abs=1e-4)
    np.testing.assert_allclose(
        moments(kernel, taps, 2).sigma, found.sigma / math.sqrt(2), rtol=1e-4
    )


@settings(max_examples=40)
@given(
    kernel=kernels(st.tuples(st.integers(2, 6), st.integers(2, 6))),
    scale=st.sampled_from([-9.0, 0.01, 3.0]),
)
def test_turning_a_kernel_turns_its_ellipse(kernel, scale):
    kernel = kernel * scale
    found = moments(kernel, centred(kernel.shape[1:]))
    transposed = moments(kernel.swapaxes(1, 2), centred(kernel.shape[:0:-1]))
    turned = moments(np.rot90(kernel, axes=(1, 2)), centred(kernel.shape[:0:-1]))
    flipped = moments(kernel[:, ::-1], centred(kernel.shape[1:]))
    for other in (transposed, turned):
        np.testing.assert_allclose(other.log_axes, -found.log_axes, atol=1e-9)
        np.testing.assert_allclose(other.log_ratio, found.log_ratio, atol=1e-9)
        np.testing.assert_allclose(other.principal, found.principal, atol=1e-9)
    np.testing.assert_allclose(transposed.center, found.center[:, ::-1], atol=1e-9)
    # Counter-clockwise, so what pointed right points up.
    np.testing.assert_allclose(turned.center[:, 0], -found.center[:, 1], atol=1e-9)
    np.testing.assert_allclose(turned.center[:, 1], found.center[:, 0], atol=1e-9)
    known = found.log_ratio > 0.01
    for other, expected in (
        (turned, found.orientation + 90),
        (flipped, -found.orientation),
        (transposed, -90 - found.orientation),
    ):
        difference = (other.orientation - expected + 90) % 180 - 90
        np.testing.assert_allclose(difference[known], 0, atol=1e-4)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, -30, -89])
def test_angles_turn_from_right_to_up(angle):
    turn = math.radians(angle)
    # Rows run downward.
    along = np.array([-math.sin(turn), math.cos(turn)])
    found = Ellipses(np.zeros((1, 2)), np.eye(2)[None] + 3 * np.outer(along, along))
    assert found.orientation[0] == pytest.approx(angle)


def test_a_line_has_no_ratio_and_a_circle_no_direction():
    line, point, plus = np.zeros((5, 5)), np.zeros((5, 5)), np.zeros((5, 5))
    line[1, 1:4], point[3, 3] = 1.0, 2.0
    plus[2, 1:4] = plus[1:4, 2] = 1.0
    found = moments(np.stack([line, point, plus, np.eye(5), 0 * point]), centred((5, 5)))
    assert np.isnan(found.log_ratio[[0, 1, 3, 4]]).all()
    assert np.isnan(found.log_axes[[0, 1, 4]]).all()
    assert found.log_ratio[2] == pytest.approx(0, abs=1e-12)
    np.testing.assert_array_equal(np.isnan(found.orientation), [False, True, True, False, True])
    assert found.orientation[3] == pytest.approx(-45)
    np.testing.assert_allclose(found.sigma[:2], [[0, math.sqrt(2 / 3)], [0, 0]])
    assert np.isnan(found.center[4]).all()


def test_one_dimension_has_a_width_and_no_ratio():
    found = moments(np.ones((3, 5)), [np.arange(5)])
    assert np.isnan(found.log_ratio).all()
    assert np.isnan(found.log_axes).all()
    assert np.isnan(found.orientation).all()
    assert np.isnan(found.along(-2)).all()
    np.testing.assert_allclose(found.along(-1), math.sqrt(2))


def test_kernels_that_are_not_finite_have_no_moments():
    found = moments(np.array([[1.0, np.nan, 1.0], [1.0, np.inf, 1.0]]), [np.arange(3)])
    assert np.isnan(found.center).all()
    assert np.isnan(found.sigma).all()
    assert moments(np.zeros((0, 3)), [np.arange(3)]).sigma.shape == (0, 1)


def test_far_from_the_origin_nothing_cancels():
    taps = [np.arange(20000) - 19999]
    kernel = np.zeros((2, 20000))
    kernel[0, 3], kernel[1, 3:5] = 1.0, 1.0
    np.testing.assert_allclose(moments(kernel, taps).sigma[:, 0], [0, 0.5], rtol=1e-6)


def test_points_are_in_the_order_of_a_flattened_kernel():
    points = grid_of([np.array([5, 6]), np.array([1, 2, 3])])
    assert points.tolist() == [[5, 1], [5, 2], [5, 3], [6, 1], [6, 2], [6, 3]]
