"""Where the mass and the energy of kernels lie, seen from their origin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

TIE = 1e-9
"""A share that misses a level by less than this has reached it: sums of floats are not exact."""


def kernel_mass_ratio(
    kernels: np.ndarray, origin: Sequence[float], causal: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    r"""Share of the mass of each kernel inside a window around its origin, for every window size.

    $$
    \mathrm{KMR}(s) = \frac{\sum_{a \in W_s} |k[a]|}{\sum_a |k[a]|}, \qquad
    W_s = \Big\{ a : |a_i - o_i| \le \frac{s - 1}{2} \text{ on every axis } i \Big\}
    $$

    A window is a square, or a cube, of side $s$ in samples, clipped to the kernel. The sizes are
    those at which the window takes in more taps: odd ones where the origin is a tap, even ones
    where it lies between two, and both where axes differ in that. On an axis that is used up the
    window grows no further; so a 1 x 7 kernel has sizes 1, 3, 5, 7, and a 3 x 4 kernel 2, 3, 4
    (at 1, its window would hold nothing). The last size holds everything. A kernel of even length
    around a tap, as a NIFF has on a map of even size, reaches one sample further on one side: on a
    map of 56, its last window has side 57.

    Args:
        kernels: ``(count, *size)``, real.
        origin: Index of the present position on each axis; half-integer between two taps.
        causal: Whether windows are one-sided, $0 \le o_i - a_i \le s - 1$: the ``s`` newest taps,
            of which the origin must be the last.

    Returns:
        The sizes ``(sizes,)``, ints, and the ratios ``(count, sizes)``, from above 0 to 1; NaN for
        a kernel that is zero everywhere or not finite.

    Raises:
        ValueError: If the shape has no axis or an empty one, or the origin does not belong to it.

    Source: Grabinski et al. 2024, "As large as it gets", TMLR, arXiv 2307.10001, the kernel mass
    ratio; there in windows of even side, half a sample off the centre.

    Examples:
        >>> sizes, ratios = kernel_mass_ratio(np.ones((1, 3, 3)), origin=(1, 1))
        >>> sizes.tolist(), ratios.round(3).tolist()
        ([1, 3], [[0.111, 1.0]])
    """
    kernels = np.asarray(kernels)
    sides = tap_sides(kernels.shape[1:], origin, causal)
    sizes, mass = _by_ring(np.abs(kernels.astype(np.float64)), sides)
    return sizes, _shares(mass)


def tap_sides(size: Sequence[int], origin: Sequence[float], causal: bool = False) -> np.ndarray:
    """Side of the smallest window that holds each tap, ``size`` ints; see ``kernel_mass_ratio``."""
    sides = [1 - d if causal else 2 * np.abs(d) + 1 for d in _distances(size, origin, causal)]
    grid: np.ndarray = np.rint(reduce(np.maximum, np.ix_(*sides))).astype(int)
    return grid


def energy_radii(
    kernels: np.ndarray, origin: Sequence[float], levels: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    r"""How far from its origin the energy of each kernel lies.

    $$
    r = \sqrt{\frac{\sum_a k[a]^2 \, \lVert a - o \rVert^2}{\sum_a k[a]^2}}
    $$

    and, for each level, the radius of the smallest Euclidean disc (interval, ball) about the origin
    that holds this share of the energy: the distance of a tap, nothing is interpolated.

    Args:
        kernels: ``(count, *size)``, real.
        origin: Index of the present position on each axis; half-integer between two taps.
        levels: Shares, above 0 and at most 1.

    Returns:
        The root mean square distances ``(count,)`` and the radii ``(count, levels)``, in samples;
        NaN for a kernel that is zero everywhere or not finite.

    Raises:
        ValueError: If the shape has no axis or an empty one, or the origin does not belong to it.

    Examples:
        >>> energy_radii(np.ones((1, 3)), origin=(1,), levels=(0.3, 0.9))
        (array([0.81649658]), array([[0., 1.]]))
    """
    kernels = np.asarray(kernels)
    distances = _distances(kernels.shape[1:], origin)
    squared: np.ndarray = reduce(np.add, np.ix_(*(d**2 for d in distances)))
    rings, energy = _by_ring(np.square(kernels.astype(np.float64)), squared)
    shares = _shares(energy)
    means = np.diff(shares, axis=1, prepend=0.0) @ rings
    return np.sqrt(np.maximum(means, 0.0)), np.sqrt(reaching(rings, shares, levels))


def reaching(places: np.ndarray, shares: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """First of the places at which each row of growing shares has reached each level.

    Args:
        places: ``(places,)``, growing.
        shares: ``(count, places)``, growing to 1, or NaN.
        levels: Shares, above 0 and at most 1.

    Returns:
        Array ``(count, levels)`` of floats, NaN where the row is NaN.
    """
    first = [(shares >= level - TIE).argmax(axis=1) for level in levels]
    found: np.ndarray = places[np.stack(first, axis=1)].astype(np.float64)
    found[np.isnan(shares[:, -1])] = np.nan
    return found


def _distances(
    size: Sequence[int], origin: Sequence[float], causal: bool = False
) -> list[np.ndarray]:
    """Position of the taps of each axis relative to the origin."""
    size, origin = tuple(size), tuple(origin)
    if not size or min(size) < 1:
        raise ValueError(
            f"kernels must have the shape (count, *size) with one or more taps on every axis, got "
            f"size {size}"
        )
    if len(origin) != len(size):
        raise ValueError(f"origin must have {len(size)} entries, one per axis, got {origin}")
    for n, place in zip(size, origin, strict=True):
        if not 0 <= place <= n - 1 or 2 * place != round(2 * place):
            raise ValueError(
                f"origin must lie on a tap or in the middle between two, from 0 to size - 1 on "
                f"every axis; got {origin} for size {size}"
            )
        if causal and place != n - 1:
            raise ValueError(
                f"origin of causal kernels must be their last tap, {tuple(m - 1 for m in size)}, "
                f"got {origin}"
            )
    return [np.arange(n) - place for n, place in zip(size, origin, strict=True)]


def _by_ring(values: np.ndarray, rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names of the rings of taps, growing, and the sum of each kernel's values over each ring."""
    order = np.argsort(rings, axis=None, kind="stable")
    names, starts = np.unique(rings.ravel()[order], return_index=True)
    ordered = values.reshape(len(values), rings.size)[:, order]
    return names, np.add.reduceat(ordered, starts, axis=1)


def _shares(amounts: np.ndarray) -> np.ndarray:
    """Growing share of each row's total; NaN where there is nothing to share."""
    within = amounts.cumsum(axis=1)
    total = within[:, -1:]
    shares = np.full(within.shape, np.nan)
    np.divide(within, total, out=shares, where=np.isfinite(total) & (total > 0))
    return shares
