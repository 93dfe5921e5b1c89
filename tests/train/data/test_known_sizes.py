"""Each task is solved at its best size, and hopeless below it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from sizeless.functional import resample
from sizeless.train.data.known_sizes import (
    KnownBandwidth,
    KnownKernelSize,
    KnownLag,
    KnownStride,
)

from .tiny_sounds import ready

CHANCE = (0.44, 0.56)
"""1,000 balanced samples: chance lies here but for one time in 10,000."""


def accuracy(data, features):
    """Of a linear classifier on features, fitted to the training split by least squares."""
    splits = ready(data).splits
    train, test = (
        features(part.inputs).double().flatten(1) for part in (splits.train, splits.test)
    )
    mean, deviation = train.mean(0), train.std(0).clamp(min=1e-9)

    def design(values):
        return torch.cat([(values - mean) / deviation, torch.ones(len(values), 1)], dim=1)

    matrix = design(train)
    gram = matrix.T @ matrix + 1e-3 * len(matrix) * torch.eye(matrix.shape[1])
    weights = torch.linalg.solve(gram, matrix.T @ (2.0 * splits.train.targets.double() - 1))
    return ((design(test) @ weights > 0) == (splits.test.targets == 1)).double().mean().item()


def is_chance(value):
    return CHANCE[0] < value < CHANCE[1]


@pytest.mark.parametrize("lag", [0, 20, 63])
def test_a_lag_is_seen_at_its_size_and_not_below(lag):
    data = KnownLag(lag=lag, length=64)
    assert data.best_size == lag + 1
    assert accuracy(data, lambda inputs: inputs[..., -lag - 1 :]) == 1
    if lag:
        assert is_chance(accuracy(data, lambda inputs: inputs[..., -lag:]))


def products(reach):
    """Averages over places of the products of two pixels less than ``reach`` apart."""

    def features(images):
        spectrum = torch.fft.rfft2(images[:, 0])
        averages = torch.fft.irfft2(spectrum.abs().square(), s=images.shape[-2:])
        near = [*range(reach), *range(1 - reach, 0)]
        return averages[:, near][:, :, near]

    return features


def test_a_pattern_is_seen_at_its_size_and_not_below():
    data = KnownKernelSize(kernel_size=5, size=24)
    assert data.best_size == 5
    assert accuracy(data, products(5)) > 0.99
    assert is_chance(accuracy(data, products(4)))


@pytest.mark.parametrize("ndim", [1, 2])
def test_smaller_windows_are_the_same_in_both_classes(ndim):
    data = ready(KnownKernelSize(4, 17, ndim, noise=0.0, samples=60, test_samples=1))
    inputs, targets = data.splits.train.inputs[:, 0], data.splits.train.targets

    def bag(image, size):
        windows = image
        for axis in range(ndim):
            windows = windows.unfold(axis, size, 1)
        return Counter(map(tuple, windows.reshape(-1, size**ndim).tolist()))

    smaller = [bag(image, 3) for image in inputs]
    assert all(windows == smaller[0] for windows in smaller)
    ends = [0, -1]
    for image, target in zip(inputs, targets, strict=True):
        seen = {tuple(window[end] for end in ends) for window in bag(image, 4)}
        agreeing = {pair for pair in seen if pair[0] * pair[1] == 1}
        differing = {pair for pair in seen if pair[0] * pair[1] == -1}
        assert bool(agreeing) == bool(target)
        assert bool(differing) != bool(target)


def test_patterns_lie_apart_in_the_smallest_image():
    data = ready(KnownKernelSize(7, 32, noise=0.0, samples=500, test_samples=1))
    images = data.splits.train.inputs[:, 0]
    assert (images.abs().sum((1, 2)) == 4).all()
    assert (images.sum((1, 2)) == 0).all()
    assert not images[:, :6].any()
    assert not images[:, :, -6:].any()


def powers(frequencies):
    def features(inputs):
        return torch.fft.rfft(inputs).abs().square()[..., :frequencies].add(1e-3).log()

    return features


@pytest.mark.parametrize(("length", "bandwidth", "width"), [(64, 12, 3), (51, 20, 1)])
def test_a_band_is_seen_at_its_bandwidth_and_not_below(length, bandwidth, width):
    data = KnownBandwidth(bandwidth, width, length)
    assert data.best_size == bandwidth
    assert accuracy(data, powers(bandwidth)) > 0.99
    assert is_chance(accuracy(data, powers(bandwidth - width)))


def test_bands_have_the_same_power():
    data = ready(KnownBandwidth(12, 3, 64, noise=0.0))
    inputs, targets = data.splits.train.inputs, data.splits.train.targets
    power = torch.fft.rfft(inputs).abs().square().mean(1)
    bands = {label: power[targets == label].mean(0) for label in (0, 1)}
    assert (bands[1] > 1e-6).nonzero().flatten().tolist() == [9, 10, 11]
    assert (bands[0] > 1e-6).nonzero().flatten().tolist() == [12, 13, 14]
    for label in (0, 1):
        powers_of_class = inputs[targets == label].square().mean((1, 2))
        torch.testing.assert_close(powers_of_class, torch.ones_like(powers_of_class))


def low_resolution(*stride):
    def features(images):
        small = resample(images, [int(32 / step) for step in stride])
        return torch.fft.fft2(small).abs().square()

    return features


@pytest.mark.parametrize(("width", "vanishing"), [(1, 32 / 14), (3, 3.2)])
def test_images_survive_their_stride_and_not_more(width, vanishing):
    data = KnownStride(stride=2.0, size=32, width=width, samples=6000)
    assert data.best_size == (2.0, 2.0)
    assert data.vanishing_stride == (vanishing, vanishing)
    assert accuracy(data, low_resolution(2, 2)) > 0.99
    above = vanishing + 0.1
    for stride in ((above, above), (1, above), (above, 1)):
        assert is_chance(accuracy(data, low_resolution(*stride)))


def test_axes_may_have_strides_of_their_own():
    data = KnownStride(stride=(1.6, 4.0), size=32, samples=6000)
    assert data.edge == (10, 4)
    assert accuracy(data, low_resolution(1.6, 4)) > 0.99
    assert is_chance(accuracy(data, low_resolution(4, 1.6)))


@pytest.mark.parametrize("make", [KnownLag, KnownKernelSize, KnownBandwidth, KnownStride])
def test_classes_are_balanced_and_follow_their_seed(make):
    few = {"samples": 1000, "test_samples": 20}
    first, again, other = (ready(make(split_seed=seed, **few)).splits for seed in (0, 0, 1))
    assert [len(samples) for samples in first] == [900, 100, 20]
    assert 0.4 < first.train.targets.float().mean() < 0.6
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert first.train.inputs.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (KnownLag, {"lag": 64, "length": 64}, "lag must be below length=64, got 64"),
        (KnownLag, {"lag": -1}, "lag must be at least 0, got -1"),
        (KnownKernelSize, {"kernel_size": 1}, "kernel_size must be at least 2, got 1"),
        (KnownKernelSize, {"kernel_size": 7, "size": 31}, "size must be at least 32, got 31"),
        (KnownKernelSize, {"ndim": 3}, "ndim must be 1 or 2, got 3"),
        (KnownKernelSize, {"noise": -1.0}, "noise must be a finite number of at least 0"),
        (KnownBandwidth, {"bandwidth": 3, "width": 3}, "frequencies 1 to 31 of 64 .* around 3"),
        (KnownBandwidth, {"bandwidth": 30, "width": 3}, "got width=3 around 30"),
        (KnownStride, {"stride": 1.0}, "stride must be a finite number above 1, got 1.0"),
        (KnownStride, {"stride": (2.0, 16.0)}, "got width=1 around 1"),
        (KnownStride, {"size": 0}, "size must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
