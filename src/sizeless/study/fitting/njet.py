"""The fixed basis to compare with: derivatives of one Gaussian whose width alone is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import minimize_scalar

from sizeless._validate import int_at_least
from sizeless.study.fitting.targets import Target

NJET = "njet"
LABEL = "N-Jet"
ORDER = 9
"""Highest order of the derivatives; the largest that was published."""
WIDEST = 2.0
STARTS = 24
"""Widths that are tried before the best of them is refined."""


@dataclass(frozen=True)
class NJet:
    r"""A sum of the derivatives of a Gaussian.

    $$
    K(r) = \sum_{|n| \le k} A_n \prod_d \partial^{n_d} e^{-r_d^2 / 2 \sigma^2}
    $$

    Attributes:
        width: Standard deviation $\sigma$ in units of the coordinate.
        order: Highest total order $k$.
        coefficients: $A$, ``(functions, channels)``, for functions of one scale.

    Source: Pintea et al. 2021, "Resolution learning in deep convolutional networks using
    scale-space theory"; Jacobsen et al. 2016, "Structured receptive fields in CNNs".
    """

    width: float
    order: int
    coefficients: np.ndarray

    @property
    def parameters(self) -> int:
        """The width and all coefficients."""
        return 1 + self.coefficients.size

    def render(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Return its values on the grid that axes span, ``(channels, *sizes)``."""
        values = _functions(axes, self.width, self.order) @ self.coefficients
        return values.T.reshape(-1, *map(len, axes))


def fit_njet(target: Target, *, order: int = ORDER) -> NJet:
    """Return the best sum of Gaussian derivatives: least squares within a search over the width.

    Widths begin at one tap: derivatives of a narrower Gaussian alias.

    Args:
        target: What is to be fitted.
        order: Highest total order of the derivatives.

    Raises:
        ValueError: If the order is negative.

    Examples:
        >>> from sizeless.study.fitting.targets import target
        >>> wanted = target("gabor-1", 17)
        >>> jet = fit_njet(wanted, order=2)
        >>> axes = [np.linspace(-1, 1, 17)] * 2
        >>> bool(np.abs(jet.render(axes) - wanted.values).max() < 1e-2)
        True
    """
    int_at_least("order", order, 0)
    axes = [np.linspace(-1.0, 1.0, target.taps)] * target.ndim
    wanted = target.values.reshape(len(target.values), -1).T

    def solve(log_width: float) -> tuple[float, np.ndarray]:
        functions = _functions(axes, math.exp(log_width), order)
        coefficients = np.linalg.lstsq(functions, wanted, rcond=None)[0]
        return float(np.mean((functions @ coefficients - wanted) ** 2)), coefficients

    widths = np.linspace(math.log(2 / (target.taps - 1)), math.log(WIDEST), STARTS)
    start = min(range(STARTS), key=lambda index: solve(float(widths[index]))[0])
    bounds = widths[max(0, start - 1)], widths[min(STARTS - 1, start + 1)]
    found = float(minimize_scalar(lambda w: solve(w)[0], bounds=bounds, method="bounded").x)
    best = min((found, float(widths[start])), key=lambda width: solve(width)[0])
    return NJet(math.exp(best), order, solve(best)[1])


def _functions(axes: Sequence[np.ndarray], width: float, order: int) -> np.ndarray:
    """Derivatives up to a total order, ``(points, functions)``; signs and scales are left out."""
    profiles = [_derivatives(axis / width, order) for axis in axes]
    columns = []
    for orders in product(range(order + 1), repeat=len(axes)):
        if sum(orders) <= order:
            values = profiles[0][orders[0]]
            for profile, degree in zip(profiles[1:], orders[1:], strict=True):
                values = np.multiply.outer(values, profile[degree])
            columns.append(values.ravel())
    return np.stack(columns, axis=1)


def _derivatives(places: np.ndarray, order: int) -> list[np.ndarray]:
    """Hermite polynomials times the Gaussian, each divided by the root of its factorial."""
    found = [np.exp(-0.5 * places**2)]
    for degree in range(order):
        before = found[degree - 1] * math.sqrt(degree) if degree else 0.0
        found.append((places * found[degree] - before) / math.sqrt(degree + 1))
    return found
