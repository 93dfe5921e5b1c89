"""How wide kernels are, whether they have a preferred axis, and what their contours are like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sizeless._validate import int_at_least, number, one_of
from sizeless.study.bank import LayerKernels
from sizeless.study.pools import Pool, pools
from sizeless.study.result import Result
from sizeless.study.shapes.ellipses import Ellipses
from sizeless.study.shapes.figure import draw, left_out
from sizeless.study.shapes.intervals import bootstrap_mean, wilson
from sizeless.study.shapes.measure import LayerShape, log_axes, log_ratio, measure

AXES = ("x", "y", "z")
"""The last axis, the one before it, and the one before that."""
POWERS = {"abs": 1, "energy": 2}


@dataclass(frozen=True)
class Shapes(Result):
    r"""Widths, preferred axes and contours of kernels, per layer and per stage.

    Widths are standard deviations in samples; x is the last axis of a map, y the one before.
    ``log(x/y)`` is the logarithm of the width along x over that along y, 0 on average if kernels
    prefer neither. ``log(long/short)`` is that of the longest over the shortest principal width,
    0 if round. Both are means over kernels, with the ends ``low`` and ``high`` of a bootstrap
    interval.

    ``closer to square`` is the share of kernels, of those wide enough to tell, that
    $b + A e^{-\max_i (d_i / \sigma_i)^2 / 2}$ describes better than
    $b + A e^{-\sum_i (d_i / \sigma_i)^2 / 2}$, which has as many parameters; with Wilson's
    interval. The taps lie in a square themselves, so look at the control as well.

    What begins with ``fit`` is of least-squares Gaussians, all else of moments.

    Columns of the control are means over untrained networks, ``spread`` is the standard deviation
    from one to the next, and ``score`` how many of these the network is away. Intervals say how
    well the mean of such kernels is known, taking them as independent. Kernels of one generator
    (NIFF, FlexConv) are not, so there intervals are too short, and the control is the measure.

    Attributes:
        layers: One pool per layer.
        stages: One pool per stage and kind of layer.
        weight: Whether moments are of ``"abs"`` or of ``"energy"``.
        confidence: Of all intervals.
    """

    stem = "shape"
    title = "Shapes"

    layers: tuple[Pool[LayerShape], ...]
    stages: tuple[Pool[LayerShape], ...]
    weight: str
    confidence: float

    def table(self) -> pd.DataFrame:
        """One row per layer, then one per stage and kind; lengths in samples.

        Of widths and ratios the medians over kernels; ``off centre`` is the median distance of the
        centroid from the origin.
        """
        ndim = max(layer.moments.ndim for pool in self.layers for layer in pool.trained)
        return pd.DataFrame(
            [_row(pool, ndim, self.confidence) for pool in (*self.layers, *self.stages)]
        )

    def per_kernel(self) -> pd.DataFrame:
        """One row per kernel: its moments, and its fit where it has one.

        Angles are in degrees, from the last axis, counter-clockwise in a picture whose first axis
        runs downward.
        """
        parts = [_kernel_rows(pool) for pool in self.layers]
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Figure:
        """Ratios of widths and share of square contours per stage, and its mean kernel."""
        return draw(self.stages, self.confidence)

    def caption(self) -> str:
        """What is drawn, and in how many stages there is no preferred axis."""
        mass = "energy" if self.weight == "energy" else "magnitude"
        level = f"{100 * self.confidence:g} %"
        text = (
            f"Widths are standard deviations of the {mass} of kernels. Below, the mean magnitude "
            "of the kernels of each stage, with a Gaussian fitted to it at one and two standard "
            "deviations (dashed: from moments)."
        ) + left_out(self.stages)
        known = [pool for pool in self.stages if len(pool.values(log_axes)) > 1]
        if not known:
            return text
        ends = [bootstrap_mean(pool.values(log_axes), self.confidence) for pool in known]
        neither = sum(low <= 0 <= high for low, high in ends)
        text += (
            f" The {level} interval of the mean of log(x/y) holds 0, no preferred axis, in "
            f"{neither} of {len(known)} rows"
        )
        if len(known[0].control) > 1:
            usual = sum(_is_usual(pool) for pool in known)
            text += f"; the mean lies among those of untrained networks (grey) in {usual}"
        return f"{text}."


def _is_usual(pool: Pool[LayerShape]) -> bool:
    means = [draw_.mean() for draw_ in pool.draws(log_axes) if len(draw_)]
    mean = pool.values(log_axes).mean()
    return bool(means) and bool(min(means) <= mean <= max(means))


def shapes(
    layers: Sequence[LayerKernels],
    control: Sequence[Sequence[LayerKernels]] = (),
    *,
    weight: Literal["abs", "energy"] = "abs",
    confidence: float = 0.95,
    fitted: int = 64,
    seed: int = 0,
) -> Shapes:
    r"""Measure how wide kernels are, along which direction, and with what contours.

    Of every kernel the centroid $c$ and covariance $\Sigma$ of its mass,

    $$
    c = \sum_t w_t\, t \qquad \Sigma = \sum_t w_t\, (t - c)(t - c)^\top \qquad
    w_t = |k_t| \Big/ \sum_s |k_s|
    $$

    and of some kernels per layer least-squares fits of $A e^{-d^\top \Sigma^{-1} d / 2}$ to $|k|$;
    see ``shape_fit.fit``. Kernels of fewer than twice as many taps as such a fit has parameters (6
    in two dimensions: a 3 x 3 kernel), or of fewer than three taps along an axis, are not fitted,
    and fits that did not converge, or to what the taps cannot tell, do not count. Contours are
    compared for kernels that are at least 0.75 taps wide along every axis: narrower ones look
    alike whether they are round or square.

    Args:
        layers: Kernels of a network; see ``layer_kernels``.
        control: For every draw of the same network without training, its kernels; see
            ``untrained_kernels``.
        weight: ``"abs"``, moments of $|k|$, or ``"energy"``, of $k^2$, in which far and faint taps
            count less. Fits are to $|k|$ in either case.
        confidence: Of the intervals of means and shares.
        fitted: Kernels of a layer that are fitted; of more, as many are drawn, evenly.
        seed: Seed of what is drawn, by a generator of its own.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there are no layers, a draw lacks one of them, or an argument is out of
            range.

    Source: Grabinski et al. 2024, arXiv 2307.10001, appendix A, which finds learned kernels to be
    square-shaped on average; the procedure is not published, this one is ours.

    Examples:
        >>> import sizeless, torch
        >>> from sizeless.study.bank import layer_kernels
        >>> layer = sizeless.NIFFConv2d(8, 8, groups=8)
        >>> found = shapes(layer_kernels(layer, torch.zeros(1, 8, 14, 14)))
        >>> row = found.table().iloc[0]
        >>> bool(row["log(long/short)"] > 0), int(row["tried"])
        (True, 8)
    """
    power = POWERS[one_of("weight", weight, tuple(POWERS))]
    number("confidence", confidence, above=0, maximum=1)
    if confidence == 1:
        raise ValueError("confidence must be below 1, got 1: such an interval holds everything")
    int_at_least("fitted", fitted, 0)
    measured = partial(measure, power=power, fitted=fitted, seed=int_at_least("seed", seed, 0))
    alone, together = pools(layers, control, measured)
    return Shapes(tuple(alone), tuple(together), weight, confidence)


def _row(pool: Pool[LayerShape], ndim: int, confidence: float) -> dict[str, Any]:
    row = dict(pool.facts)
    for place in reversed(range(ndim)):
        row |= pool.compare(f"sigma {AXES[place]}", partial(_along, place))
    row |= pool.compare("off centre", lambda s: np.linalg.norm(s.moments.center, axis=1))
    row |= pool.compare("long/short", lambda s: np.exp(s.moments.log_ratio))
    row |= _mean(pool, "log(x/y)", log_axes, confidence)
    row |= _mean(pool, "log(long/short)", log_ratio, confidence)
    row["tried"] = sum(len(layer.drawn) for layer in pool.trained if not layer.reason)
    row["fitted"] = sum(int(layer.fitted(lambda f: f.accepted).sum()) for layer in pool.trained)
    row["not fitted"] = "; ".join(dict.fromkeys(s.reason for s in pool.trained if s.reason))
    row |= pool.compare("fit R2", lambda s: s.fitted(lambda f: f.r2))
    row |= pool.compare(
        "fit relative error of sigma", lambda s: s.fitted(lambda f: f.log_sigma_error.max(axis=1))
    )
    row |= _mean(
        pool, "fit log(x/y)", lambda s: s.fitted(lambda f: f.ellipses.log_axes), confidence
    )
    row |= _mean(
        pool, "fit log(long/short)", lambda s: s.fitted(lambda f: f.ellipses.log_ratio), confidence
    )
    squarer = pool.values(lambda s: s.squarer)
    low, high = wilson(int(squarer.sum()), len(squarer), confidence)
    row["contours compared"] = len(squarer)
    row |= pool.compare("closer to square", lambda s: s.squarer, np.mean)
    return row | {"closer to square low": low, "closer to square high": high}


def _along(place: int, shape: LayerShape) -> np.ndarray:
    return shape.moments.along(-1 - place)


def _mean(
    pool: Pool[LayerShape],
    name: str,
    of: Callable[[LayerShape], np.ndarray],
    confidence: float,
) -> dict[str, float]:
    low, high = bootstrap_mean(pool.values(of), confidence)
    return pool.compare(name, of, np.mean) | {f"{name} low": low, f"{name} high": high}


def _kernel_rows(pool: Pool[LayerShape]) -> pd.DataFrame:
    (shape,) = pool.trained
    found, count = shape.moments, len(shape.moments.center)
    columns: dict[str, Any] = {"layer": pool.facts["layer"], "kernel": np.arange(count)}
    columns |= _columns(found, "")
    if shape.fits is not None:
        fits, placed = shape.fits, np.full(count, -1)
        placed[shape.drawn] = np.arange(len(shape.drawn))
        extra = {
            "fit amplitude": fits.amplitude,
            **_columns(fits.ellipses, "fit "),
            "fit R2": fits.r2,
            "closer to square": shape.squarer,
        }
        for place in reversed(range(found.ndim)):
            axis = AXES[place]
            extra[f"fit centre {axis} error"] = fits.center_error[:, -1 - place]
            extra[f"fit relative error of sigma {axis}"] = fits.log_sigma_error[:, -1 - place]
        for name, values in extra.items():
            columns[name] = np.where(placed < 0, np.nan, values[placed])
    return pd.DataFrame(columns)


def _columns(found: Ellipses, prefix: str) -> dict[str, np.ndarray]:
    columns = {}
    for place in reversed(range(found.ndim)):
        columns[f"{prefix}centre {AXES[place]}"] = found.center[:, -1 - place]
        columns[f"{prefix}sigma {AXES[place]}"] = found.along(-1 - place)
    if found.ndim > 1:
        columns[f"{prefix}long sigma"] = found.principal[:, 0]
        columns[f"{prefix}short sigma"] = found.principal[:, -1]
    if found.ndim == 2:
        columns[f"{prefix}angle"] = found.orientation
    return columns
