from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch

from sizeless.train.data.sound_features import (
    MFCC,
    LogMel,
    change_rate,
    cosine_transform,
    mel_bands,
    sound_features,
)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def bands_by_definition(n_fft, rate, n_mels, low, high):
    """Triangles between corners that lie evenly in mel, one weight at a time."""
    ends = [2595 * math.log10(1 + hertz / 700) for hertz in (low, high)]
    step = (ends[1] - ends[0]) / (n_mels + 1)
    corners = [700 * (10 ** ((ends[0] + i * step) / 2595) - 1) for i in range(n_mels + 2)]
    bands = np.zeros((n_fft // 2 + 1, n_mels))
    for k in range(n_fft // 2 + 1):
        hertz = k * rate / n_fft
        for m in range(n_mels):
            below, centre, above = corners[m : m + 3]
            if below < hertz <= centre:
                bands[k, m] = (hertz - below) / (centre - below)
            elif centre < hertz < above:
                bands[k, m] = (above - hertz) / (above - centre)
    return bands


def power_by_definition(signal, n_fft, hop, window):
    """Squared sums over each frame, mirrored ends, the window in the middle of the frame."""
    values = np.pad(signal, n_fft // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    left = (n_fft - window) // 2
    hann = np.pad(hann, (left, n_fft - window - left))
    waves = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft)
    starts = range(0, len(values) - n_fft + 1, hop)
    return np.stack([np.abs(waves @ (hann * values[i : i + n_fft])) ** 2 for i in starts])


@pytest.mark.parametrize(
    "arguments", [(512, 16000, 40, 60.0, 7800.0), (200, 16000, 64, 0.0, 8000.0)]
)
def test_mel_bands_follow_their_definition(arguments):
    expected = torch.from_numpy(bands_by_definition(*arguments)).float()
    torch.testing.assert_close(mel_bands(*arguments), expected, atol=1e-5, rtol=0)


def test_log_mel_follows_its_definition():
    signal = noise(1600)
    power = power_by_definition(signal.double().numpy(), 512, 160, 400)
    expected = np.log(power @ bands_by_definition(512, 16000, 40, 60, 7800) + 1e-6)
    result = LogMel()(signal)
    assert result.shape == (11, 40)
    torch.testing.assert_close(result, torch.from_numpy(expected).float(), atol=1e-3, rtol=1e-3)


def test_mfcc_follows_its_definition():
    signal = noise(1600)
    power = power_by_definition(signal.double().numpy(), 200, 100, 200)
    log_mel = np.log(power @ bands_by_definition(200, 16000, 64, 0, 8000) + 1e-6)
    expected = scipy.fft.dct(log_mel, type=2, norm="ortho")[:, :20].T
    result = MFCC()(signal)
    assert result.shape == (20, 17)
    torch.testing.assert_close(result, torch.from_numpy(expected).float(), atol=2e-3, rtol=1e-3)


def test_the_cosine_transform_is_that_of_scipy():
    values = noise(3, 17).double()
    expected = torch.from_numpy(scipy.fft.dct(values.numpy(), type=2, norm="ortho"))
    torch.testing.assert_close(values @ cosine_transform(17).double(), expected, atol=1e-5, rtol=0)


def test_silence_has_features():
    assert LogMel()(torch.zeros(800)).unique().tolist() == [pytest.approx(math.log(1e-6))]
    assert MFCC()(torch.zeros(800)).isfinite().all()


def test_a_tone_lights_its_band():
    seconds = torch.arange(16000) / 16000
    spectrum = LogMel()(torch.sin(2 * math.pi * 1000 * seconds)).mean(0)
    bands = mel_bands(512, 16000, 40, 60.0, 7800.0)
    assert spectrum.argmax() == bands[1000 * 512 // 16000].argmax()


@pytest.mark.parametrize(
    ("name", "shape"), [("raw", (1, 16000)), ("logmel", (1, 101, 40)), ("mfcc", (20, 161))]
)
def test_features_of_batches_equal_those_of_single_sounds(name, shape):
    waveforms = noise(2, 16000)
    features = sound_features(name, 16000)
    assert features(waveforms).shape == (2, *shape)
    torch.testing.assert_close(features(waveforms)[1], features(waveforms[1]), atol=1e-4, rtol=1e-4)


def test_features_take_options():
    assert sound_features("mfcc", 8000, {"n_mfcc": 12})(torch.zeros(8000)).shape == (12, 81)
    short = sound_features("logmel", 8000, {"hop": 0.02, "high": 4000.0})(torch.zeros(8000))
    assert short.shape == (1, 51, 40)


@pytest.mark.parametrize(
    ("name", "given", "error", "message"),
    [
        ("mel", {}, ValueError, "features must be 'raw', 'logmel' or 'mfcc', got 'mel'"),
        ("raw", {"n_mels": 3}, TypeError, "'raw' takes no options"),
        ("logmel", {"bands": 3}, TypeError, "no option bands=3; allowed are n_fft, window"),
        ("mfcc", {"sample_rate": 8000}, TypeError, "no option sample_rate=8000"),
        ("mfcc", {"n_mfcc": 65}, ValueError, "n_mfcc must be at most n_mels=64, got 65"),
        ("logmel", {"high": 9000.0}, ValueError, "between 0 and 8000.0 Hz.*high=9000.0"),
        ("logmel", {"window": 0.1}, ValueError, "at most n_fft=512, got 0.1 s, which are 1600"),
    ],
)
def test_wrong_features_are_refused(name, given, error, message):
    with pytest.raises(error, match=message):
        sound_features(name, 16000, given)


def test_clips_shorter_than_a_frame_are_refused():
    with pytest.raises(ValueError, match="longer than n_fft // 2 = 256 samples, got 256"):
        LogMel()(torch.zeros(256))


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(44100, 16000), (8000, 16000), (48000, 16000), (16001, 16000)]
)
def test_a_tone_stays_the_same_tone_at_another_rate(rate, new_rate):
    def sampled(at):
        seconds = torch.arange(at // 2).double() / at
        # A tone that swells and fades, so that it has no edges.
        return torch.sin(2 * math.pi * 1234 * seconds) * torch.sin(2 * math.pi * seconds) ** 2

    changed = change_rate(sampled(rate), rate, new_rate)
    assert changed.shape == sampled(new_rate).shape
    torch.testing.assert_close(changed, sampled(new_rate), atol=1e-4, rtol=0)


def test_frequencies_that_the_new_rate_cannot_hold_vanish():
    seconds = torch.arange(44100).double() / 44100
    hum = torch.sin(2 * math.pi * 12000 * seconds) * torch.sin(math.pi * seconds) ** 2
    assert change_rate(hum, 44100, 16000).abs().max() < 1e-4


def test_sound_at_the_right_rate_stays_as_it_is():
    sound = noise(3, 77)
    assert change_rate(sound, 8000, 8000) is sound


def test_the_end_of_a_sound_does_not_reach_its_beginning():
    click = torch.zeros(441)
    click[-20:] = 1.0
    assert change_rate(click, 44100, 16000)[:20].abs().max() < 0.02
