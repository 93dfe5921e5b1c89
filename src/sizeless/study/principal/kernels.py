"""The few patterns that the kernels of a network are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from sizeless._validate import one_of, positive_int
from sizeless.study.bank import LayerKernels
from sizeless.study.effective.mass import kernel_mass_ratio, reaching
from sizeless.study.groups import By, called, product
from sizeless.study.pools import Pool, pools
from sizeless.study.principal.figure import draw
from sizeless.study.principal.group import CROP, PrincipalGroup
from sizeless.study.result import Result

EXACT = 512
"""Samples or taps up to which a full decomposition takes no time."""
NOTHING = 1e-20
"""Share of the variance that is only rounding: kernels do not vary in this direction."""
MASS = 0.9
"""Share of a component's mass by which the table tells how large it is."""


@dataclass(frozen=True)
class PrincipalKernels(Result):
    """Principal components of the kernels of each stage, or each layer.

    The table has a row per component: what it is of, as in ``EffectiveSizes``, with ``grid``, the
    common grid of all its kernels, and ``left out``, kernels that were not finite; ``component``,
    from 1; ``share`` of the variance and ``share so far``; and ``effective 90 %``, the side of the
    window around the origin that holds 90 % of the component's L1 mass, in samples. A group whose
    kernels are all alike has no components, and one row without them.

    Attributes:
        groups: The components of each group of layers.
    """

    stem = "principal_kernels"
    title = "Principal kernels"

    groups: tuple[PrincipalGroup, ...]

    def table(self) -> pd.DataFrame:
        """One row per group and component."""
        return pd.DataFrame([row for group in self.groups for row in _rows(group)])

    def cropped(self, size: int = CROP) -> PrincipalKernels:
        """Return the same with the central part of each pattern; see ``PrincipalGroup``."""
        return PrincipalKernels(tuple(group.cropped(size) for group in self.groups))

    def figure(self) -> Figure:
        """Per group a row of patterns, and one of their central 9 samples where they are larger."""
        return draw(self.groups)

    def caption(self) -> str:
        """What is drawn, and how much the first component explains."""
        first = [
            f"{called(group.facts)}: {share:.0%}".replace("%", " %")
            for group in self.groups
            for share in group.shares[:1]
        ]
        text = (
            "Mean kernel and principal components (red positive, blue negative, each on a scale "
            f"of its own that is symmetric about 0), and beneath them their central {CROP} "
            "samples, with the share of the variance that each explains."
        )
        return f"{text} Explained by the first: {'; '.join(first)}." if first else text


def principal_kernels(
    layers: Sequence[LayerKernels], *, components: int = 7, by: By = "stage"
) -> PrincipalKernels:
    r"""Find the principal components of the kernels of each stage, or layer.

    Each kernel is a sample and each tap a feature; samples are centred and not scaled, so strong
    kernels count for more. Kernels of different sizes are aligned at their origins and padded with
    zeros; where some have a tap at the origin and others two beside it, the latter are moved up by
    half a sample. Layers of different kinds in one stage are not mixed. Signs carry no
    meaning: they are chosen such that the tap of largest magnitude is positive.

    Where both kernels and taps are many (more than 512), the decomposition is a randomised one,
    with a fixed seed.

    Args:
        layers: The kernels of a network; see ``layer_kernels``.
        components: How many to keep; fewer where kernels vary in fewer directions.
        by: ``"stage"``, all layers that see maps of one size together, or ``"layer"``.

    Returns:
        A ``PrincipalKernels``, with ``table()``, ``cropped()`` and ``figure()``.

    Raises:
        TypeError: If ``layers`` hold something else, or ``components`` is no int.
        ValueError: If there are no layers, ``components`` is not positive or ``by`` is neither.

    Source: Grabinski et al. 2024, "As large as it gets", TMLR, arXiv 2307.10001, figure 1.

    Examples:
        >>> import sizeless, torch
        >>> from sizeless.study.bank import layer_kernels
        >>> model = sizeless.NIFFConv2d(16, 16, groups=16)
        >>> found = principal_kernels(layer_kernels(model, torch.zeros(1, 16, 14, 14)))
        >>> found.groups[0].components.shape, found.cropped(9).groups[0].components.shape
        ((7, 14, 14), (7, 9, 9))
    """
    positive_int("components", components)
    one_of("by", by, ("stage", "layer"))
    alone, together = pools(layers, (), lambda layer: layer)
    chosen = alone if by == "layer" else together
    return PrincipalKernels(tuple(_group(pool, components) for pool in chosen))


