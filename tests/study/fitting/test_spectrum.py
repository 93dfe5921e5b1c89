"""Spectra of kernels, and errors between their taps."""

from __future__ import annotations

import numpy as np
import pytest

from sizeless.study.fitting.spectrum import error_between, share_above, square_rings
from sizeless.study.fitting.targets import FINE, Target, target


def wave(taps, *frequencies):
    x = np.linspace(-1, 1, taps)
    values = np.ones(())
    for frequency in frequencies:
        values = np.multiply.outer(values, np.cos(2 * np.pi * frequency * x))
    return values[None]


def naive_rings(values):
    """The mean over each square ring, one frequency at a time."""
    _, n, m = values.shape
    taper = np.hanning(n)[:, None] * np.hanning(m)
    place = np.arange(n)
    found = {}
    for y in range(n):
        for x in range(m):
            total = 0.0
            for channel in values:
                mean = (channel * taper).sum() / taper.sum()
                phase = np.exp(-2j * np.pi * np.add.outer(y * place / n, x * place / m))
                total += abs(((channel - mean) * taper * phase).sum()) ** 2
            ring = max(min(y, n - y), min(x, m - x))
            found.setdefault(ring, []).append(total * (2 / (n - 1)) ** 4)
    return [float(np.mean(found[ring])) for ring in sorted(found)]


def test_rings_are_those_of_the_naive_twin():
    values = np.random.default_rng(0).normal(size=(2, 7, 7))
    frequency, energy = square_rings(values)
    np.testing.assert_allclose(energy, naive_rings(values), rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(frequency, np.arange(4) * 6 / 14)


@pytest.mark.parametrize("frequencies", [(10.0,), (3.0, 10.0), (10.0, 3.0)])
def test_a_wave_peaks_at_the_higher_of_its_frequencies(frequencies):
    frequency, energy = square_rings(wave(129, *frequencies))
    assert frequency[(energy * np.maximum(1, np.arange(len(energy)))).argmax()] == pytest.approx(
        10, abs=0.5
    )


def test_densities_do_not_depend_on_the_grid():
    coarse, fine = (square_rings(target("edges", size).values) for size in (65, 129))
    low = coarse[0] < 4
    found = np.interp(coarse[0][low], *fine)
    np.testing.assert_allclose(found, coarse[1][low], rtol=0.15, atol=1e-9)


@pytest.mark.parametrize(("limit", "share"), [(12.0, 0.0), (8.0, 1.0)])
def test_the_share_above_a_limit(limit, share):
    assert share_above(wave(129, 10.0, 2.0), limit) == pytest.approx(share, abs=1e-3)
    assert share_above(wave(129, 2.0, 10.0), limit) == pytest.approx(share, abs=1e-3)


def test_a_constant_has_no_energy():
    assert share_above(np.ones((2, 9, 9)), 1.0) == 0.0
    assert square_rings(np.ones((1, 9)))[1].max() < 1e-20


def test_the_error_between_taps_leaves_the_taps_out():
    wanted = target("blobs", 9)
    off_taps = wanted.fine.copy()
    off_taps[:, ::FINE, ::FINE] += 100.0
    assert error_between(off_taps, wanted) == 0.0
    between = wanted.fine.copy()
    between[:, 1, 4] += 1.0
    points = wanted.fine[0].size - 81
    variances = [np.var(channel) for channel in wanted.fine]
    assert error_between(between, wanted) == pytest.approx(1 / points / np.mean(variances))


def test_the_error_between_taps_is_unknown_without_a_formula():
    wanted = target("noise", 9)
    assert error_between(np.zeros((1, 33, 33)), wanted) is None


def test_an_alias_agrees_at_the_taps_only():
    nyquist = 4.0
    wanted = Target("low", wave(17, 1.0), wave(65, 1.0), 1.0)
    alias = wave(65, 2 * nyquist - 1.0)
    np.testing.assert_allclose(alias[:, ::FINE], wanted.values, atol=1e-12)
    assert error_between(alias, wanted) > 1.0
    assert share_above(alias, nyquist) > 0.99
    assert share_above(wanted.fine, nyquist) < 0.01
