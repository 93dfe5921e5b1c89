"""Frequency responses of the kernels of one layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from sizeless.study.bank import LayerKernels

NYQUIST = 0.5
"""Highest frequency that samples can hold, in cycles per sample."""
AT_ONCE = 2**20
"""Frequencies of all kernels that are held at once."""
TIE = 1e-12
"""What counts as rounding, in cycles per sample and in shares."""


@dataclass(frozen=True)
class Frequencies:
    """The frequencies of a real transform, flattened.

    Attributes:
        axes: Frequency along each axis, at least 0, ``(points, ndim)``, in cycles per sample.
        counts: How many frequencies of the whole transform each one stands for, ``(points,)``.
    """

    axes: np.ndarray
    counts: np.ndarray

    @cached_property
    def radius(self) -> np.ndarray:
        """Distance from frequency 0, ``(points,)``."""
        radius: np.ndarray = np.sqrt(np.square(self.axes).sum(axis=1))
        return radius.round(12)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.argsort(self.radius, kind="stable")
        radii, starts = np.unique(self.radius[order], return_index=True)
        return order, radii, starts

    @property
    def radii(self) -> np.ndarray:
        """The different distances, growing, ``(radii,)``."""
        return self._sorted[1]

    def by_radius(self, values: np.ndarray) -> np.ndarray:
        """Sums over the frequencies at each distance of what there is per point."""
        order, _, starts = self._sorted
        sums: np.ndarray = np.add.reduceat((values * self.counts)[..., order], starts, axis=-1)
        return sums


@dataclass(frozen=True)
class LayerSpectra:
    """Frequency responses of one layer's kernels of unit energy; NaN for a kernel without any.

    Attributes:
        grid: Points of the transform along each axis.
        frequency: Frequency of each ring, ``(rings,)``, in cycles per sample.
        magnitude: Mean magnitude over each ring, ``(count, rings)``; NaN for a ring without points.
        energy: Mean squared magnitude over each ring.
        bandwidth: Lowest radius up to which a share of the energy lies, ``(count,)``.
        center: Mean radius, weighted by energy, ``(count,)``.
        flat: Mean radius of a flat spectrum.
        constant: Share of the energy that is the kernel's mean, ``(count,)``.
        low: Share of the energy below half of the Nyquist frequency, ``(count,)``.
        aliased: Share of the energy above the Nyquist frequency of the output, along some axis,
            ``(count,)``; NaN where the output has the positions of the input.
        strides: Strides of the layer that are above 1.
        margin: Aliasing margin of the layer, NaN if it has none.
    """

    grid: tuple[int, ...]
    frequency: np.ndarray
    magnitude: np.ndarray
    energy: np.ndarray
    bandwidth: np.ndarray
    center: np.ndarray
    flat: float
    constant: np.ndarray
    low: np.ndarray
    aliased: np.ndarray
    strides: tuple[int, ...]
    margin: float


def frequencies(grid: Sequence[int]) -> Frequencies:
    """Frequencies of ``numpy.fft.rfftn`` on a grid.

    Examples:
        >>> found = frequencies((4,))
        >>> found.axes.ravel(), found.counts
        (array([0.  , 0.25, 0.5 ]), array([1., 2., 1.]))
    """
    axes = [np.abs(np.fft.fftfreq(n)) for n in grid[:-1]] + [np.fft.rfftfreq(grid[-1])]
    counts = np.full(len(axes[-1]), 2.0)
    counts[0] = 1.0
    if grid[-1] % 2 == 0:
        counts[-1] = 1.0
    mesh = np.meshgrid(*axes, indexing="ij")
    shape = mesh[0].shape
    return Frequencies(
        np.stack([part.ravel() for part in mesh], axis=1),
        np.broadcast_to(counts, shape).ravel(),
    )


def energies(kernels: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Squared magnitude of the frequency response of each kernel, padded with zeros to a grid.

    Args:
        kernels: ``(count, *size)``, no larger than the grid.
        grid: Points of the transform along each axis.

    Returns:
        ``(count, points)``, at the ``frequencies`` of the grid.

    Examples:
        >>> energies(np.array([[1.0, -1.0]]), (4,)).round(6)
        array([[0., 2., 4.]])
    """
    axes = tuple(range(1, kernels.ndim))
    response = np.fft.rfftn(kernels.astype(np.float64), s=tuple(grid), axes=axes)
    squared: np.ndarray = response.real**2 + response.imag**2
    return squared.reshape(len(kernels), -1)


