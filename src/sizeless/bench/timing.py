"""Timing several things side by side, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Run = Callable[[], object]

SHORTEST = 1e-3
"""Seconds that one reading of the clock should span: shorter runs are repeated."""

WORTH_REPEATING = 0.1
"""Seconds below which a first call may be slow for reasons of its own, and is repeated."""

MOST_SAMPLES = 5
"""Most samples of a fast contender in one round of slow ones."""


@dataclass(frozen=True)
class Timing:
    """Seconds that one run takes.

    Attributes:
        seconds: One value per round; the rounds of all contenders were interleaved.
        once: Whether it was so slow that its first call is all there is.
    """

    seconds: tuple[float, ...]
    once: bool = False

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile over the rounds."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        budget: Seconds for all rounds of one set of contenders together.
        least: Fewest rounds, whatever they take.
        most: Most rounds.
        hopeless: A contender slower than the fastest by this factor is measured once.
    """

    budget: float
    least: int = 5
    most: int = 30
    hopeless: float = math.inf


def measure(
    runs: Mapping[str, Run],
    plan: Plan,
    synchronize: Run = lambda: None,
    aside: Collection[str] = (),
) -> dict[str, Timing | Exception]:
    """Time all ``runs`` in interleaved rounds.

    Each is called once to warm up. The first one always takes part in the rounds; another one that
    is hopeless keeps its first call as its only sample.

    Args:
        runs: What to call, by name.
        plan: How long to measure.
        synchronize: Waits for the device; called before every reading of the clock.
        aside: Names of runs that make no other one hopeless.

    Returns:
        For each name its timing, or the exception that its first call raised.
    """
    results: dict[str, Timing | Exception] = {}
    with _undisturbed():
        first = _first_calls(runs, plan, synchronize, aside, results)
        if not first:
            return results
        rounds = _rounds({name: runs[name] for name in first}, first, plan, synchronize)
    results.update({name: Timing(tuple(seconds)) for name, seconds in rounds.items()})
    return results


def paired_ratio(one: Timing, other: Timing) -> float:
    """Median over the rounds of the time of ``one`` over that of ``other``."""
    if one.once or other.once:
        return one.median / other.median
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))


def _first_calls(
    runs: Mapping[str, Run],
    plan: Plan,
    synchronize: Run,
    aside: Collection[str],
    results: dict[str, Timing | Exception],
) -> dict[str, float]:
    """Warm up; put failures and hopeless ones in ``results``, and return the seconds of others."""
    first: dict[str, float] = {}
    leader = next(iter(runs))
    for name, run in runs.items():
        fastest = _fastest(first, aside)
        try:
            seconds = _clock(run, 1, synchronize)
            if seconds <= plan.hopeless * fastest or seconds < WORTH_REPEATING:
                seconds = _clock(run, 1, synchronize)
        except Exception as error:
            results[name] = error
            continue
        first[name] = seconds
    fastest = _fastest(first, aside)
    for name in list(first):
        if name != leader and first[name] > plan.hopeless * fastest:
            results[name] = Timing((first.pop(name),), once=True)
    return first


def _fastest(first: Mapping[str, float], aside: Collection[str]) -> float:
    return min((s for name, s in first.items() if name not in aside), default=math.inf)


def _rounds(
    runs: Mapping[str, Run], first: Mapping[str, float], plan: Plan, synchronize: Run
) -> dict[str, list[float]]:
    slowest = max(first.values())
    calls = {name: max(1, math.ceil(SHORTEST / max(s, 1e-9))) for name, s in first.items()}
    samples = {
        name: min(MOST_SAMPLES, max(1, int(0.1 * slowest / (s * calls[name]))))
        for name, s in first.items()
    }
    rounds: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle, spent, count = list(runs), random.Random(0).shuffle, 0.0, 0
    while count < plan.least or (count < plan.most and spent < plan.budget):
        start = time.perf_counter()
        # What ran before leaves the caches in some state: no run may always follow the same one.
        shuffle(order)
        for name in order:
            taken = [_clock(runs[name], calls[name], synchronize) for _ in range(samples[name])]
            rounds[name].append(statistics.median(taken))
        spent += time.perf_counter() - start
        count += 1
    return rounds


def _clock(run: Run, calls: int, synchronize: Run) -> float:
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize()
    return (time.perf_counter() - start) / calls


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep Python's garbage collector quiet meanwhile."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
