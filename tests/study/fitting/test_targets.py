"""Targets are the functions that they are said to be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sizeless.study.fitting.targets import (
    BLOB_WIDTHS,
    CHIRP_END,
    EDGE_WIDTHS,
    FINE,
    LONG,
    ORIENTATIONS,
    TARGETS,
    read_target,
    target,
)

ANALYTIC = [name for name, recipe in TARGETS.items() if recipe.highest is not None]


def peak_frequencies(values):
    """Place of the largest magnitude of the spectrum on each axis, in cycles per unit."""
    taps, padded = values.shape[0], 4096
    along = [np.abs(np.fft.rfft(values, padded, axis=axis)).max(axis=1 - axis) for axis in (0, 1)]
    return [spectrum.argmax() / padded * (taps - 1) / 2 for spectrum in along]


@pytest.mark.parametrize("name", TARGETS)
def test_targets_have_the_shape_and_scale_they_should(name):
    made = target(name, 17)
    taps = 17 if made.ndim == 2 else LONG * 16 + 1
    assert made.values.shape == (len(made.values), *[taps] * made.ndim)
    assert made.nyquist == (taps - 1) / 4
    assert np.isfinite(made.values).all()
    assert 0.5 < np.abs(made.values).max() <= 1.0 + 1e-12
    assert made.variance == pytest.approx(
        np.mean([np.var(channel) for channel in made.values]), rel=1e-12
    )


@pytest.mark.parametrize("name", ANALYTIC)
def test_the_fine_grid_holds_the_taps(name):
    made = target(name, 9)
    every = (slice(None), *[slice(None, None, FINE)] * made.ndim)
    np.testing.assert_allclose(made.fine[every], made.values, atol=1e-12)
    assert made.fine.shape[1] == FINE * (made.taps - 1) + 1


@pytest.mark.parametrize("name", sorted(set(TARGETS) - set(ANALYTIC)))
def test_targets_without_a_formula_are_known_at_the_taps_only(name):
    made = target(name, 9)
    assert made.fine is None
    assert made.highest is None


@pytest.mark.parametrize("nu", [16, 64])
def test_patterns_peak_at_their_frequency_on_both_axes(nu):
    expected = nu * 0.5 / (2 * math.pi)
    made = target(f"gabor-{nu}", 33)
    assert made.highest < made.nyquist
    for found in peak_frequencies(made.values[0]):
        assert found == pytest.approx(expected, abs=0.1)


def test_a_pattern_above_the_nyquist_frequency_shows_its_alias():
    true, made = 64 * 0.5 / (2 * math.pi), target("gabor-64", 17)
    assert true > made.nyquist
    sampling = 2 * made.nyquist
    for found in peak_frequencies(made.values[0]):
        assert found == pytest.approx(sampling - true, abs=0.1)
    for found in peak_frequencies(made.fine[0]):
        assert found == pytest.approx(true, abs=0.1)


@pytest.mark.parametrize("name", [name for name in ANALYTIC if name != "chirp"])
def test_next_to_no_energy_lies_above_the_highest_frequency(name):
    made = target(name, 33)
    frequency = np.abs(np.fft.fftfreq(made.fine.shape[1], 2 / (made.fine.shape[1] - 1)))
    # The patterns do not quite end in zeros: their jumps there have all frequencies.
    energy = (np.abs(np.fft.fftn(made.fine, axes=(1, 2))) ** 2).sum(axis=0)
    above = np.maximum.outer(frequency, frequency) > made.highest
    assert energy[above].sum() / energy.sum() < 5e-3
    assert energy[np.maximum.outer(frequency, frequency) > made.highest / 3].sum() > 0


def test_the_chirp_ends_with_its_highest_frequency():
    fine = target("chirp", 65).fine[0]
    crossings = np.count_nonzero(np.diff(np.sign(fine[-len(fine) // 10 :])))
    # Over the last 0.2 units the frequency rises by a tenth.
    assert crossings == pytest.approx(2 * 0.2 * 0.95 * CHIRP_END, abs=1)


def test_edges_are_odd_along_their_direction_and_turn_with_it():
    bank = target("edges", 33).values.reshape(len(EDGE_WIDTHS), len(ORIENTATIONS), 33, 33)
    np.testing.assert_allclose(bank[:, 0], -bank[:, 0, :, ::-1], atol=1e-12)
    np.testing.assert_allclose(bank[:, 0], bank[:, 2].swapaxes(1, 2), atol=1e-12)
    np.testing.assert_allclose(bank[:, 1], bank[:, 3, :, ::-1], atol=1e-12)


def test_blobs_are_laplacians_of_gaussians():
    size = 129
    x = np.linspace(-1, 1, size)
    step = x[1] - x[0]
    for blob, width in zip(target("blobs", size).values, BLOB_WIDTHS, strict=True):
        gaussian = np.exp(-0.5 * np.add.outer(x**2, x**2) / width**2)
        laplacian = sum(
            (np.roll(gaussian, 1, axis) - 2 * gaussian + np.roll(gaussian, -1, axis)) / step**2
            for axis in (0, 1)
        )
        inside = (slice(1, -1), slice(1, -1))
        expected = laplacian[inside] / laplacian[size // 2, size // 2]
        np.testing.assert_allclose(blob[inside], expected, atol=0.01)


def test_noise_is_the_same_each_time_and_flat():
    noise = target("noise", 65).values
    np.testing.assert_array_equal(noise, target("noise", 65).values)
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.var() == pytest.approx(1 / 3, rel=0.05)
    neighbours = np.corrcoef(noise[0, :, 1:].ravel(), noise[0, :, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.05


def test_a_photograph_keeps_its_picture_at_every_size():
    coarse, fine = target("china", 33).values[0], target("china", 99).values[0]
    pooled = fine.reshape(33, 3, 33, 3).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), pooled.ravel())[0, 1] > 1 - 1e-9
    assert abs(coarse.mean()) < 1e-12


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("gabor", 33, "target must be one of gabor-1, .*, got 'gabor'"),
        ("noise", 32, "size must be odd.*got 32"),
        ("noise", 3, "size must be at least 5, got 3"),
        ("china", 265, "size must be at most 264 for the target china, got 265"),
    ],
)
def test_wrong_targets_are_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        target(name, size)


@pytest.mark.parametrize("shape", [(6,), (5, 5), (2, 7, 7)])
def test_a_file_is_a_target(shape, tmp_path):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "mine.npy", values)
    made = read_target(tmp_path / "mine.npy")
    assert made.name == "mine"
    assert made.ndim == (1 if len(shape) == 1 else 2)
    assert np.abs(made.values).max() == 1.0
    np.testing.assert_allclose(made.values.reshape(shape), values / np.abs(values).max())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((5, 6)), "of shape"),
        (np.zeros((4, 4)), "of shape"),
        (np.zeros((2, 2, 5, 5)), "of shape"),
        (np.zeros((5, 5)), "not all equal"),
        (np.full((5, 5), np.nan), "finite"),
        (np.ones((5, 5), dtype=complex), "real numbers"),
        (np.zeros((0, 5, 5)), "finite"),
    ],
)
def test_a_file_of_something_else_is_refused(values, message, tmp_path):
    np.save(tmp_path / "mine.npy", values)
    with pytest.raises(ValueError, match=message):
        read_target(tmp_path / "mine.npy")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.npy cannot be read"):
        read_target(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("kernel")
    with pytest.raises(ValueError, match=r"text\.npy cannot be read"):
        read_target(tmp_path / "text.npy")