def measure(layer: LayerKernels, *, level: float, grid: int, margin: float) -> LayerSpectra:
    """Measure a layer.

    Args:
        layer: Its kernels.
        level: Share of the energy that a bandwidth holds.
        grid: Points along each axis, at least; filters as large as their map keep to it.
        margin: Aliasing margin of the layer.
    """
    sizes, rings = _grid_of(layer, grid)
    found, count = frequencies(sizes), len(layer.kernels)
    frequency = np.arange(math.floor(rings * NYQUIST * math.sqrt(len(sizes)) + 0.5) + 1) / rings
    profiles = np.full((2, count, len(frequency)), np.nan, dtype=np.float32)
    numbers = np.full((5, count), np.nan)
    at_once = max(1, AT_ONCE // math.prod(sizes))
    for first in range(0, count, at_once):
        some = slice(first, first + at_once)
        kernels, numbers[4, some] = _of_unit_energy(layer.kernels[some])
        squared = energies(kernels, sizes)
        magnitude, energy = found.by_radius(np.sqrt(squared)), found.by_radius(squared)
        profiles[0, some] = _over_rings(magnitude, found, rings, len(frequency))
        profiles[1, some] = _over_rings(energy, found, rings, len(frequency))
        numbers[:3, some] = _radial_numbers(energy, found.radii, level)
        numbers[3, some] = _aliased(squared, found, layer.stride)
    return LayerSpectra(
        grid=sizes,
        frequency=frequency,
        magnitude=profiles[0],
        energy=profiles[1],
        bandwidth=numbers[0],
        center=numbers[1],
        low=numbers[2],
        aliased=numbers[3],
        constant=numbers[4],
        flat=float(np.average(found.radius, weights=found.counts)),
        strides=tuple(sorted({s for s in layer.stride if s > 1})),
        margin=margin,
    )


def _grid_of(layer: LayerKernels, least: int) -> tuple[tuple[int, ...], int]:
    """Points of the transform along each axis, and rings per cycle per sample."""
    if layer.kind == "NIFF":
        long = [n for n in layer.size if n > 1]
        return layer.size, min(least, *long) if long else 1
    return tuple(max(least, n + n % 2) for n in layer.size), least


def _of_unit_energy(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of energy 1, and the shares of it that are their means; NaN where there is none."""
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    peak = np.abs(flat).max(axis=1, keepdims=True)
    scaled = flat / np.where(np.isfinite(peak) & (peak > 0), peak, np.nan)
    scaled /= np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
    constant = np.square(scaled.sum(axis=1)) / flat.shape[1]
    return scaled.reshape(kernels.shape), constant


def _over_rings(sums: np.ndarray, found: Frequencies, rings: int, count: int) -> np.ndarray:
    """Means over rings of what was summed at each distance; NaN for a ring without points."""
    names, starts = np.unique(
        np.floor(found.radii * rings + 0.5 - TIE).astype(int), return_index=True
    )
    points = np.add.reduceat(found.by_radius(np.ones(len(found.counts))), starts)
    means = np.full((len(sums), count), np.nan)
    means[:, names] = np.add.reduceat(sums, starts, axis=1) / points
    return means


def _radial_numbers(energy: np.ndarray, radii: np.ndarray, level: float) -> np.ndarray:
    """Bandwidth, mean radius and share below half the Nyquist frequency, ``(3, kernels)``."""
    shares = energy / energy.sum(axis=1, keepdims=True)
    reached = (shares.cumsum(axis=1) >= level - TIE).argmax(axis=1)
    bandwidth = np.where(np.isnan(shares[:, 0]), np.nan, radii[reached])
    return np.stack([bandwidth, shares @ radii, shares @ _below(radii, NYQUIST / 2)])


def _aliased(squared: np.ndarray, found: Frequencies, stride: Sequence[int]) -> np.ndarray:
    """Share of the energy above the Nyquist frequency of the output, along some axis."""
    kept = [_below(found.axes[:, axis], NYQUIST / s) for axis, s in enumerate(stride) if s > 1]
    if not kept:
        return np.full(len(squared), np.nan)
    lost = (1 - reduce(np.multiply, kept)) * found.counts
    shares: np.ndarray = squared @ lost / (squared @ found.counts)
    return shares


def _below(values: np.ndarray, limit: float) -> np.ndarray:
    """1 below the limit, 0 above it, and a half on it, which lies on either side."""
    below: np.ndarray = 0.5 - 0.5 * np.sign((values - limit).round(12))
    return below
