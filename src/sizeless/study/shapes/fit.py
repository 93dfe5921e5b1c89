"""Gaussian profiles fitted to the magnitude of kernels, many kernels at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizeless.study.shapes import profiles
from sizeless.study.shapes.ellipses import Ellipses, grid_of, moments
from sizeless.study.shapes.profiles import Form
from sizeless.study.shapes.search import EXACT, search

STARTS = 2
"""Guesses from which a profile is searched for."""
NUDGE = 0.3
"""Distance in taps by which searches for square contours start anew."""
NARROWEST = 0.25
"""Width in taps below which the taps do not tell a profile from a single tap."""


@dataclass(frozen=True)
class Fits:
    r"""Fits of one profile, one per kernel; NaN throughout where the fit was not accepted.

    Attributes:
        ellipses: Centre and $\Sigma$ of the profile.
        amplitude: Its height, ``(count,)``.
        center_error: Standard error of the centre, ``(count, ndim)``, in samples.
        log_sigma_error: Standard error of the logarithm of the width along each axis, the
            relative error of the width, ``(count, ndim)``.
        r2: 1 - squared error / squared deviation from the mean, ``(count,)``.
        squared_error: Over all taps, ``(count,)``.
        converged: Whether the search ended; what it found may still be of no use.
    """

    ellipses: Ellipses
    amplitude: np.ndarray
    center_error: np.ndarray
    log_sigma_error: np.ndarray
    r2: np.ndarray
    squared_error: np.ndarray
    converged: np.ndarray

    @property
    def accepted(self) -> np.ndarray:
        """Which fits converged to a profile that the taps can tell, ``(count,)``."""
        return np.isfinite(self.r2)


def too_few(size: Sequence[int]) -> str:
    """Say why kernels of a size are not fitted; nothing if they are.

    A rotated profile needs twice as many taps as it has parameters, and three along every axis.

    Examples:
        >>> too_few((3, 3)), too_few((7, 7)), too_few((1, 15))
        ('9 taps for 6 parameters', '', 'fewer than 3 taps along an axis')
    """
    taps, needed = math.prod(size), profiles.parameters("rotated", len(size))
    if min(size) < 3:
        return "fewer than 3 taps along an axis"
    return f"{taps} taps for {needed} parameters" if taps < 2 * needed else ""


def fit(kernels: np.ndarray, taps: Sequence[np.ndarray], form: Form = "rotated") -> Fits:
    r"""Fit a Gaussian profile to the magnitude of every kernel by least squares.

    $$
    \min_{A, c, \Sigma} \sum_t \Big( |k_t| - A\, e^{-q(t - c) / 2} \Big)^2
    $$

    with $q(d) = d^\top \Sigma^{-1} d$ (``"rotated"``). To compare contours there are two more,
    along the axes of the kernel and over a floor, so that what lies around a kernel does not count
    as part of it: $q(d) = \sum_i (d_i / \sigma_i)^2$ (``"ellipse"``) and
    $q(d) = \max_i (d_i / \sigma_i)^2$, whose contours are rectangles (``"square"``).

    $\Sigma^{-1} = L L^\top$ with $L$ lower triangular and the logarithm of its diagonal free, so
    $\Sigma$ is positive definite at every step. Guesses are the moments of $|k|$, $k^2$ and $k^4$
    and the largest tap; the search starts from the best two of these, see ``search``. A fit is
    accepted if the search ended, its centre lies on the kernel, and its widths are at least a
    quarter of the distance of taps along every direction, and no longer than the kernel along any
    axis. Standard errors take the residuals as independent, which those of smooth kernels are not.

    Args:
        kernels: ``(count, *size)``, with more taps than the profile has parameters.
        taps: Positions of the taps of each axis, in samples.
        form: Which profile.

    Raises:
        ValueError: If there are not more taps than parameters.

    Examples:
        >>> y, x = np.ogrid[-7:8, -7:8]
        >>> kernel = np.exp(-0.5 * ((x / 3) ** 2 + (y / 2) ** 2))
        >>> fit(kernel[None], (y.ravel(), x.ravel())).ellipses.sigma.round(6)
        array([[2., 3.]])
    """
    mass = np.abs(kernels.reshape(len(kernels), math.prod(kernels.shape[1:]))).astype(float)
    freedom = mass.shape[1] - profiles.parameters(form, len(taps))
    if freedom < 1:
        raise ValueError(
            f"kernels must have more taps than a profile has parameters, got {mass.shape[1]} taps "
            f"for {mass.shape[1] - freedom}"
        )
    peak = mass.max(axis=1, initial=0.0)
    usable = np.flatnonzero(np.isfinite(peak) & (peak > 0))
    scaled = mass[usable] / peak[usable, None]
    # Taps of a dilated kernel lie apart: they, not samples, are what a profile is told by.
    steps = np.array([axis[1] - axis[0] if len(axis) > 1 else 1.0 for axis in taps])
    units = [axis / step for axis, step in zip(taps, steps, strict=True)]
    params, converged = _searched(scaled, units, form)
    found = _accepted(scaled, params, converged, units, form, freedom)
    return _among_all(found, usable, peak, steps)


def _searched(
    scaled: np.ndarray, taps: Sequence[np.ndarray], form: Form
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters of the best profile of each kernel, and whether the search for it ended."""
    ndim, starts = len(taps), _guesses(scaled, taps, form)
    params, converged = search(scaled, taps, starts, form)
    if form == "square":
        # The error has a kink where a tap lies on a diagonal, in which searches get caught.
        moves = np.concatenate([np.eye(ndim), -np.eye(ndim)]) * NUDGE
        nudged = np.repeat(params[None], 1 + len(moves), axis=0)
        nudged[1:, :, 1 : 1 + ndim] += moves[:, None]
        params, converged = search(scaled, taps, nudged, form)
    return params, converged


