"""What networks see of sound: waveforms, log-mel spectrograms and cepstral coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sizeless._validate import int_at_least, number, one_of, options, positive_int
from sizeless.functional import resample

LOG_OFFSET = 1e-6
"""Added to powers before the logarithm, so that silence has one."""

SILENCE = 64
"""Samples of silence put between the end of a sound and its beginning to change its rate."""


class LogMel:
    r"""Log-mel spectrograms: the power of sound by time and by frequency bands even to the ear.

    With $P$ the power of a short-time Fourier transform (Hann window, frames centred on
    multiples of the hop, the ends mirrored) and $M$ the bands of ``mel_bands``,

    $$
    y = \log(P M + 10^{-6})
    $$

    Args:
        sample_rate: Samples per second.
        n_fft: Length of the transform in samples; the window is centred in it.
        window: Length of the window in seconds.
        hop: Time from frame to frame in seconds.
        n_mels: Number of bands.
        low: Lower end of the lowest band in hertz.
        high: Upper end of the highest band in hertz.

    Shape:
        ``(..., L)`` to ``(..., 1 + L // hop, n_mels)``, with the hop in samples.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Source: the defaults are those of LEAF, Zeghidour et al. 2021, arXiv 2101.08596.

    Examples:
        >>> LogMel()(torch.zeros(2, 16000)).shape
        torch.Size([2, 101, 40])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 512,
        window: float = 0.025,
        hop: float = 0.010,
        n_mels: int = 40,
        low: float = 60.0,
        high: float = 7800.0,
    ) -> None:
        positive_int("sample_rate", sample_rate)
        self.n_fft = int_at_least("n_fft", n_fft, 2)
        self.hop = max(1, round(number("hop", hop, above=0) * sample_rate))
        length = round(number("window", window, above=0) * sample_rate)
        if not 1 <= length <= n_fft:
            raise ValueError(
                f"window must be at least 1 sample long and at most n_fft={n_fft}, got {window} s, "
                f"which are {length} samples at {sample_rate} Hz"
            )
        self.window = torch.hann_window(length)
        self.bands = mel_bands(n_fft, sample_rate, n_mels, low, high)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Return the spectrograms."""
        return torch.log(self.mel_power(waveforms) + LOG_OFFSET)

    def mel_power(self, waveforms: Tensor) -> Tensor:
        """Return the power in each band, ``(..., frames, n_mels)``."""
        length = waveforms.shape[-1]
        if length <= self.n_fft // 2:
            raise ValueError(
                f"waveforms must be longer than n_fft // 2 = {self.n_fft // 2} samples, got "
                f"{length}; take longer clips or a shorter n_fft"
            )
        spectrum = torch.stft(
            waveforms.reshape(-1, length),
            self.n_fft,
            self.hop,
            len(self.window),
            self.window.to(waveforms),
            return_complex=True,
        )
        power = spectrum.abs().square().transpose(1, 2) @ self.bands.to(waveforms)
        return power.reshape(*waveforms.shape[:-1], *power.shape[1:])


class MFCC:
    r"""Mel-frequency cepstral coefficients: a log-mel spectrum by its coarsest shapes.

    The orthonormal discrete cosine transform (type II) of the log-mel spectrum of each frame, of
    which the first coefficients are kept:

    $$
    c_k = s_k \sum_{m=0}^{M-1} y_m \cos\Big(\frac{\pi k (2 m + 1)}{2 M}\Big), \qquad
    s_0 = \sqrt{1 / M}, \quad s_k = \sqrt{2 / M}
    $$

    Args:
        sample_rate: Samples per second.
        n_mfcc: Number of coefficients.
        n_fft: Length of the transform and of its window in samples; frames lie half of it apart.
        n_mels: Number of bands, from 0 to half of ``sample_rate``.

    Shape:
        ``(..., L)`` to ``(..., n_mfcc, 1 + L // (n_fft // 2))``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Source: the defaults are those of FlexConv, Romero et al. 2022, arXiv 2110.08059.

    Examples:
        >>> MFCC()(torch.zeros(2, 16000)).shape
        torch.Size([2, 20, 161])
    """

    def __init__(
        self, sample_rate: int = 16000, n_mfcc: int = 20, n_fft: int = 200, n_mels: int = 64
    ) -> None:
        if positive_int("n_mfcc", n_mfcc) > positive_int("n_mels", n_mels):
            raise ValueError(f"n_mfcc must be at most n_mels={n_mels}, got {n_mfcc}")
        seconds = n_fft / sample_rate
        hop = (n_fft // 2) / sample_rate
        self.log_mel = LogMel(sample_rate, n_fft, seconds, hop, n_mels, 0.0, sample_rate / 2)
        self.cosines = cosine_transform(n_mels)[:, :n_mfcc]

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Return the coefficients."""
        return (self.log_mel(waveforms) @ self.cosines.to(waveforms)).transpose(-1, -2)


def mel(hertz: float) -> float:
    r"""Return a frequency in mel, $2595 \log_{10}(1 + f / 700)$.

    Examples:
        >>> round(mel(1000.0), 2)
        999.99
    """
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def mel_bands(n_fft: int, sample_rate: int, n_mels: int, low: float, high: float) -> Tensor:
    """Return the weights of frequencies in each band, shape ``(n_fft // 2 + 1, n_mels)``.

    The bands are triangles over frequency, of height 1, whose corners lie evenly in mel between
    ``low`` and ``high``: each rises from the centre of the band below to its own and falls to that
    of the band above. A band between two frequencies of the transform has no weight at all.

    Args:
        n_fft: Length of the transform in samples.
        sample_rate: Samples per second.
        n_mels: Number of bands.
        low: Lower end of the lowest band in hertz.
        high: Upper end of the highest band in hertz.

    Raises:
        ValueError: If the ends do not lie in order between 0 and half of ``sample_rate``.

    Examples:
        >>> [round(weight, 2) for weight in mel_bands(8, 8000, 1, 0.0, 4000.0).flatten().tolist()]
        [0.0, 0.9, 0.69, 0.35, 0.0]
    """
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(
            f"low and high must be in order and between 0 and {sample_rate / 2} Hz, half of the "
            f"sample rate, got low={low} and high={high}"
        )
    count = positive_int("n_mels", n_mels) + 2
    mels = torch.linspace(mel(low), mel(high), count, dtype=torch.float64)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    frequencies = torch.arange(n_fft // 2 + 1).double()[:, None] * sample_rate / n_fft
    below, centre, above = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies - below) / (centre - below)
    falling = (above - frequencies) / (above - centre)
    return torch.minimum(rising, falling).clamp(min=0.0).float()


def cosine_transform(length: int) -> Tensor:
    """Return the orthonormal cosine transform of type II, shape ``(length, length)``.

    Column k holds the cosine of the k-th coefficient.

    Examples:
        >>> matrix = cosine_transform(4)
        >>> torch.allclose(matrix.T @ matrix, torch.eye(4), atol=1e-6)
        True
    """
    positions = torch.arange(length).double()[:, None]
    matrix = torch.cos(math.pi * torch.arange(length) * (2 * positions + 1) / (2 * length))
    matrix[:, 0] /= math.sqrt(2.0)
    return (matrix * math.sqrt(2.0 / length)).float()


FEATURES: dict[str, type[LogMel] | type[MFCC]] = {"logmel": LogMel, "mfcc": MFCC}


def sound_features(
    name: str, sample_rate: int, given: Mapping[str, Any] | None = None
) -> Callable[[Tensor], Tensor]:
    """Return what maps waveforms ``(..., L)`` to inputs ``(..., C, *spatial)``.

    Args:
        name: ``"raw"`` gives ``(..., 1, L)``, ``"logmel"`` ``(..., 1, T, F)`` and ``"mfcc"``
            ``(..., C, T)``.
        sample_rate: Samples per second.
        given: Options of ``LogMel`` or ``MFCC``, but the rate.

    Raises:
        TypeError: If there is no such option.
        ValueError: If there are no such features, or an option is out of its range.

    Examples:
        >>> sound_features("logmel", 16000, {"n_mels": 32})(torch.zeros(2, 800)).shape
        torch.Size([2, 1, 6, 32])
    """
    one_of("features", name, ("raw", *FEATURES))
    given = given or {}
    if name == "raw":
        if given:
            raise TypeError(f"features='raw' takes no options, got {dict(given)}")
        return _one_channel
    make = FEATURES[name]
    options(f"features={name!r}", given, make, fixed=("sample_rate",))
    features = make(sample_rate, **given)
    return features if name == "mfcc" else _OneChannel(features)


class _OneChannel:
    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        self.features = features

    def __call__(self, waveforms: Tensor) -> Tensor:
        return self.features(waveforms).unsqueeze(-3)


def _one_channel(waveforms: Tensor) -> Tensor:
    return waveforms.unsqueeze(-2)


def change_rate(waveform: Tensor, rate: int, new_rate: int) -> Tensor:
    """Return sound as it would be with another number of samples per second.

    Frequencies that the lower of both rates cannot hold are removed; the rest stays as it is. Sound
    begins and ends with silence, on which the sharp cut leaves a faint ringing.

    Args:
        waveform: ``(..., L)``.
        rate: Its samples per second.
        new_rate: Samples per second to have.

    Returns:
        ``(..., ceil(L * new_rate / rate))``.

    Examples:
        >>> change_rate(torch.ones(1, 441), 44100, 16000).shape
        torch.Size([1, 160])
    """
    if rate == new_rate:
        return waveform
    divisor = math.gcd(rate, new_rate)
    step, new_step = rate // divisor, new_rate // divisor
    length = waveform.shape[-1]
    # Whole periods of both rates, with silence between the end and the beginning: the transform
    # takes the one as joined to the other.
    periods = math.ceil((length + SILENCE * max(1, rate / new_rate)) / step)
    padded = functional.pad(waveform, (0, periods * step - length))
    changed = resample(padded.reshape(-1, 1, periods * step), periods * new_step)
    new_length = math.ceil(length * new_rate / rate)
    return changed.reshape(*waveform.shape[:-1], -1)[..., :new_length]
