"""Principal components of the kernels of some layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sizeless._validate import positive_int
from sizeless.study.effective.mass import tap_sides

CROP = 9
"""Side of the central part that is shown beside the whole."""


@dataclass(frozen=True)
class PrincipalGroup:
    """Principal components of the kernels of some layers.

    Attributes:
        label: What the layers are called in a picture.
        facts: What the rows of the table begin with.
        components: ``(components, *size)``, each of norm 1, the tap of largest magnitude positive.
        shares: Share of the variance that each of them explains, falling.
        mean: The mean kernel, ``size``.
        origin: Index of the present position on each axis.
        causal: Whether all kernels look back only.
        left_out: Kernels that were not finite.
    """

    label: str
    facts: dict[str, Any]
    components: np.ndarray
    shares: np.ndarray
    mean: np.ndarray
    origin: tuple[float, ...]
    causal: bool
    left_out: int = 0

    @property
    def size(self) -> tuple[int, ...]:
        """Taps per axis of the grid that all kernels share."""
        return tuple(self.mean.shape)

    def cropped(self, size: int = CROP) -> PrincipalGroup:
        """Return the same with the central part of each pattern.

        Args:
            size: Side of the window around the origin; for causal kernels the newest taps.

        Raises:
            ValueError: If ``size`` is not positive, or no tap lies in the window.
        """
        positive_int("size", size)
        sides = tap_sides(self.size, self.origin, self.causal)
        places = np.nonzero(sides <= size)
        if not len(places[0]):
            raise ValueError(f"size must be at least {sides.min()} to hold a tap, got {size}")
        window = tuple(slice(axis.min(), axis.max() + 1) for axis in places)
        return PrincipalGroup(
            self.label,
            self.facts,
            self.components[(slice(None), *window)],
            self.shares,
            self.mean[window],
            tuple(o - axis.start for o, axis in zip(self.origin, window, strict=True)),
            self.causal,
            self.left_out,
        )
