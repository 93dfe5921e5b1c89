"""What a fit does besides passing through the taps: its spectrum, and its values between them."""

from __future__ import annotations

import numpy as np

from sizeless.study.fitting.targets import FINE, Target, variance


def square_rings(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean energy density at each distance from frequency 0, along the axis where it is larger.

    Rings are square, $\max_d |f_d|$, since Nyquist frequency and analytic bounds hold for each
    axis. The channels' means are taken off and a Hann taper is put on, as the functions do not end
    in zeros: the edge of the kernel counts little.

    Args:
        values: ``(channels, *sizes)`` on a grid over [-1, 1], of the same size on every axis.

    Returns:
        Frequencies in cycles per unit, from 0 to the grid's Nyquist frequency, and densities,
        which do not depend on how fine the grid is.

    Examples:
        >>> x = np.linspace(-1, 1, 129)
        >>> frequency, energy = square_rings(np.cos(2 * np.pi * 10 * x)[None])
        >>> round(frequency[energy.argmax()])
        10
    """
    rings, energy = _rings(values)
    count = np.bincount(rings.ravel())
    density = np.bincount(rings.ravel(), energy.ravel()) / count
    return np.arange(len(count)) / _period(values), density


def share_above(values: np.ndarray, limit: float) -> float:
    """Share of the energy whose frequency is above a limit on some axis, 0 to 1.

    Args:
        values: As for ``square_rings``.
        limit: In cycles per unit.
    """
    rings, energy = _rings(values)
    total = float(energy.sum())
    return float(energy[rings > limit * _period(values)].sum()) / total if total > 0 else 0.0


def error_between(fine: np.ndarray, target: Target) -> float | None:
    """Mean squared error between the taps, over the variance of the target.

    Args:
        fine: Values of a fit on the grid that is ``FINE`` times as fine.
        target: What was to be fitted.

    Returns:
        The error, or ``None`` where only the taps of the target are known.
    """
    if target.fine is None:
        return None
    places = np.indices(fine.shape[1:]) % FINE
    between = places.any(axis=0)
    squares = (fine - target.fine)[:, between] ** 2
    return float(squares.mean()) / variance(target.fine)


def _period(values: np.ndarray) -> float:
    """Length of the interval over which a discrete transform repeats itself."""
    taps = values.shape[1]
    return 2.0 * taps / (taps - 1)


def _rings(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the ring of each frequency, and the energy density there, over all channels."""
    axes = tuple(range(1, values.ndim))
    taps, ndim = values.shape[1], values.ndim - 1
    taper = np.hanning(taps)
    weights = np.ones(values.shape[1:])
    for axis in range(ndim):
        weights *= taper.reshape([-1 if other == axis else 1 for other in range(ndim)])
    mean = (values * weights).sum(axis=axes, keepdims=True) / weights.sum()
    spectrum = np.fft.fftn((values - mean) * weights, axes=axes)
    energy = (np.abs(spectrum) ** 2).sum(axis=0) * (2.0 / (taps - 1)) ** (2 * ndim)
    indices = np.abs(np.rint(np.fft.fftfreq(taps) * taps).astype(int))
    rings = np.maximum.reduce(np.meshgrid(*[indices] * ndim, indexing="ij"))
    return rings, energy