def _guesses(scaled: np.ndarray, taps: Sequence[np.ndarray], form: Form) -> np.ndarray:
    """Parameters from which to search: the best of several guesses, ``(STARTS, count, ...)``."""
    points, count, ndim = grid_of(taps), len(scaled), len(taps)
    kernels = scaled.reshape(count, *(len(axis) for axis in taps))
    one = np.broadcast_to(np.eye(ndim), (count, ndim, ndim))
    found = [(Ellipses(points[scaled.argmax(axis=1)], one), 1)]
    found += [(moments(kernels, taps, power), power) for power in (1, 2, 4)]
    # Second moments of a profile with square contours, in parts of its squared width.
    spread = (ndim + 2) / 3 if form == "square" else 1.0
    guesses, errors = [], []
    for guess, power in found:
        covariance = guess.covariance * power / spread + 0.1 * np.eye(ndim)
        if form != "rotated":
            covariance = covariance * np.eye(ndim)
        params = profiles.vectors(guess.center, covariance, form)
        shape = profiles.values(params, points, form)
        height = (scaled * shape).sum(axis=1) / np.square(shape).sum(axis=1)
        height = np.maximum(height, 1e-9)
        params[:, 0] = np.log(height)
        guesses.append(params)
        errors.append(np.square(scaled - height[:, None] * shape).sum(axis=1))
    best = np.argsort(errors, axis=0)[:STARTS]
    return np.stack(guesses)[best, np.arange(count)]


def _accepted(
    scaled: np.ndarray,
    params: np.ndarray,
    converged: np.ndarray,
    taps: Sequence[np.ndarray],
    form: Form,
    freedom: int,
) -> Fits:
    """What the parameters say, where that is worth something; NaN elsewhere."""
    ndim, points = len(taps), grid_of(taps)
    low, high = points.min(axis=0), points.max(axis=0)
    deviation = np.square(scaled - scaled.mean(axis=1, keepdims=True)).sum(axis=1)
    center = params[:, 1 : 1 + ndim]
    # Widths far outside of what is accepted would overflow.
    logs = params[:, 1 + ndim : 1 + 2 * ndim]
    kept = converged & (deviation > EXACT * np.square(scaled).sum(axis=1))
    kept &= ((center >= low) & (center <= high)).all(axis=1) & (np.abs(logs) < 20).all(axis=1)
    factor = profiles.factors(np.where(kept[:, None], params, 0.0), ndim, form)
    inverse = np.linalg.inv(factor)
    found = Ellipses(center, inverse.transpose(0, 2, 1) @ inverse)
    kept &= (found.principal[:, -1] >= NARROWEST) & (found.sigma <= high - low + 1).all(axis=1)

    count, length = params.shape
    squares, covariance = np.full(count, np.nan), np.full((count, length, length), np.nan)
    for place in np.flatnonzero(kept):
        fitted, slopes = profiles.slopes(params[place : place + 1], points, form)
        squares[place] = np.square(scaled[place] - fitted[0]).sum()
        inverse = np.linalg.pinv(slopes[0].T @ slopes[0], rcond=1e-14, hermitian=True)
        covariance[place] = inverse * squares[place] / freedom
    log_slopes = profiles.log_sigma_slopes(factor, form)
    log_variance = np.einsum("nip,npq,niq->ni", log_slopes, covariance, log_slopes)
    variance = np.diagonal(covariance, axis1=1, axis2=2)[:, 1 : 1 + ndim]
    only = np.where(kept, 1.0, np.nan)
    return Fits(
        Ellipses(center * only[:, None], found.covariance * only[:, None, None]),
        np.exp(np.where(kept, params[:, 0], np.nan)),
        np.sqrt(variance),
        np.sqrt(log_variance),
        1 - squares / np.where(kept, deviation, np.nan),
        squares,
        converged,
    )


def _among_all(found: Fits, places: np.ndarray, peak: np.ndarray, steps: np.ndarray) -> Fits:
    """Put fits of some kernels, of height 1 and in taps, among those of all, in their units."""

    def among(part: np.ndarray, missing: float = np.nan) -> np.ndarray:
        whole = np.full((len(peak), *part.shape[1:]), missing, dtype=part.dtype)
        whole[places] = part
        return whole

    return Fits(
        Ellipses(
            among(found.ellipses.center) * steps,
            among(found.ellipses.covariance) * steps[:, None] * steps,
        ),
        among(found.amplitude) * peak,
        among(found.center_error) * steps,
        among(found.log_sigma_error),
        among(found.r2),
        among(found.squared_error) * peak**2,
        among(found.converged, False),
    )
