"""Confidence intervals of means and shares."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
DRAWN_AT_ONCE = 2**20


def bootstrap_mean(
    values: np.ndarray, confidence: float = 0.95, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Values are drawn anew with replacement, as many as there are; the interval lies between the
    quantiles of the means. It takes the values as independent.

    Args:
        values: ``(count,)``, finite.
        confidence: Share of such intervals that hold the true mean, about.
        resamples: How often to draw.
        seed: Seed of a generator of its own.

    Returns:
        Lower and upper end; NaN for fewer than two values.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7.

    Examples:
        >>> low, high = bootstrap_mean(np.arange(100.0))
        >>> low < 49.5 < high
        True
    """
    if len(values) < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    rows = max(1, DRAWN_AT_ONCE // len(values))
    means = [
        values[
            generator.integers(len(values), size=(min(rows, resamples - start), len(values)))
        ].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Wilson's interval of a share.

    $$
    \frac{p + \frac{z^2}{2n} \pm z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}}}
    {1 + \frac{z^2}{n}}
    $$

    Args:
        successes: How many of them.
        count: Of how many.
        confidence: Share of such intervals that hold the true share, about.

    Returns:
        Lower and upper end in [0, 1]; NaN for a count of 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22.

    Examples:
        >>> tuple(round(end, 3) for end in wilson(5, 10))
        (0.237, 0.763)
    """
    if not count:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / count
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    whole = 1 + z**2 / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)
