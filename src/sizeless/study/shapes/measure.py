"""Shapes of the kernels of one layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sizeless.study.bank import LayerKernels
from sizeless.study.shapes.ellipses import Ellipses, moments
from sizeless.study.shapes.fit import Fits, fit, too_few

CONTOUR = 0.75
"""Width in taps below which an ellipse and a square look the same: of sampled profiles with 5 % of
noise, 90 % are told at 0.7 taps, 95 % at 0.8, 70 % at 0.5."""


@dataclass(frozen=True)
class LayerShape:
    """Shapes of the kernels of one layer.

    Attributes:
        moments: Of each of its kernels.
        drawn: Which of these were tried to be fitted.
        fits: Rotated Gaussians, one per drawn kernel; ``None`` if none was tried.
        squarer: For each drawn kernel, 1 if square contours describe it better than elliptic ones,
            0 if worse; NaN if it is too narrow to tell, or one could not be fitted.
        reason: Why none was tried, or nothing.
        mean: Mean of the kernels' magnitudes, each of mass 1, ``size``.
        taps: Positions of the taps of each axis.
    """

    moments: Ellipses
    drawn: np.ndarray
    fits: Fits | None
    squarer: np.ndarray
    reason: str
    mean: np.ndarray
    taps: tuple[np.ndarray, ...]

    def fitted(self, of: Callable[[Fits], np.ndarray]) -> np.ndarray:
        """Something of each fit, ``(fitted,)``; nothing where there are none."""
        return np.empty(0) if self.fits is None else of(self.fits)


def log_axes(shape: LayerShape) -> np.ndarray:
    """Logarithm of the width along the last axis over that along the one before."""
    return shape.moments.log_axes


def log_ratio(shape: LayerShape) -> np.ndarray:
    """Logarithm of the longest over the shortest principal width."""
    return shape.moments.log_ratio


def measure(layer: LayerKernels, *, power: int, fitted: int, seed: int) -> LayerShape:
    """Measure a layer.

    Args:
        layer: Its kernels.
        power: Of the magnitude, in the moments.
        fitted: Kernels that are fitted at most.
        seed: Seed of which these are.
    """
    taps, count = layer.taps(), len(layer.kernels)
    drawn = np.random.default_rng(seed).choice(count, min(fitted, count), replace=False)
    drawn.sort()
    some, some_taps = _without_gaps(layer.kernels[drawn], taps)
    reason = too_few(some.shape[1:]) if len(drawn) else "none asked for"
    fits = None if reason else fit(some, some_taps)
    return LayerShape(
        moments=moments(layer.kernels, taps, power),
        drawn=drawn,
        fits=fits,
        squarer=np.empty(0) if fits is None else _squarer(some, some_taps, fits),
        reason=reason,
        mean=_mean_magnitude(layer.kernels),
        taps=taps,
    )


def _mean_magnitude(kernels: np.ndarray) -> np.ndarray:
    mass = np.abs(kernels.astype(np.float64))
    total = mass.sum(axis=tuple(range(1, mass.ndim)), keepdims=True)
    usable = np.isfinite(total.ravel()) & (total.ravel() > 0)
    mean: np.ndarray = (mass[usable] / total[usable]).sum(axis=0) / max(1, usable.sum())
    return mean


def _without_gaps(
    kernels: np.ndarray, taps: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Kernels, and positions, without the zeros that lie between the taps of dilated ones."""
    kept = list(taps)
    for axis, positions in enumerate(taps):
        others = tuple(a for a in range(kernels.ndim) if a != axis + 1)
        lines = np.flatnonzero((kernels != 0).any(axis=others))
        whole = len(lines) > 1 and lines[0] == 0 and lines[-1] == len(positions) - 1
        step = int(np.gcd.reduce(lines)) if whole else 1
        kernels = kernels.take(np.arange(0, len(positions), step), axis=axis + 1)
        kept[axis] = positions[::step]
    return kernels, kept


def _squarer(kernels: np.ndarray, taps: Sequence[np.ndarray], fits: Fits) -> np.ndarray:
    found = np.full(len(kernels), np.nan)
    steps = np.array([axis[1] - axis[0] for axis in taps])
    # In one dimension the two profiles are the same.
    wide = (fits.ellipses.sigma >= CONTOUR * steps).all(axis=1) & (len(taps) > 1)
    if wide.any():
        elliptic = fit(kernels[wide], taps, "ellipse").squared_error
        square = fit(kernels[wide], taps, "square").squared_error
        both = np.isfinite(elliptic) & np.isfinite(square)
        found[wide] = np.where(both, square < elliptic, np.nan)
    return found
