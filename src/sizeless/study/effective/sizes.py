"""How large the kernels of a network are, whatever size they were given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sizeless._files import write_text
from sizeless._validate import number
from sizeless.study.bank import LayerKernels
from sizeless.study.effective.curves import (
    LOW_AND_HIGH,
    Curve,
    KernelSizes,
    curve,
    gaps,
    grid_of,
    measured,
    percent,
)
from sizeless.study.effective.figure import FEW, caption, draw
from sizeless.study.effective.mass import kernel_mass_ratio
from sizeless.study.pools import Pool, pools
from sizeless.study.result import Result

__all__ = ["EffectiveSizes", "effective_sizes", "kernel_mass_ratio"]

SizePool = Pool[KernelSizes]
COLUMNS = ("of", "layer", "kind", "stage")
"""What tells the rows of ``curves`` apart."""


@dataclass(frozen=True)
class EffectiveSizes(Result):
    """Effective sizes of each layer, and of the layers of each stage together.

    The table has a row per layer, then one per stage and kind of layer, in which every kernel that
    was measured counts once. ``of`` is ``"layer"`` or ``"stage"``; ``kernels`` of the layer,
    ``measured`` of them, of which ``left out`` were zero everywhere (or not finite) and are in no
    other number. Lengths are in samples of the map that the layer sees. Per level, here 90 %:

    - ``effective 90 %``: side of the smallest centred window that holds 90 % of a kernel's L1 mass
      (for causal layers: how many of the newest taps do), median over kernels; ``... low`` and
      ``... high`` its 10 % and 90 % quantiles, ``... mean`` its mean, ``... of map`` the median as
      a share of the longest axis of the map, at most 1, and ``... of curve`` the window at which
      the mean curve of all kernels reaches the level;
    - ``control 90 %`` and ``control 90 % mean``: median and mean over the kernels of all untrained
      networks; ``control 90 % spread``: the standard deviation, over these networks, of the mean;
    - ``score 90 %``: mean minus control mean, in units of that spread.

    ``radius`` is the root mean square distance of the energy from the origin, with the same
    companions; ``radius 90 %`` the median radius of the disc that holds 90 % of the energy.
    ``gap`` is the largest difference between the mean mass ratio of the network and that of the
    control, positive where training drew mass inward, and ``gap at`` the window where it is;
    ``control gap`` the largest such difference between one untrained network and the others.

    Locality was learned where scores are far below 0 and the gap is well above the control gap;
    otherwise the network is no more local than its architecture and its first weights made it. How
    far depends on how many untrained networks there are: one more of them would itself have a
    score beyond 3.0 in one of twenty cases with 5 draws, beyond 2.1 with 20 (Student's t).

    Attributes:
        layers: What was measured of each layer.
        stages: The same of the layers of each stage and kind.
        levels: Shares of mass and energy.
    """

    stem = "effective_size"
    title = "Effective size"

    layers: tuple[SizePool, ...]
    stages: tuple[SizePool, ...]
    levels: tuple[float, ...]

    @property
    def draws(self) -> int:
        """Untrained networks in the control."""
        return len(self.layers[0].control)

    def table(self) -> pd.DataFrame:
        """One row per layer, then one per stage and kind; lengths in samples."""
        return pd.DataFrame([_row(pool, self.levels) for pool in (*self.layers, *self.stages)])

    def curves(self) -> pd.DataFrame:
        """Mass ratio against the window size, for every layer and stage.

        Returns:
            Columns ``of``, ``layer``, ``kind``, ``stage`` as in ``table``; ``network``
            (``"trained"`` or ``"untrained"``, the kernels of all draws together); ``window`` (its
            side in samples); ``mean``, ``std``, ``low`` (10 %), ``median`` and ``high`` (90 %) of
            the mass ratio over kernels; ``spread``, the standard deviation over draws of the mean.
            Of more than 256 window sizes as many are kept, all of the small ones.
        """
        parts = [part for pool in (*self.layers, *self.stages) for part in _curves_of(pool)]
        return pd.concat(parts, ignore_index=True)

    def per_kernel(self) -> pd.DataFrame:
        """One row per kernel of each layer.

        Returns:
            Columns ``layer``, ``kind``, ``stage``; ``network``, ``"trained"`` or
            ``"untrained"``; ``draw`` of the untrained network, from 1, 0 for the trained one;
            ``kernel``, its place among those measured; per level the ``effective`` size; the
            ``radius``, and that of the disc of each level. NaN for a kernel that was left out.
        """
        parts = []
        for pool in self.layers:
            facts = {name: pool.facts[name] for name in COLUMNS[1:]}
            for draw_number, (sizes,) in enumerate((pool.trained, *pool.control)):
                columns = {
                    **facts,
                    "network": "untrained" if draw_number else "trained",
                    "draw": draw_number,
                    "kernel": np.arange(len(sizes.radius)),
                    **_named("effective", self.levels, sizes.effective),
                    "radius": sizes.radius,
                    **_named("radius", self.levels, sizes.radii),
                }
                parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Figure:
        """A panel per stage, or per layer where there are at most 6.

        Kernels with a single window size, such as 2 x 2, are left out if there are others.
        """
        return draw(self._drawn(), self.levels)

    def figure_of_layers(self) -> Figure:
        """A panel per layer."""
        return draw(self.layers, self.levels)

    def caption(self) -> str:
        """What is drawn, and the sizes in it."""
        return caption(self._drawn(), self.levels)

    def save(self, folder: Path | str) -> list[Path]:
        """Write table and picture, and the curves as ``effective_size_curves.csv``."""
        path = Path(folder) / f"{self.stem}_curves.csv"
        write_text(path, self.curves().to_csv(index=False, float_format="%.6g"))
        return [*super().save(folder), path]

    def _drawn(self) -> tuple[SizePool, ...]:
        return self.layers if len(self.layers) <= FEW else self.stages


def effective_sizes(
    layers: Sequence[LayerKernels],
    control: Sequence[Sequence[LayerKernels]] = (),
    *,
    levels: Sequence[float] = (0.5, 0.9, 0.95),
) -> EffectiveSizes:
    r"""Measure how much of a centred window the kernels of a network fill.

    The effective size at a level $\tau$ is the side of the smallest window around the origin that
    holds this share of a kernel's L1 mass,

    $$
    s_\tau = \min \{ s : \mathrm{KMR}(s) \ge \tau \},
    $$

    see ``kernel_mass_ratio``. A box of $w$ samples has the size $w$ at every level above what the
    next smaller window holds. Beside it stands where the energy lies, by distance. Much of
    the locality of an implicit filter is there before training, so give a control.

    Args:
        layers: The kernels of a network; see ``layer_kernels``.
        control: Kernels of the same network untrained, one list per draw; see
            ``untrained_kernels``. Layers are matched by name.
        levels: Shares, above 0 and at most 1.

    Returns:
        An ``EffectiveSizes``, with ``table()``, ``curves()``, ``per_kernel()`` and ``figure()``.

    Raises:
        TypeError: If ``layers`` or ``control`` hold something else.
        ValueError: If there are no layers, a draw of the control lacks one of them, or a level is
            out of range.

    Source: Grabinski et al. 2024, "As large as it gets", TMLR, arXiv 2307.10001, kernel mass ratio.

    Examples:
        >>> import sizeless, torch
        >>> from sizeless.study.bank import layer_kernels
        >>> from sizeless.study.control import untrained_kernels
        >>> model, example = sizeless.NIFFConv2d(16, 16, groups=16), torch.zeros(1, 16, 14, 14)
        >>> control = untrained_kernels(model, example, draws=2)
        >>> found = effective_sizes(layer_kernels(model, example), control)
        >>> table = found.table()
        >>> list(table["of"]), list(table["map"])
        (['layer', 'stage'], ['14 × 14', '14 × 14'])
    """
    if isinstance(levels, (str, float, int)):
        raise TypeError(f"levels must be a sequence of shares, such as (0.5, 0.9), got {levels!r}")
    checked = tuple(sorted(number("levels", level, above=0.0, maximum=1.0) for level in levels))
    if not checked:
        raise ValueError("levels must hold at least one share, such as (0.5, 0.9, 0.95), got none")
    if len(set(map(percent, checked))) < len(checked):
        raise ValueError(f"levels must differ, got {tuple(levels)}")
    alone, together = pools(layers, control, lambda layer: measured(layer, checked))
    return EffectiveSizes(tuple(alone), tuple(together), checked)


def _row(pool: SizePool, levels: Sequence[float]) -> dict[str, Any]:
    """What the table says of some layers."""
    zeros = sum(int(np.isnan(sizes.radius).sum()) for sizes in pool.trained)
    longest = max(pool.trained[0].map_size)
    row: dict[str, Any] = {**pool.facts, "left out": zeros}
    reached = curve(pool.trained, grid_of(pool)).reaching(levels)
    for place, level in enumerate(levels):
        row |= _compared(pool, "effective", percent(level), longest, place)
        row[f"effective {percent(level)} of curve"] = float(reached[place])
    row |= _compared(pool, "radius", "", longest, None)
    for place, level in enumerate(levels):
        name = f"radius {percent(level)}"
        disc = partial(_radii, place)
        row[name] = _median(pool.values(disc))
        if pool.control:
            row[f"control {name}"] = _median(np.concatenate(pool.draws(disc)))
    return row | _gap(pool)


def _compared(
    pool: SizePool, what: str, level: str, longest: int, place: int | None
) -> dict[str, float]:
    """Statistics of one length over kernels, beside those of the control."""

    def of(sizes: KernelSizes) -> np.ndarray:
        return sizes.radius if place is None else sizes.effective[:, place]

    name, values = f"{what} {level}".strip(), pool.values(of)
    low, high = _quantiles(values, LOW_AND_HIGH)
    row = {
        name: _median(values),
        f"{name} low": low,
        f"{name} high": high,
        f"{name} mean": _mean(values),
        f"{name} of map": float(np.minimum(1.0, _median(values) / longest)),
    }
    if pool.control:
        draws = pool.draws(of)
        means = np.array([_mean(draw) for draw in draws])
        together, spread = np.concatenate(draws), float("nan")
        if len(means) > 1:
            spread = float(means.std(ddof=1))
        control = f"control {level or what}"
        row |= {
            control: _median(together),
            f"{control} mean": _mean(together),
            f"{control} spread": spread,
            f"score {level or what}": _score(_mean(values) - _mean(together), spread),
        }
    return row


def _radii(place: int, sizes: KernelSizes) -> np.ndarray:
    radii: np.ndarray = sizes.radii[:, place]
    return radii


def _score(difference: float, spread: float) -> float:
    """A difference in units of a spread; nothing differs by nothing, whatever the spread."""
    if difference == 0 and spread == 0:
        return 0.0
    with np.errstate(divide="ignore"):
        return float(np.divide(difference, spread))


def _gap(pool: SizePool) -> dict[str, float]:
    if not pool.control:
        return {}
    grid = grid_of(pool)
    trained, *draws = (curve(part, grid).mean for part in (pool.trained, *pool.control))
    place, gap, between = gaps(trained, draws)
    return {"gap": gap, "gap at": float(grid[place]), "control gap": between}


def _curves_of(pool: SizePool) -> Iterator[pd.DataFrame]:
    """The mean curve of the network, and that of the control."""
    grid, facts = grid_of(pool), {name: pool.facts[name] for name in COLUMNS}
    yield _frame(facts, "trained", curve(pool.trained, grid), np.nan)
    if pool.control:
        together = curve([sizes for draw_ in pool.control for sizes in draw_], grid)
        means = np.stack([curve(draw_, grid).mean for draw_ in pool.control])
        spread = means.std(axis=0, ddof=1) if len(means) > 1 else np.nan
        yield _frame(facts, "untrained", together, spread)


def _frame(facts: dict[str, Any], network: str, found: Curve, spread: Any) -> pd.DataFrame:
    columns = {
        "window": found.windows,
        "mean": found.mean,
        "std": found.std,
        "low": found.low,
        "median": found.median,
        "high": found.high,
        "spread": spread,
    }
    return pd.DataFrame({**facts, "network": network, **columns})


def _named(what: str, levels: Sequence[float], values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{what} {percent(level)}": values[:, at] for at, level in enumerate(levels)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    return _quantiles(values, (0.5,))[0]


def _quantiles(values: np.ndarray, at: Sequence[float]) -> list[float]:
    """Quantiles that some kernel has: a size between two sizes would be none."""
    if not len(values):
        return [float("nan")] * len(at)
    return [float(q) for q in np.quantile(values, at, method="inverted_cdf")]