def _group(pool: Pool[LayerKernels], components: int) -> PrincipalGroup:
    kernels, origin = aligned(pool.trained)
    size = kernels.shape[1:]
    samples = kernels.reshape(len(kernels), -1)
    kept = samples[np.isfinite(samples).all(axis=1)]
    patterns, shares = _decomposed(kept, components)
    mean = kept.mean(axis=0) if len(kept) else np.full(samples.shape[1], np.nan)
    return PrincipalGroup(
        label=pool.label,
        facts={**pool.facts, "grid": product(size), "left out": len(samples) - len(kept)},
        components=patterns.reshape(-1, *size),
        shares=shares,
        mean=mean.reshape(size),
        origin=origin,
        causal=all(layer.causal for layer in pool.trained),
        left_out=len(samples) - len(kept),
    )


def aligned(layers: Sequence[LayerKernels]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Bring kernels of several sizes to the smallest grid that holds all of them.

    Args:
        layers: Kernels, of one or more layers.

    Returns:
        All kernels, ``(count, *size)`` in float64 with zeros around them, and their origin.
    """
    places = np.array([layer.origin for layer in layers], dtype=np.float64)
    sizes = np.array([layer.size for layer in layers])
    halves = places % 1 != 0
    # No grid holds both: those between two taps give way.
    places = np.where(halves & ~halves.all(axis=0), np.floor(places), places)
    before, after = places.max(axis=0), (sizes - 1 - places).max(axis=0)
    grid = np.rint(before + after + 1).astype(int)
    kernels = np.zeros((sum(len(layer.kernels) for layer in layers), *grid))
    start = 0
    for layer, place in zip(layers, places, strict=True):
        corner = np.rint(before - place).astype(int)
        window = (slice(c, c + n) for c, n in zip(corner, layer.size, strict=True))
        kernels[(slice(start, start + len(layer.kernels)), *window)] = layer.kernels
        start += len(layer.kernels)
    return kernels, tuple(float(place) for place in before)


def _decomposed(samples: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Components and their shares of the variance; none where nothing varies."""
    count, taps = samples.shape
    # Centring takes away one of the directions that so many samples could have.
    most = min(components, count - 1, taps)
    if most < 1 or not np.ptp(samples, axis=0).any():
        return np.zeros((0, taps)), np.zeros(0)
    solver = "full" if min(count, taps) <= EXACT else "randomized"
    found = PCA(most, svd_solver=solver, n_oversamples=20, random_state=0).fit(samples)
    varying = found.explained_variance_ratio_ > NOTHING
    patterns, shares = found.components_[varying], found.explained_variance_ratio_[varying]
    peaks = np.abs(patterns).argmax(axis=1)
    return patterns * np.sign(patterns[np.arange(len(peaks)), peaks])[:, None], shares


def _rows(group: PrincipalGroup) -> list[dict[str, Any]]:
    if not len(group.shares):
        return [{**group.facts, "component": 0, "share": np.nan}]
    windows, ratios = kernel_mass_ratio(group.components, group.origin, group.causal)
    sides = reaching(windows, ratios, [MASS])[:, 0]
    return [
        {
            **group.facts,
            "component": place + 1,
            "share": float(share),
            "share so far": float(so_far),
            f"effective {MASS:.0%}".replace("%", " %"): float(side),
        }
        for place, (share, so_far, side) in enumerate(
            zip(group.shares, np.cumsum(group.shares), sides, strict=True)
        )
    ]
