"""Fits of Gaussian profiles: known ellipses, standard errors, contours, and what is no Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from sizeless.nn import NIFFConv2d
from sizeless.study.shapes import profiles
from sizeless.study.shapes import search as profile_search
from sizeless.study.shapes.ellipses import grid_of
from sizeless.study.shapes.fit import fit, too_few

FORMS = ("rotated", "ellipse", "square")
TAPS = (np.arange(-12, 13), np.arange(-10, 11))


def covariance(long, short, angle):
    """Of an ellipse whose long axis is turned counter-clockwise from x, rows running down."""
    turn = np.radians(angle)
    along, across = (
        np.array([-np.sin(turn), np.cos(turn)]),
        np.array([np.cos(turn), np.sin(turn)]),
    )
    return long**2 * np.outer(along, along) + short**2 * np.outer(across, across)


def gaussian(center, sigma, taps=TAPS, height=1.0):
    offsets = grid_of(taps) - center
    distance = np.einsum("ti,ij,tj->t", offsets, np.linalg.inv(sigma), offsets)
    return height * np.exp(-0.5 * distance).reshape([len(axis) for axis in taps])


def profile(form, center, sigma, taps):
    scaled = (grid_of(taps) - center) / sigma
    squares = scaled**2
    distance = squares.max(axis=1) if form == "square" else squares.sum(axis=1)
    return np.exp(-0.5 * distance).reshape([len(axis) for axis in taps])


@settings(max_examples=40)
@given(
    long=st.floats(1.6, 3.5),
    part=st.floats(0.4, 0.9),
    angle=st.floats(-89, 90),
    y=st.floats(-3, 3),
    x=st.floats(-3, 3),
    height=st.sampled_from([1e-6, 1.0, 300.0]),
)
def test_a_gaussian_is_found_exactly(long, part, angle, y, x, height):
    sigma = covariance(long, part * long, angle)
    found = fit(gaussian((y, x), sigma, height=height)[None], TAPS)
    np.testing.assert_allclose(found.ellipses.center[0], (y, x), atol=1e-5)
    np.testing.assert_allclose(found.ellipses.covariance[0], sigma, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.ellipses.principal[0], (long, part * long), rtol=1e-5)
    turned = (found.ellipses.orientation[0] - angle + 90) % 180 - 90
    assert abs(turned) < 1e-3
    assert found.amplitude[0] == pytest.approx(height, rel=1e-5)
    assert found.r2[0] == pytest.approx(1)
    assert found.accepted[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_profile_is_found_in_every_dimension(form, ndim):
    taps = [np.arange(-6, 7), np.arange(-5, 6), np.arange(-7, 8)][:ndim]
    center, sigma = np.array([0.4, -0.7, 1.2])[:ndim], np.array([1.5, 2.0, 1.2])[:ndim]
    found = fit(profile(form, center, sigma, taps)[None], taps, form)
    np.testing.assert_allclose(found.ellipses.center[0], center, atol=1e-4)
    np.testing.assert_allclose(found.ellipses.sigma[0], sigma, rtol=1e-4)


def test_standard_errors_are_the_scatter_of_fits():
    rng = np.random.default_rng(0)
    # So wide that noise turns no sign.
    sigma, center = covariance(9.0, 6.0, 25), np.array([1.0, -2.0])
    kernels = gaussian(center, sigma) + 0.02 * rng.normal(size=(200, 25, 21))
    found = fit(kernels, TAPS)
    assert found.accepted.all()
    for errors, truth, values in (
        (found.center_error, center, found.ellipses.center),
        (found.log_sigma_error, np.log(np.sqrt(np.diag(sigma))), np.log(found.ellipses.sigma)),
    ):
        scores = (values - truth) / errors
        # The standard deviation of 200 such scores scatters by 5 %.
        np.testing.assert_allclose(scores.std(axis=0), 1.0, atol=0.2)
        np.testing.assert_allclose(scores.mean(axis=0), 0.0, atol=0.3)


@pytest.mark.parametrize("form", ["rotated", "ellipse"])
def test_no_other_search_finds_less_error(form):
    """Scipy, from the found place and from many others, on kernels that are no Gaussians."""
    torch.manual_seed(0)
    layer = NIFFConv2d(12, 12, groups=12)
    kernels = np.abs(layer.spatial_kernel(14).detach().double().flatten(0, 1).numpy())
    taps, rng = (np.arange(14) - 7,) * 2, np.random.default_rng(1)
    points, found = grid_of(taps), fit(kernels, taps, form)
    caught = 0
    for place in np.flatnonzero(found.accepted):
        target, peak = kernels[place].ravel(), kernels[place].max()
        least = np.inf
        for _ in range(8):
            center = points[target.argmax()] + rng.normal(size=2)
            width = np.exp(rng.uniform(-1, 2.5))
            start = profiles.vectors(center[None], width * np.eye(2)[None], form)[0]
            other = least_squares(
                lambda p, target=target, peak=peak: (
                    profiles.values(p[None], points, form)[0] - target / peak
                ),
                start,
                jac=lambda p: profiles.slopes(p[None], points, form)[1][0],
                method="lm",
                max_nfev=300,
            )
            least = min(least, 2 * other.cost * peak**2)
        caught += found.squared_error[place] > least * (1 + 1e-4)
    assert found.accepted.sum() >= 10
    assert caught <= 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_derivatives_are_those_of_the_profiles(form, ndim):
    rng = np.random.default_rng(0)
    points = grid_of([np.arange(-3, 4)] * ndim) + 0.01
    params = 0.3 * rng.normal(size=(2, profiles.parameters(form, ndim)))
    values, slopes = profiles.slopes(params, points, form)
    np.testing.assert_allclose(values, profiles.values(params, points, form))
    step = 1e-6
    for place in range(params.shape[1]):
        shift = step * np.eye(params.shape[1])[place]
        ahead, behind = (profiles.values(params + s, points, form) for s in (shift, -shift))
        np.testing.assert_allclose(slopes[..., place], (ahead - behind) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_derivatives_of_widths_are_those_of_the_covariance(form, ndim):
    def log_sigmas(params):
        inverse = np.linalg.inv(profiles.factors(params, ndim, form))
        return 0.5 * np.log(np.square(inverse).sum(axis=1))

    params = 0.5 * np.random.default_rng(0).normal(size=(2, profiles.parameters(form, ndim)))
    slopes = profiles.log_sigma_slopes(profiles.factors(params, ndim, form), form)
    step = 1e-6
    for place in range(params.shape[1]):
        shift = step * np.eye(params.shape[1])[place]
        found = (log_sigmas(params + shift) - log_sigmas(params - shift)) / (2 * step)
        np.testing.assert_allclose(slopes[..., place], found, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_leaving_out_far_taps_changes_nothing(form, monkeypatch):
    rng = np.random.default_rng(2)
    taps = (np.arange(-15, 16),) * 2
    kernels = np.stack(
        [profile("ellipse", rng.normal(size=2), rng.uniform(0.8, 2, size=2), taps) for _ in "abcd"]
    )
    kernels += 0.02 * rng.normal(size=kernels.shape)
    near = fit(kernels, taps, form)
    monkeypatch.setattr(profile_search, "REACH", 1e6)
    everywhere = fit(kernels, taps, form)
    np.testing.assert_allclose(near.squared_error, everywhere.squared_error, rtol=1e-3)
    if form != "square":
        np.testing.assert_allclose(near.ellipses.sigma, everywhere.ellipses.sigma, rtol=1e-3)


def test_contours_tell_squares_from_ellipses():
    rng = np.random.default_rng(3)
    taps = (np.arange(-9, 10),) * 2
    for form in ("ellipse", "square"):
        kernels = np.stack(
            [
                profile(form, rng.uniform(-1, 1, size=2), rng.uniform(1, 2.5, size=2), taps)
                for _ in range(20)
            ]
        )
        kernels += 0.03 * rng.normal(size=kernels.shape)
        elliptic, square = (fit(kernels, taps, f).squared_error for f in ("ellipse", "square"))
        assert ((square < elliptic) == (form == "square")).mean() >= 0.95


def test_a_floor_does_not_count_as_part_of_a_round_kernel():
    """Of what fills the taps, which lie in a square, round contours would be called square."""
    rng = np.random.default_rng(4)
    taps = (np.arange(-10, 11),) * 2
    kernels = gaussian((0, 0), 4 * np.eye(2), taps) + 0.2 * rng.normal(size=(20, 21, 21))
    elliptic, square = (fit(kernels, taps, f).squared_error for f in ("ellipse", "square"))
    assert (square < elliptic).mean() < 0.5


def test_what_is_no_profile_is_marked_and_raises_nothing():
    taps = (np.arange(-4, 5),) * 2
    one = np.zeros((9, 9))
    one[4, 4] = 1.0
    line = np.zeros((9, 9))
    line[:, 4] = 1.0
    ramp = np.broadcast_to(np.linspace(0.0, 1.0, 9), (9, 9))
    kernels = np.stack(
        [np.zeros((9, 9)), np.ones((9, 9)), one, line, ramp, np.full((9, 9), np.nan)]
    )
    found = fit(kernels, taps)
    assert not found.accepted.any()
    for values in (found.ellipses.center, found.amplitude, found.log_sigma_error, found.r2):
        assert np.isnan(values).all()
    assert fit(kernels[:0], taps).r2.shape == (0,)


def test_one_kernel_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(5)
    sigmas = [covariance(3, 1, 20), covariance(1, 0.8, 70), covariance(2, 2, 0)]
    kernels = np.stack([gaussian(rng.normal(size=2), sigma) for sigma in sigmas])
    kernels += 0.01 * rng.normal(size=kernels.shape)
    together = fit(np.concatenate([kernels, 0 * kernels[:1]]), TAPS)
    for place in range(3):
        alone = fit(kernels[place : place + 1], TAPS)
        np.testing.assert_allclose(together.ellipses.sigma[place], alone.ellipses.sigma[0], 1e-4)


def test_sign_does_not_matter_and_height_scales():
    kernel = gaussian((1, 0), covariance(3, 2, 40))[None]
    signs = np.where(np.indices(kernel.shape).sum(axis=0) % 2, -1.0, 1.0)
    found, other = fit(kernel, TAPS), fit(-7 * signs * kernel, TAPS)
    np.testing.assert_allclose(other.ellipses.covariance, found.ellipses.covariance, rtol=1e-6)
    assert other.amplitude[0] == pytest.approx(7 * found.amplitude[0])


def test_widths_of_taps_that_lie_apart_are_in_samples():
    taps = tuple(step * axis for step, axis in zip((3, 12), TAPS, strict=True))
    sigma = np.diag([6.0**2, 30.0**2])
    found = fit(gaussian((3.0, 12.0), sigma, taps)[None], taps)
    np.testing.assert_allclose(found.ellipses.sigma[0], (6, 30), rtol=1e-6)
    np.testing.assert_allclose(found.ellipses.center[0], (3, 12), atol=1e-6)


def test_too_few_taps_are_refused():
    with pytest.raises(ValueError, match="more taps than a profile has parameters, got 6 taps"):
        fit(np.ones((1, 2, 3)), (np.arange(2), np.arange(3)))
    assert too_few((5, 5)) == ""
    assert too_few((3,)) == "3 taps for 3 parameters"
    assert too_few((3, 3, 3)) == ""
