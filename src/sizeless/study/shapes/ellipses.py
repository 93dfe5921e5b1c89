"""Where kernels lie and how far they reach along each direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THIN = 1e-9
"""Variance that counts as none, in squared samples."""
RELATIVE = 1e-12
"""The same, in parts of the largest squared distance: more than rounding leaves."""
ROUND = 1e-6
"""Excess of the longest over the shortest width below which no direction is longest."""


@dataclass(frozen=True)
class Ellipses:
    """Centres and covariances of kernels; of a kernel without any, NaN.

    Attributes:
        center: ``(count, ndim)``, in samples from the origin.
        covariance: ``(count, ndim, ndim)``, in squared samples.
    """

    center: np.ndarray
    covariance: np.ndarray

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.center.shape[1]

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation along each axis, ``(count, ndim)``."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

    @property
    def principal(self) -> np.ndarray:
        """Standard deviations along the principal directions, ``(count, ndim)``, longest first."""
        return self._principal()[0]

    @property
    def orientation(self) -> np.ndarray:
        """Direction of the longest principal axis of two-dimensional kernels, ``(count,)``.

        In degrees, above -90 and at most 90: 0 lies along the last axis, and the angle grows
        counter-clockwise in a picture whose first axis runs downward. NaN where all directions
        are equally long, and in other dimensions.
        """
        sigmas, directions = self._principal()
        if self.ndim != 2:
            return np.full(len(sigmas), np.nan)
        down, right = directions[:, 0, 0], directions[:, 1, 0]
        angle = np.degrees(np.arctan2(-down, right))
        angle = np.where(angle > 90, angle - 180, np.where(angle <= -90, angle + 180, angle))
        known = sigmas[:, 0] > sigmas[:, 1] * (1 + ROUND)
        return np.where(known, angle, np.nan)

    @property
    def log_ratio(self) -> np.ndarray:
        """Logarithm of the longest over the shortest principal width, ``(count,)``, at least 0.

        NaN for a kernel that has no width along some direction, and in one dimension.
        """
        sigmas = self.principal
        return _log_ratio(sigmas[:, 0], sigmas[:, -1], self.ndim)

    @property
    def log_axes(self) -> np.ndarray:
        """Logarithm of the width along the last axis over that along the one before, ``(count,)``.

        NaN for a kernel that has no width along one of them, and in one dimension.
        """
        return _log_ratio(self.along(-1), self.along(-2), self.ndim)

    def along(self, axis: int) -> np.ndarray:
        """Standard deviation along an axis counted from the last, -1; NaN if there is none."""
        if -axis > self.ndim:
            return np.full(len(self.center), np.nan)
        return self.sigma[:, axis]

    def _principal(self) -> tuple[np.ndarray, np.ndarray]:
        """Widths, longest first, and their directions as columns."""
        known = np.isfinite(self.covariance).all(axis=(1, 2))
        values, vectors = np.linalg.eigh(np.where(known[:, None, None], self.covariance, 0.0))
        floor = np.maximum(THIN, RELATIVE * values[:, -1:])
        values = np.where(values > floor, values, 0.0)
        return np.where(known[:, None], np.sqrt(values), np.nan)[:, ::-1], vectors[:, :, ::-1]


def _log_ratio(long: np.ndarray, short: np.ndarray, ndim: int) -> np.ndarray:
    known = (long > 0) & (short > 0) & (ndim > 1)
    return np.log(np.where(known, long, np.nan)) - np.log(np.where(known, short, np.nan))


def grid_of(taps: Sequence[np.ndarray]) -> np.ndarray:
    """Positions of all taps of a grid, ``(taps, ndim)``, in the order of a flattened kernel."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*taps, indexing="ij")], axis=1)


def moments(kernels: np.ndarray, taps: Sequence[np.ndarray], power: int = 1) -> Ellipses:
    r"""Centroid and covariance of kernels, each taken as a distribution of mass over its taps.

    $$
    c = \sum_t w_t\, t \qquad \Sigma = \sum_t w_t\, (t - c)(t - c)^\top \qquad
    w_t = \frac{|k_t|^p}{\sum_s |k_s|^p}
    $$

    Args:
        kernels: ``(count, *size)``.
        taps: Positions of the taps of each axis, in samples.
        power: $p$; 1 for mass, 2 for energy.

    Returns:
        Of a kernel that is zero or not finite, NaN.

    Examples:
        >>> box = np.ones((1, 5, 3))
        >>> moments(box, (np.arange(-2, 3), np.arange(-1, 2))).covariance[0].diagonal()
        array([2.        , 0.66666667])
    """
    mass = np.abs(kernels.reshape(len(kernels), math.prod(kernels.shape[1:]))).astype(float)
    peak = mass.max(axis=1, initial=0.0)
    known = np.isfinite(peak) & (peak > 0)
    share = np.where(known[:, None], mass, 1.0) / np.where(known, peak, 1.0)[:, None]
    share **= power
    share /= share.sum(axis=1, keepdims=True)
    points = grid_of(taps)
    ndim = points.shape[1]
    # About the middle of the grid, so that little cancels.
    middle = points.mean(axis=0)
    offsets = points - middle
    first = share @ offsets
    products = (offsets[:, :, None] * offsets[:, None, :]).reshape(-1, ndim * ndim)
    second = (share @ products).reshape(-1, ndim, ndim)
    covariance = second - first[:, :, None] * first[:, None, :]
    floor = max(THIN, RELATIVE * float(np.square(offsets).max()))
    thin = np.diagonal(covariance, axis1=1, axis2=2) < floor
    covariance[thin[:, :, None] | thin[:, None, :]] = 0.0
    first[~known], covariance[~known] = np.nan, np.nan
    return Ellipses(first + middle, covariance)
