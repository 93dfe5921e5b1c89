"""Which frequencies kernels let through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sizeless._validate import int_at_least, number
from sizeless.study.bank import LayerKernels
from sizeless.study.pools import Pool, pools
from sizeless.study.result import Result
from sizeless.study.spectra.figure import LOW_AND_HIGH, caption, draw, rows
from sizeless.study.spectra.measure import NYQUIST, LayerSpectra, measure


@dataclass(frozen=True)
class Spectra(Result):
    r"""Frequency responses of kernels, per layer and per stage.

    Frequencies are radial, $\sqrt{\sum_d f_d^2}$, in cycles per pixel (or sample) of the map that
    the layer sees. Along an axis they end at the Nyquist frequency of 0.5; the corners of the
    spectrum, where all axes are high, reach $0.5 \sqrt{d}$ in $d$ dimensions and count too, so a
    bandwidth may be above 0.5. Every kernel is scaled to unit energy: gain, which normalisation
    layers undo, does not count, and a kernel that lets all frequencies through alike has a
    magnitude of 1 everywhere.

    Columns of the table:

    - ``bandwidth``: lowest frequency up to which ``level`` of the energy lies, the median over
      kernels, with the 10 % and 90 % quantiles as ``low`` and ``high``; ``bandwidth of Nyquist`` is
      the median in parts of 0.5.
    - ``centre frequency``: mean frequency, weighted by energy; the median over kernels.
    - ``energy at DC``: share of a kernel's energy that is its mean, $(\sum k)^2 / (n \sum k^2)$ for
      $n$ taps; the mean over kernels, as are all shares.
    - ``energy below half Nyquist``: share of the energy below 0.25.
    - ``high-pass``: share of kernels whose centre frequency is above that of a flat spectrum.
    - ``energy that aliases``: of layers that stride, the share of the energy that lies, along some
      axis, above the Nyquist frequency of their output, 0.5 / stride. Of white noise, this share
      of the output folds onto lower frequencies.
    - ``margin``: of FlexConv layers, how far the analytic bound of their frequencies stays below
      the Nyquist frequency of their taps, in parts of it; the lowest of a stage.

    Columns of the control are means over untrained networks, ``spread`` is the standard deviation
    from one to the next, and ``score`` how many of these the network is away.

    Attributes:
        layers: One pool per layer.
        stages: One pool per stage and kind of layer.
        level: Share of the energy that a bandwidth holds.
    """

    stem = "spectra"
    title = "Frequency responses"

    layers: tuple[Pool[LayerSpectra], ...]
    stages: tuple[Pool[LayerSpectra], ...]
    level: float

    def table(self) -> pd.DataFrame:
        """One row per layer, then one per stage and kind; frequencies in cycles per pixel."""
        table = pd.DataFrame([_row(pool) for pool in (*self.layers, *self.stages)])
        return table if table["margin"].notna().any() else table.drop(columns="margin")

    def profiles(self) -> pd.DataFrame:
        """Radial averages: one row per layer or stage, network and frequency.

        ``magnitude`` and ``energy`` are means over the ring of the frequency and over kernels;
        ``low``, ``median`` and ``high`` are the 10, 50 and 90 % quantiles of the magnitude over
        kernels. ``network`` is ``"trained"``, or ``"untrained"`` for all draws of the control
        together.
        """
        parts = [part for pool in (*self.layers, *self.stages) for part in _profiles(pool)]
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Figure:
        """A panel per stage and kind of layer."""
        return draw(self.stages, self.level)

    def caption(self) -> str:
        """What is drawn, and the bandwidths of the first stages."""
        return caption(self.stages, self.level)


def spectra(
    layers: Sequence[LayerKernels],
    control: Sequence[Sequence[LayerKernels]] = (),
    *,
    level: float = 0.95,
    grid: int = 64,
    margins: Mapping[str, float] | None = None,
) -> Spectra:
    r"""Measure the frequency responses of kernels.

    $$
    H(f) = \sum_t k_t\, e^{-2 \pi i f \cdot t}
    $$

    at the frequencies of a grid: kernels are padded with zeros to at least ``grid`` points along
    each axis. NIFF kernels are taken on the grid of their own map, on which they act. Radial
    averages are over rings 1 / ``grid`` cycles per pixel wide, or one over the shortest side of
    a smaller map.

    Args:
        layers: Kernels of a network; see ``layer_kernels``.
        control: For every draw of the same network without training, its kernels; see
            ``untrained_kernels``.
        level: Share of the energy that a bandwidth holds, above 0 and at most 1.
        grid: Points along each axis, at least; even, and at least 2. More of them tell low
            frequencies of long kernels apart.
        margins: Aliasing margins of FlexConv layers by their paths, which are shown beside what was
            measured; see ``sizeless.penalties.aliasing_margins``. Those of layers that are not in
            ``layers`` are not shown.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there are no layers, a draw lacks one of them, or a number is out of range.

    Examples:
        >>> import sizeless, torch
        >>> from sizeless.study.bank import layer_kernels
        >>> blur = torch.nn.Conv1d(1, 1, 3, stride=2, bias=False)
        >>> blur.weight.data = torch.tensor([[[0.25, 0.5, 0.25]]])
        >>> found = spectra(layer_kernels(blur, torch.zeros(1, 1, 16)))
        >>> float(found.table()["energy that aliases"].iloc[0].round(3))
        0.076
    """
    number("level", level, above=0, maximum=1)
    if int_at_least("grid", grid, 2) % 2:
        raise ValueError(f"grid must be even, so that it has the Nyquist frequency, got {grid}")
    known = dict(margins or {})
    alone, together = pools(
        layers,
        control,
        lambda layer: measure(
            layer, level=level, grid=grid, margin=known.get(layer.name, float("nan"))
        ),
    )
    return Spectra(tuple(alone), tuple(together), level)


def _row(pool: Pool[LayerSpectra]) -> dict[str, Any]:
    row = dict(pool.facts)
    row["grid"] = " × ".join(map(str, np.max([layer.grid for layer in pool.trained], axis=0)))
    bandwidths = pool.values(lambda s: s.bandwidth)
    row |= pool.compare("bandwidth", lambda s: s.bandwidth)
    for name, at in zip(("low", "high"), LOW_AND_HIGH, strict=True):
        row[f"bandwidth {name}"] = (
            float(np.quantile(bandwidths, at)) if len(bandwidths) else float("nan")
        )
    row["bandwidth of Nyquist"] = row["bandwidth"] / NYQUIST
    row |= pool.compare("centre frequency", lambda s: s.center)
    row |= pool.compare("energy at DC", lambda s: s.constant, np.mean)
    row |= pool.compare("energy below half Nyquist", lambda s: s.low, np.mean)
    row |= pool.compare("high-pass", _is_high_pass, np.mean)
    row |= pool.compare("energy that aliases", lambda s: s.aliased, np.mean)
    margins = [layer.margin for layer in pool.trained if np.isfinite(layer.margin)]
    row["margin"] = min(margins, default=float("nan"))
    return row


def _is_high_pass(found: LayerSpectra) -> np.ndarray:
    above = np.where(found.center > found.flat + 1e-9, 1.0, 0.0)
    return np.where(np.isfinite(found.center), above, np.nan)


def _profiles(pool: Pool[LayerSpectra]) -> list[pd.DataFrame]:
    facts = {name: pool.facts[name] for name in ("of", "layer", "kind", "stage")}
    together = tuple(layer for draw_ in pool.control for layer in draw_)
    parts = []
    for network, layers in (("trained", pool.trained), ("untrained", together)):
        if not layers:
            continue
        frequency = pool.trained[0].frequency
        magnitude = rows(layers, frequency)
        quantiles = np.full((3, magnitude.shape[1]), np.nan)
        means = np.full((2, magnitude.shape[1]), np.nan)
        if len(magnitude):
            quantiles = np.quantile(magnitude, (LOW_AND_HIGH[0], 0.5, LOW_AND_HIGH[1]), axis=0)
            means = np.stack(
                [magnitude.mean(axis=0), rows(layers, frequency, "energy").mean(axis=0)]
            )
        columns = dict(zip(("low", "median", "high"), quantiles, strict=True))
        columns |= {"magnitude": means[0], "energy": means[1]}
        parts.append(pd.DataFrame({**facts, "network": network, "frequency": frequency, **columns}))
    return parts
