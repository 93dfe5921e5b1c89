"""One fit of a kernel network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sizeless.study.fitting.fit import CLOSE, bound_of, fit, fit_jet
from sizeless.study.fitting.networks import NETWORKS, make
from sizeless.study.fitting.targets import FINE, target


@pytest.fixture(scope="module")
def easy():
    return target("gabor-4", 17)


def fitted(name, wanted, seed=0, **options):
    network = make(name, wanted.ndim, len(wanted.values), hidden=16, seed=seed)
    return fit(network, wanted, **{"rate": 0.01, "steps": 200, **options}), network


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_follows_a_smooth_kernel(name, easy):
    done, _ = fitted(name, easy)
    assert done.mse < 0.2 * easy.variance
    assert done.mse == pytest.approx(float(np.mean((done.values - easy.values) ** 2)), rel=1e-3)


def test_magnet_comes_close_to_a_smooth_kernel(easy):
    done, _ = fitted("magnet", easy)
    assert done.mse < 1e-3 * easy.variance
    assert done.close.mse <= CLOSE * easy.variance
    assert 0 < done.close.step < 200


def test_a_seed_decides_a_fit_and_the_generators_stay_as_they_were(easy):
    before = torch.get_rng_state()
    first, again, other = (fitted("magnet", easy, seed, steps=20)[0] for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first.values, again.values)
    assert [m.mse for m in first.curve] == [m.mse for m in again.curve]
    assert first.mse != other.mse


def test_the_network_is_left_at_its_lowest_error(easy):
    done, network = fitted("siren", easy, rate=0.1, steps=60)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 17)] * 2, indexing="ij"), dim=-1)
    with torch.no_grad():
        values = network(grid).movedim(-1, 0).numpy()
    np.testing.assert_allclose(values, done.values, atol=1e-4)
    assert done.mse == min(moment.mse for moment in done.curve)


def test_the_curve_never_rises_and_spans_the_fit(easy):
    done, _ = fitted("magnet", easy, rate=0.05, steps=150)
    steps, errors = zip(*((m.step, m.mse) for m in done.curve), strict=True)
    assert steps[0] == 0
    assert steps[-1] == done.steps == 150
    assert list(steps) == sorted(set(steps))
    assert list(errors) == sorted(errors, reverse=True)
    assert errors[-1] == done.mse
    assert len(steps) < 60


def test_no_step_measures_the_network_as_it_was_drawn(easy):
    done, network = fitted("mlp", easy, steps=0)
    drawn = make("mlp", 2, 1, hidden=16)
    for now, before in zip(network.parameters(), drawn.parameters(), strict=True):
        assert torch.equal(now, before)
    assert len(done.curve) == 1
    assert done.close is None


def test_the_fine_grid_holds_the_taps():
    done, _ = fitted("gabor", target("chirp", 5), steps=5)
    assert done.fine.shape == (1, FINE * 64 + 1)
    np.testing.assert_allclose(done.fine[:, ::FINE], done.values, atol=1e-4)


def test_a_fit_that_explodes_ends_with_the_best_there_was(easy):
    done, _ = fitted("magnet", easy, rate=1e30, steps=50)
    assert done.steps < 50
    assert np.isfinite(done.mse)
    assert np.isfinite(done.values).all()


@pytest.mark.parametrize(
    ("name", "known"), [("magnet", True), ("fourier", True), ("siren", False), ("mlp", False)]
)
def test_the_bound_is_given_where_there_is_one(name, known):
    network = make(name, 2, 1)
    bound = bound_of(network)
    assert (bound is not None) == known
    if known:
        assert bound == pytest.approx(network.max_frequency().max().item())


def test_the_fixed_basis_is_reported_as_a_fit_is(easy):
    done = fit_jet(easy)
    assert done.mse == pytest.approx(float(np.mean((done.values - easy.values) ** 2)))
    assert done.mse < CLOSE * easy.variance
    assert done.steps == 0
    assert done.bound is None
    np.testing.assert_allclose(done.fine[:, ::FINE, ::FINE], done.values, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate must be"),
        ({"rate": float("nan")}, "rate must be"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
    ],
)
def test_wrong_fits_are_refused(options, message, easy):
    with pytest.raises(ValueError, match=message):
        fitted("mlp", easy, **options)


def test_a_network_that_does_not_suit_is_refused(easy):
    with pytest.raises(ValueError, match=r"2 coordinates and 1 outputs .* got 1 and 1"):
        fit(make("mlp", 1, 1), easy, rate=0.01, steps=1)
