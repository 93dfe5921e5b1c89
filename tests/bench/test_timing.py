"""Timing, on a clock that only the measured runs move."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from sizeless.bench import timing
from sizeless.bench.timing import Plan, Timing, measure, paired_ratio
from sizeless.machine import threads


class Clock:
    """Time that passes while a run is called, and the names of what was called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def run(self, name: str, *seconds: float) -> Callable[[], object]:
        """Return a run that takes ``seconds``, the last of them ever after."""
        left = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def fails() -> None:
    raise RuntimeError("no such thing")


def test_every_round_has_all_contenders_in_changing_order(clock: Clock) -> None:
    runs = {name: clock.run(name, 1.0) for name in "abcd"}
    results = measure(runs, Plan(budget=1e9, least=3, most=8))
    assert all(results[name] == Timing((1.0,) * 8) for name in runs)
    first, calls = clock.calls[:8], clock.calls[8:]
    assert first == list("aabbccdd"), "a call to warm up, and one to see how long it takes"
    rounds = ["".join(calls[i : i + 4]) for i in range(0, len(calls), 4)]
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len(set(rounds)) > 2


@pytest.mark.parametrize(("budget", "rounds"), [(0.0, 3), (7.5, 4), (1e9, 6)])
def test_rounds_follow_the_budget(clock: Clock, budget: float, rounds: int) -> None:
    runs = {name: clock.run(name, 1.0) for name in "ab"}
    results = measure(runs, Plan(budget, least=3, most=6))
    assert len(results["a"].seconds) == len(results["b"].seconds) == rounds


def test_what_is_hopeless_keeps_one_sample(clock: Clock) -> None:
    runs = {"ours": clock.run("ours", 1.0), "slow": clock.run("slow", 11.0)}
    results = measure(runs, Plan(1.0, hopeless=10))
    assert results["slow"] == Timing((11.0,), once=True)
    assert not results["ours"].once
    assert clock.calls.count("slow") == 1


def test_ours_is_measured_however_slow_it_is(clock: Clock) -> None:
    runs = {"ours": clock.run("ours", 50.0), "fast": clock.run("fast", 1.0)}
    results = measure(runs, Plan(1.0, least=5, hopeless=10))
    assert results["ours"] == Timing((50.0,) * 5)
    assert len(results["fast"].seconds) == 5


def test_what_stands_aside_makes_nothing_hopeless(clock: Clock) -> None:
    runs = {"ours": clock.run("ours", 1.0), "limit": clock.run("limit", 0.01)}
    runs["other"] = clock.run("other", 5.0)
    results = measure(runs, Plan(1.0, hopeless=10), aside=["limit"])
    assert not any(result.once for result in results.values())


def test_a_slow_first_call_alone_is_forgiven(clock: Clock) -> None:
    runs = {"ours": clock.run("ours", 0.001), "cold": clock.run("cold", 0.09, 0.001)}
    results = measure(runs, Plan(0.1, hopeless=10))
    assert results["cold"].median == pytest.approx(0.001)
    assert not results["cold"].once


def test_short_runs_fill_a_reading_of_the_clock(clock: Clock) -> None:
    results = measure({"short": clock.run("short", 1e-5)}, Plan(0.0, least=2))
    assert results["short"].median == pytest.approx(1e-5)
    assert len(clock.calls) >= 2 + 2 * 100


def test_failures_are_results(clock: Clock) -> None:
    runs = {"a": fails, "b": clock.run("b", 1.0), "c": fails}
    results = measure(runs, Plan(1.0))
    assert str(results["a"]) == str(results["c"]) == "no such thing"
    assert results["b"].median == 1.0
    assert set(measure({"a": fails}, Plan(1.0))) == {"a"}


def test_the_device_is_waited_for_around_every_reading(clock: Clock) -> None:
    waits = clock.run("wait", 0.0)
    measure({"a": clock.run("a", 1.0)}, Plan(0.0, least=2), waits)
    assert clock.calls == ["wait", "a", "wait"] * 4


def test_garbage_is_collected_before_and_not_meanwhile(clock: Clock) -> None:
    seen = []

    def run() -> None:
        seen.append(gc.isenabled())
        clock.now += 1

    measure({"a": run}, Plan(0.0, least=1))
    assert not any(seen)
    assert gc.isenabled()


def test_ratios_are_taken_within_rounds() -> None:
    slow_machine = (1.0, 10.0, 100.0)
    one, other = Timing(slow_machine), Timing(tuple(2 * s for s in slow_machine))
    assert paired_ratio(one, other) == 0.5
    assert paired_ratio(Timing((1.0, 2.0, 9.0)), Timing((4.0,), once=True)) == 0.5


def test_quartiles() -> None:
    assert Timing((3.0,)).quartiles == (3.0, 3.0)
    assert Timing((1.0, 2.0, 3.0, 4.0, 5.0)).quartiles == (2.0, 4.0)
    assert math.isinf(Plan(1.0).hopeless)


def test_threads_return_to_what_they_were() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
