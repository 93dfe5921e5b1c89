"""Sizes of kernels one by one, and the mean curves of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizeless.study.bank import LayerKernels
from sizeless.study.effective.mass import energy_radii, kernel_mass_ratio, reaching
from sizeless.study.pools import Pool

LOW_AND_HIGH = (0.1, 0.9)
"""Quantiles between which most kernels lie."""
MOST_WINDOWS = 256
"""Window sizes of a curve."""


@dataclass(frozen=True)
class KernelSizes:
    """How large the kernels of one layer are.

    Attributes:
        windows: Window sizes, ``(windows,)``.
        ratios: Mass ratio of each kernel in each of them, ``(count, windows)``.
        effective: Effective size of each kernel at each level, ``(count, levels)``.
        radius: Root mean square distance of its energy from the origin, ``(count,)``.
        radii: Radii that hold the levels of its energy, ``(count, levels)``.
        map_size: Size of the map that the layer sees.
        causal: Whether windows are one-sided.
    """

    windows: np.ndarray
    ratios: np.ndarray
    effective: np.ndarray
    radius: np.ndarray
    radii: np.ndarray
    map_size: tuple[int, ...]
    causal: bool

    def ratios_at(self, grid: np.ndarray) -> np.ndarray:
        """Mass ratios in windows of any sizes, of the kernels that have a mass.

        Between two of its own sizes a window holds what the smaller one does.
        """
        ratios = self.ratios[~np.isnan(self.radius)]
        places = np.searchsorted(self.windows, grid, side="right") - 1
        within: np.ndarray = np.where(places < 0, 0.0, ratios[:, np.maximum(places, 0)])
        return within


@dataclass(frozen=True)
class Curve:
    """Mass ratio against the window size, over kernels; NaN where there is no kernel."""

    windows: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray

    def reaching(self, levels: Sequence[float]) -> np.ndarray:
        """Window size at which the mean reaches each of the levels."""
        (windows,) = reaching(self.windows, self.mean[None], levels)
        return np.asarray(windows)


def measured(layer: LayerKernels, levels: Sequence[float]) -> KernelSizes:
    """Measure the kernels of a layer."""
    windows, ratios = kernel_mass_ratio(layer.kernels, layer.origin, layer.causal)
    radius, radii = energy_radii(layer.kernels, layer.origin, levels)
    return KernelSizes(
        windows=windows,
        ratios=ratios,
        effective=reaching(windows, ratios, levels),
        radius=radius,
        radii=radii,
        map_size=layer.map_size,
        causal=layer.causal,
    )


def grid_of(pool: Pool[KernelSizes]) -> np.ndarray:
    """Every window size of the layers of a pool and their control, or 256 of them.

    Of more, the smaller half of the grid are the smallest sizes, the others grow by a factor.
    """
    parts = [sizes.windows for part in (pool.trained, *pool.control) for sizes in part]
    windows: np.ndarray = np.unique(np.concatenate(parts))
    if len(windows) <= MOST_WINDOWS:
        return windows
    half = MOST_WINDOWS // 2
    places = np.geomspace(half, len(windows) - 1, MOST_WINDOWS - half).round().astype(int)
    kept: np.ndarray = windows[np.union1d(np.arange(half), places)]
    return kept


def curve(layers: Sequence[KernelSizes], grid: np.ndarray) -> Curve:
    """Mean curve of the kernels of some layers, each of which counts once."""
    ratios = np.concatenate([sizes.ratios_at(grid) for sizes in layers])
    if not len(ratios):
        return Curve(grid, *(np.full(len(grid), np.nan) for _ in range(5)))
    low, median, high = np.quantile(ratios, (LOW_AND_HIGH[0], 0.5, LOW_AND_HIGH[1]), axis=0)
    return Curve(grid, ratios.mean(axis=0), ratios.std(axis=0), low, median, high)


def gaps(trained: np.ndarray, draws: Sequence[np.ndarray]) -> tuple[int, float, float]:
    """Largest difference of a mean curve from the mean of the control's.

    Args:
        trained: A curve.
        draws: The curves of untrained networks, one or more.

    Returns:
        The place and the value of the difference, and the largest magnitude of the same
        difference for one of the untrained networks from the others (NaN for a single one).
    """
    difference = trained - np.mean(draws, axis=0)
    if np.isnan(difference).any():
        return 0, float("nan"), float("nan")
    place = int(np.abs(difference).argmax())
    between = float("nan")
    if len(draws) > 1:
        # Of n curves, one differs from the others' mean by n / (n - 1) of its distance from all.
        away = np.abs(np.asarray(draws) - np.mean(draws, axis=0)).max()
        between = float(away) * len(draws) / (len(draws) - 1)
    return place, float(difference[place]), between


def percent(level: float) -> str:
    """A share as text: ``95 %``."""
    return f"{100 * level:g} %"
