"""Cases: what is run, and the rows that come of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sizeless.bench import case as module
from sizeless.bench import timing
from sizeless.bench.case import (
    Case,
    Contender,
    Laboratory,
    Step,
    Transforms,
    Work,
    make_module_run,
)
from sizeless.bench.machine import Rates
from sizeless.bench.timing import Plan

RATES = Rates(flops=1e9, bytes=1e9)


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], object]]:
    """Makers of runs that take as many seconds as they say."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def run(seconds: float) -> None:
        clock.now += seconds

    return lambda seconds: partial(partial, run, seconds)


class Meter:
    """Gives out peaks, in MiB, in the order of the calls."""

    def __init__(self, *peaks: float) -> None:
        self.peaks = list(peaks)

    def peak(self, make: object) -> float:
        return self.peaks.pop(0) * 2**20


def rows_of(*contenders: Contender, work: Work | None = None, meter: Any = None) -> dict[str, Any]:
    case = Case("s", "kind", "name", "training", (2, 3), contenders, 5, work)
    laboratory = Laboratory("cpu", RATES, Plan(1.0, least=3, hopeless=10), meter)
    return {row.contender: row for row in laboratory.run(case)}


def test_rows_say_how_it_went(takes: Callable[..., Any]) -> None:
    def broken() -> Callable[[], object]:
        raise ValueError("two\nlines")

    def failing() -> object:
        raise RuntimeError("late")

    rows = rows_of(
        Contender("ours", "ours", takes(2.0)),
        Contender("other", "baseline", takes(4.0), bar=0.25, memory_bar=0.75),
        Contender("hopeless", "peer", takes(50.0)),
        Contender("broken", "peer", broken),
        Contender("failing", "peer", lambda: failing),
        Contender("absent", "peer", None, status="not installed", note="pip install it"),
        meter=Meter(10, 20, 30),
    )
    assert {name: row.status for name, row in rows.items()} == {
        "ours": "ok",
        "other": "ok",
        "hopeless": "once",
        "broken": "failed",
        "failing": "failed",
        "absent": "not installed",
    }
    assert rows["broken"].note == "ValueError: two lines"
    assert rows["absent"].note == "pip install it"
    other = rows["other"]
    assert (other.median_ms, other.ours_over_this, other.bar) == (4000.0, 0.5, 0.25)
    assert (other.peak_mib, other.ours_memory_over_this, other.memory_bar) == (20.0, 0.5, 0.75)
    assert other.rounds == 3
    hopeless = rows["hopeless"]
    assert (hopeless.rounds, hopeless.ours_over_this, hopeless.peak_mib) == (1, 0.04, None)
    assert all(rows[name].median_ms is None for name in ("broken", "failing", "absent"))
    assert rows["ours"].shape == "2x3"


def test_without_ours_there_are_no_ratios(takes: Callable[..., Any]) -> None:
    rows = rows_of(
        Contender("ours", "ours", None, status="failed"), Contender("b", "baseline", takes(1.0))
    )
    assert rows["b"].median_ms == 1000.0
    assert rows["b"].ours_over_this is None


@pytest.mark.parametrize(
    ("work", "limit", "seconds"),
    [
        (Work(bytes=1e8, flops=1e9, mixing=1e9), "sgemm", 1.0),
        (Work(bytes=1e8, flops=8e9, mixing=1e9), "transforms", 1.5),
        (Work(bytes=1e8, flops=math.inf), "transforms", 0.5),
        (Work(bytes=9e9, flops=8e9, mixing=1e9), "copy", 9.0),
    ],
)
def test_the_limit_is_the_cheaper_way_or_memory(
    takes: Callable[..., Any], work: Work, limit: str, seconds: float
) -> None:
    contenders = Contender("ours", "ours", takes(3.0)), Contender("limit", "limit", takes(0.5))
    row = rows_of(*contenders, work=work)["ours"]
    assert (row.limit, row.limit_ms) == (limit, pytest.approx(1e3 * seconds))
    assert row.ratio_to_limit == pytest.approx(3.0 / seconds)


def test_operations_are_counted_where_a_case_names_whose() -> None:
    left, right = torch.ones(4, 8), torch.ones(8, 2)

    def make() -> Callable[[], object]:
        return lambda: left @ right

    case = Case("s", "k", "n", "forward", (4, 8), (Contender("ours", "ours", make),))
    laboratory = Laboratory("cpu", RATES, Plan(1.0, least=3, hopeless=10))
    assert laboratory.run(case)[0].limit == ""
    row = laboratory.run(replace(case, counted="ours"))[0]
    assert (row.limit, row.limit_ms) == ("sgemm", pytest.approx(1e3 * 2 * 4 * 8 * 2 / RATES.flops))


def test_a_training_step_computes_every_gradient_and_touches_the_parameters() -> None:
    layer = nn.Linear(3, 2)
    input = torch.randn(4, 3, requires_grad=True)
    parameters = list(layer.parameters())
    values, versions = [p.clone() for p in parameters], [p._version for p in parameters]
    step = Step(lambda: layer(input), [input, *parameters], "training", parameters)
    gradients = step()
    expected = torch.autograd.grad(layer(input), [input, *parameters], step.gradient)
    torch.testing.assert_close(gradients, expected)
    torch.testing.assert_close(parameters, values, rtol=0, atol=0)
    assert all(p._version > v for p, v in zip(parameters, versions, strict=True))


def test_a_forward_has_no_graph() -> None:
    input = torch.randn(3, requires_grad=True)
    output: Any = Step(lambda: 2 * input, [input], "forward")()
    assert not output.requires_grad


@pytest.mark.parametrize("mode", module.MODES)
def test_modules_run_in_the_mode_that_is_measured(mode: str) -> None:
    layer = nn.Linear(3, 2)
    result: Any = make_module_run(lambda: (layer, torch.randn(4, 3)), mode, "cpu")()
    assert layer.training is (mode == "training")
    if mode == "training":
        assert [tuple(g.shape) for g in result] == [(4, 3), (2, 3), (2,)]
    else:
        assert result.shape == (4, 2)


def test_transforms_are_of_the_shapes_that_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(torch.fft, "rfftn", lambda x, s, dim: seen.append((x.shape, s, dim)))
    monkeypatch.setattr(torch.fft, "irfftn", lambda x, s, dim: seen.append((x.shape, s, dim)))
    Transforms([(2, 3, 5, 6)], [(4, 1, 5, 6)], (8, 10), "cpu")()
    assert seen == [((2, 3, 5, 6), (8, 10), (2, 3)), ((4, 1, 8, 6), (8, 10), (2, 3))]
