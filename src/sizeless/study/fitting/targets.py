r"""Kernels to be fitted: functions of the coordinates in [-1, 1], sampled at a kernel's taps.

One unit of the coordinate is half the kernel, so that $N$ taps per axis lie $2 / (N - 1)$ apart and
their Nyquist frequency is $(N - 1) / 4$ cycles per unit. All targets are at most 1 in magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sizeless._validate import int_at_least

Axes = Sequence[np.ndarray]

FINE = 4
"""How much finer than the taps the grid is on which fits are seen between them."""
LONG = 16
"""Steps of a one-dimensional kernel for each step along the axes of the others."""
CUT = 3.0
"""Standard deviations at which the spectrum of a Gaussian counts as ended."""
PATTERN_REACH = 0.5
"""Largest coordinate of the Gabor patterns: theirs are half those of the kernel."""
PATTERN_WIDTH = 1 / 3
"""Standard deviation of their Gaussian, in units of the kernel's coordinate."""
EDGE_WIDTHS = (0.1, 0.2, 0.4)
BLOB_WIDTHS = (0.1, 0.15, 0.25, 0.4)
ORIENTATIONS = (0.0, 45.0, 90.0, 135.0)
CHIRP_END = 96.0
"""Frequency with which the chirp ends, in cycles per unit."""
IMAGE_SIDE = 264
"""Side of the square that is cut out of a photograph, in its pixels."""
NOISE_SEED = 0


@dataclass(frozen=True)
class Target:
    """A kernel to be fitted.

    Attributes:
        name: What it is called.
        values: At the taps, ``(channels, *sizes)`` with the same size on every axis, float64.
        fine: The same function on a grid ``FINE`` times as fine, or ``None`` where only the taps
            are known.
        highest: Highest frequency of any axis in cycles per unit, Gaussian spectra cut at ``CUT``
            standard deviations; ``None`` where only the taps are known.
    """

    name: str
    values: np.ndarray
    fine: np.ndarray | None = None
    highest: float | None = None

    @property
    def ndim(self) -> int:
        """Number of coordinates."""
        return self.values.ndim - 1

    @property
    def taps(self) -> int:
        """Taps per axis."""
        return int(self.values.shape[1])

    @property
    def nyquist(self) -> float:
        """Nyquist frequency of the taps, in cycles per unit."""
        return (self.taps - 1) / 4

    @property
    def variance(self) -> float:
        """Mean squared distance from the mean of the channel: 1 in normalised errors."""
        return variance(self.values)


@dataclass(frozen=True)
class Recipe:
    """How a target is made.

    Attributes:
        sample: From coordinate axes to values ``(channels, *sizes)``.
        says: What it is, for the help text.
        highest: As for ``Target``; ``None`` if ``sample`` only means anything at the taps.
        ndim: Number of coordinates.
    """

    sample: Callable[[Axes], np.ndarray]
    says: str
    highest: float | None = None
    ndim: int = 2


def variance(values: np.ndarray) -> float:
    """Mean squared distance of values ``(channels, *sizes)`` from the mean of their channel."""
    axes = tuple(range(1, values.ndim))
    return float(np.mean((values - values.mean(axis=axes, keepdims=True)) ** 2))


def target(name: str, size: int = 33) -> Target:
    """Return a target that the package has.

    Args:
        name: One of ``TARGETS``.
        size: Taps per axis, odd; a one-dimensional target has ``LONG * (size - 1) + 1``.

    Raises:
        ValueError: If the name is unknown, or the size even or below 5.

    Examples:
        >>> made = target("gabor-16", 33)
        >>> made.values.shape, made.fine.shape, made.nyquist
        ((1, 33, 33), (1, 129, 129), 8.0)
        >>> round(made.highest, 2)
        2.71
    """
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {name!r}")
    if int_at_least("size", size, 5) % 2 == 0:
        raise ValueError(f"size must be odd, so that a tap lies in the middle, got {size}")
    recipe = TARGETS[name]
    taps = size if recipe.ndim > 1 else LONG * (size - 1) + 1
    values = recipe.sample(_axes(taps, recipe.ndim))
    if recipe.highest is None:
        return Target(name, values)
    fine = recipe.sample(_axes(FINE * (taps - 1) + 1, recipe.ndim))
    return Target(name, values, fine, recipe.highest)


