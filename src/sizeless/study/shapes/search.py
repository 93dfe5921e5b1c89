"""The search for the profile of least squared error, for many kernels at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sizeless.study.shapes import profiles
from sizeless.study.shapes.ellipses import grid_of
from sizeless.study.shapes.profiles import Form

STEPS = 100
"""Steps after which a search counts as not converged."""
GAIN = 1e-9
"""Relative fall of the squared error at which a search has converged."""
SHORT = 1e-7
"""Step at which it has converged, in taps and logarithms."""
STIFF = 1e8
"""Damping at which no step, however short, makes a fit better."""
REACH = 6.0
"""Distance from the centre of a profile, in widths, beyond which it is nothing: 1.5e-8."""
AT_ONCE = 32
"""Searches that run together: more would not fit a processor's cache."""
EXACT = 1e-24
"""Squared error, in parts of the energy, at which there is nothing left to fit."""


def search(
    kernels: np.ndarray, taps: Sequence[np.ndarray], starts: np.ndarray, form: Form
) -> tuple[np.ndarray, np.ndarray]:
    """Search from every start, and keep what is best for each kernel (Levenberg and Marquardt).

    Args:
        kernels: Their taps, ``(count, taps)``, of magnitude about 1.
        taps: Positions of the taps of each axis.
        starts: Parameters from which to search, ``(starts, count, parameters)``.
        form: Which profile.

    Returns:
        Parameters ``(count, parameters)``, and whether the search for them ended, ``(count,)``.

    Source: Marquardt 1963, "An algorithm for least-squares estimation of nonlinear parameters",
    Journal of the Society for Industrial and Applied Mathematics 11.
    """
    points, (many, count, length) = grid_of(taps), starts.shape
    params, converged = starts.reshape(-1, length).copy(), np.zeros(many * count, dtype=bool)
    errors = np.empty(many * count)
    repeated = kernels[np.tile(np.arange(count), many)]
    low, high = _box(params, len(taps), form)
    # Together those that need few taps.
    order = np.argsort((high - low).max(axis=1), kind="stable")
    for first in range(0, len(order), AT_ONCE):
        some = order[first : first + AT_ONCE]
        bottom, top = low[some].min(axis=0), high[some].max(axis=0)
        inside = ((points >= bottom) & (points <= top)).all(axis=1)
        found, ended, error = _search(repeated[some], points, inside, params[some], form)
        reached = _box(found, len(taps), form)
        out = ((reached[0] < bottom) | (reached[1] > top)).any(axis=1)
        if out.any() and not inside.all():
            everywhere = np.ones_like(inside)
            found[out], ended[out], error[out] = _search(
                repeated[some[out]], points, everywhere, found[out], form
            )
        params[some], converged[some], errors[some] = found, ended, error
    least = errors.reshape(many, count).argmin(axis=0), np.arange(count)
    return params.reshape(starts.shape)[least], converged.reshape(many, count)[least]


def _box(params: np.ndarray, ndim: int, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the boxes outside of which the profiles are nothing but their floor."""
    inverse = np.linalg.inv(profiles.factors(params, ndim, form))
    sigma = np.sqrt(np.square(inverse).sum(axis=1))
    center = params[:, 1 : 1 + ndim]
    return center - REACH * sigma, center + REACH * sigma


def _search(
    kernels: np.ndarray, points: np.ndarray, inside: np.ndarray, start: np.ndarray, form: Form
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Search for the least squared error, with profiles that are their floor outside of a box.

    Returns:
        The parameters, which searches ended, and the squared errors.
    """
    params, damping = start.copy(), np.full(len(start), 1e-3)
    converged, active = np.zeros(len(start), dtype=bool), np.arange(len(start))
    near, far = kernels[:, inside], kernels[:, ~inside]
    points, rest = points[inside], np.stack([far.sum(axis=1), np.square(far).sum(axis=1)], axis=1)
    flat, exact = far.shape[1] * (form != "rotated"), EXACT * np.square(kernels).sum(axis=1)

    def error_of(params: np.ndarray, some: np.ndarray) -> np.ndarray:
        floor = params[:, -1] * (form != "rotated")
        error: np.ndarray = np.square(near[some] - profiles.values(params, points, form)).sum(1)
        return error + rest[some, 1] - floor * (2 * rest[some, 0] - flat * floor)

    # A step too far may overflow; what it gives is not better, so it is not taken.
    with np.errstate(over="ignore", invalid="ignore"):
        error = error_of(params, active)
        for _ in range(STEPS):
            fitted, slopes = profiles.slopes(params[active], points, form)
            gradient = ((near[active] - fitted)[:, None] @ slopes)[:, 0]
            normal = slopes.transpose(0, 2, 1) @ slopes
            if flat:
                gradient[:, -1] += rest[active, 0] - flat * params[active, -1]
                normal[:, -1, -1] += flat
            step = _step(normal, gradient, damping[active])
            trial = params[active] + step
            trial_error = error_of(trial, active)
            gain = error[active] - trial_error
            better = gain > 0
            ended = better & (gain <= GAIN * error[active]) & (damping[active] < 1)
            ended |= (np.abs(step) < SHORT).all(axis=1) | (damping[active] > STIFF)
            params[active[better]] = trial[better]
            error[active[better]] = trial_error[better]
            ended |= error[active] <= exact[active]
            damping[active] = np.maximum(damping[active] * np.where(better, 0.1, 10.0), 1e-12)
            converged[active[ended]] = True
            active = active[~ended]
            if not len(active):
                break
    return params, converged, error


def _step(normal: np.ndarray, gradient: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Steps of a damped Gauss-Newton search, along each parameter on its own scale."""
    scale = np.diagonal(normal, axis1=1, axis2=2)
    floor = 1e-12 * scale.max(axis=1, keepdims=True) + 1e-30
    added = (damping[:, None] * np.maximum(scale, floor) + floor)[:, :, None]
    return np.linalg.solve(normal + added * np.eye(normal.shape[1]), gradient[..., None])[..., 0]
