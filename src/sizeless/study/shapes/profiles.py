"""Gaussian profiles over the taps of kernels, many at a time, and their derivatives.

Parameters are, in this order, the logarithm of the height, the centre, the logarithm of the
diagonal of the lower triangular factor L of the inverse covariance, and then of a profile that may
turn the rest of L, row by row, of the others a floor. So every vector of parameters is a profile.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Form = Literal["rotated", "ellipse", "square"]

WIDEST = 30.0
"""Logarithm of the largest width, and less of the smallest, so that L can be inverted."""


def parameters(form: Form, ndim: int) -> int:
    """Number of parameters: height, centre, widths, and rotation or floor.

    Examples:
        >>> parameters("rotated", 2), parameters("ellipse", 2), parameters("square", 2)
        (6, 6, 6)
    """
    return 1 + 2 * ndim + (ndim * (ndim - 1) // 2 if form == "rotated" else 1)


def vectors(center: np.ndarray, covariance: np.ndarray, form: Form) -> np.ndarray:
    """Parameters of profiles of height 1 and floor 0, ``(count, parameters)``.

    Args:
        center: ``(count, ndim)``.
        covariance: ``(count, ndim, ndim)``, positive definite; diagonal but for ``"rotated"``.
        form: Which profile.
    """
    count, ndim = center.shape
    lower = np.linalg.cholesky(np.linalg.inv(covariance))
    params = np.zeros((count, parameters(form, ndim)))
    params[:, 1 : 1 + ndim] = center
    params[:, 1 + ndim : 1 + 2 * ndim] = np.log(np.diagonal(lower, axis1=1, axis2=2))
    for place, (row, column) in enumerate(_below(form, ndim)):
        params[:, 1 + 2 * ndim + place] = lower[:, row, column]
    return params


def factors(params: np.ndarray, ndim: int, form: Form) -> np.ndarray:
    """L of each profile, ``(count, ndim, ndim)``."""
    lower = np.zeros((len(params), ndim, ndim))
    axes = np.arange(ndim)
    logs = np.clip(params[:, 1 + ndim : 1 + 2 * ndim], -WIDEST, WIDEST)
    lower[:, axes, axes] = np.exp(logs)
    for place, (row, column) in enumerate(_below(form, ndim)):
        lower[:, row, column] = params[:, 1 + 2 * ndim + place]
    return lower


def _below(form: Form, ndim: int) -> list[tuple[int, int]]:
    """Entries of L below the diagonal that are parameters."""
    if form != "rotated":
        return []
    return [(row, column) for row in range(ndim) for column in range(row)]


def values(params: np.ndarray, points: np.ndarray, form: Form) -> np.ndarray:
    """Values of the profiles at points ``(points, ndim)``: ``(count, points)``."""
    ndim = points.shape[1]
    scaled = (points - params[:, None, 1 : 1 + ndim]) @ factors(params, ndim, form)
    squares = np.square(scaled)
    distance = squares.max(axis=2) if form == "square" else squares.sum(axis=2)
    heights: np.ndarray = np.exp(params[:, :1] - 0.5 * distance)
    return heights if form == "rotated" else heights + params[:, -1:]


def slopes(params: np.ndarray, points: np.ndarray, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Values, and their derivatives by the parameters, ``(count, points, parameters)``."""
    ndim = points.shape[1]
    factor = factors(params, ndim, form)
    offsets = points - params[:, None, 1 : 1 + ndim]
    scaled = offsets @ factor
    # Half the derivative of the squared distance by the scaled offsets.
    pull = scaled
    if form == "square":
        farthest = np.abs(scaled).argmax(axis=2)[:, :, None]
        pull = np.where(np.arange(ndim) == farthest, scaled, 0.0)
    heights = np.exp(params[:, :1] - 0.5 * (pull * scaled).sum(axis=2))
    found = np.empty((*heights.shape, params.shape[1]))
    found[..., 0] = 1.0
    found[..., 1 : 1 + ndim] = pull @ factor.transpose(0, 2, 1)
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    found[..., 1 + ndim : 1 + 2 * ndim] = -pull * offsets * diagonal[:, None]
    for place, (row, column) in enumerate(_below(form, ndim)):
        found[..., 1 + 2 * ndim + place] = -pull[..., column] * offsets[..., row]
    found *= heights[..., None]
    if form == "rotated":
        return heights, found
    found[..., -1] = 1.0
    return heights + params[:, -1:], found


def log_sigma_slopes(factor: np.ndarray, form: Form) -> np.ndarray:
    """Derivatives of the logarithm of the width along each axis, ``(count, ndim, parameters)``.

    Args:
        factor: L of each profile.
        form: Which profile.
    """
    count, ndim, _ = factor.shape
    inverse = np.linalg.inv(factor)
    covariance = inverse.transpose(0, 2, 1) @ inverse
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    found = np.zeros((count, ndim, parameters(form, ndim)))
    entries = [(axis, axis) for axis in range(ndim)] + _below(form, ndim)
    for place, (row, column) in enumerate(entries):
        inner = factor[:, row, column, None] if row == column else 1.0
        # That of the inverse of L L^T by the entry, halved and divided by the variance.
        turned = covariance[:, :, row] * inverse[:, column, :]
        found[:, :, 1 + ndim + place] = -inner * turned / variance
    return found