def read_target(path: Path) -> Target:
    """Read a kernel from a file of ``numpy.save``, and divide it by its largest magnitude.

    Args:
        path: Holds ``(taps,)``, ``(taps, taps)`` or ``(channels, taps, taps)`` real numbers.

    Raises:
        ValueError: If there is no such file, or it holds something else.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a file of numpy.save: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold one array of real numbers")
    values = values if values.ndim == 3 else values[None]
    if values.ndim not in {2, 3} or values.shape[1] != values.shape[-1] or values.shape[1] < 5:
        raise ValueError(
            f"{path} must hold (taps,), (taps, taps) or (channels, taps, taps) with at least 5 "
            f"taps, got an array of shape {values.shape}"
        )
    values = values.astype(np.float64)
    if not len(values) or not np.isfinite(values).all() or variance(values) == 0:
        raise ValueError(f"{path} must hold finite numbers that are not all equal")
    return Target(path.stem, values / np.abs(values).max())


def _axes(taps: int, ndim: int) -> Axes:
    return [np.linspace(-1.0, 1.0, taps)] * ndim


def _radius(axes: Axes) -> np.ndarray:
    return np.sqrt(np.add.reduce(np.meshgrid(*(axis**2 for axis in axes), indexing="ij")))


def _pattern(axes: Axes, nu: float) -> np.ndarray:
    """A product of sines under a Gaussian, at most 1."""

    def profile(x: np.ndarray) -> np.ndarray:
        return np.sin(nu * PATTERN_REACH * x) * np.exp(-0.5 * (x / PATTERN_WIDTH) ** 2)

    peak = profile(np.linspace(0.0, 1.0, 10_001)).max()
    rows, columns = (profile(axis) / peak for axis in axes)
    return (rows[:, None] * columns)[None]


def _edges(axes: Axes) -> np.ndarray:
    """Derivatives of Gaussians, by width and then by orientation, each with peak 1."""
    y, x = np.meshgrid(*axes, indexing="ij")
    radius = _radius(axes)
    return np.stack(
        [
            (x * math.cos(angle) + y * math.sin(angle))
            / width
            * np.exp(0.5 - 0.5 * (radius / width) ** 2)
            for width in EDGE_WIDTHS
            for angle in map(math.radians, ORIENTATIONS)
        ]
    )


def _blobs(axes: Axes) -> np.ndarray:
    """Laplacians of Gaussians, positive in the middle, each with peak 1."""
    squares = [0.5 * (_radius(axes) / width) ** 2 for width in BLOB_WIDTHS]
    return np.stack([(1 - square) * np.exp(-square) for square in squares])


def _chirp(axes: Axes) -> np.ndarray:
    (x,) = axes
    return np.sin(0.5 * math.pi * CHIRP_END * (1 + x) ** 2)[None]


def _noise(axes: Axes) -> np.ndarray:
    drawn = np.random.default_rng(NOISE_SEED)
    return drawn.uniform(-1.0, 1.0, (1, *map(len, axes)))


def _photograph(axes: Axes, name: str) -> np.ndarray:
    """The middle of a photograph in grey: each tap is the mean of its share of the pixels."""
    from sklearn.datasets import load_sample_image

    taps = len(axes[0])
    if taps > IMAGE_SIDE:
        raise ValueError(f"size must be at most {IMAGE_SIDE} for the target {name}, got {taps}")
    picture = load_sample_image(f"{name}.jpg").mean(axis=2)
    top, left = ((n - IMAGE_SIDE) // 2 for n in picture.shape)
    means = _means(taps)
    values = means @ picture[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE] @ means.T
    values -= values.mean()
    return (values / np.abs(values).max())[None]


def _means(taps: int) -> np.ndarray:
    """Weights with which the pixels along an axis make up its taps."""
    bounds = np.linspace(0.0, IMAGE_SIDE, taps + 1)
    pixels = np.arange(IMAGE_SIDE)
    covered = np.minimum(bounds[1:, None], pixels + 1) - np.maximum(bounds[:-1, None], pixels)
    return covered.clip(min=0.0) / np.diff(bounds)[:, None]


def _gaussian_end(width: float) -> float:
    return CUT / (2 * math.pi * width)


def _gabor(nu: int) -> Recipe:
    middle = nu * PATTERN_REACH / (2 * math.pi)
    return Recipe(
        partial(_pattern, nu=nu),
        f"waves of {middle:.2f} cycles per unit under a Gaussian",
        middle + _gaussian_end(PATTERN_WIDTH),
    )


TARGETS: dict[str, Recipe] = {
    **{f"gabor-{nu}": _gabor(nu) for nu in (1, 4, 16, 64)},
    "edges": Recipe(
        _edges, "12 derivatives of Gaussians: 3 widths, 4 orientations", _gaussian_end(0.1)
    ),
    "blobs": Recipe(_blobs, "4 Laplacians of Gaussians", _gaussian_end(0.1)),
    "noise": Recipe(_noise, "independent uniform numbers"),
    "china": Recipe(partial(_photograph, name="china"), "middle of a photograph of a building"),
    "flower": Recipe(partial(_photograph, name="flower"), "middle of a photograph of a flower"),
    "chirp": Recipe(
        _chirp,
        f"1-D, {LONG} x as many steps: a wave of 0 to {CHIRP_END:.0f} cycles per unit",
        CHIRP_END,
        ndim=1,
    ),
}
"""The targets that the package has, from the lowest frequencies to the highest."""
