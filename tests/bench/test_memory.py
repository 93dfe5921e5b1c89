"""Peak memory, read from the system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from sizeless.bench.memory import CLEAR, MemoryMeter, peak_here

MIB = 2**20
FLOATS = 16 * MIB
SIZE = 4.0 * FLOATS

pytestmark = pytest.mark.skipif(
    not (hasattr(os, "fork") and CLEAR.exists()), reason="needs Linux's /proc"
)


@pytest.fixture(scope="module")
def meter() -> Iterator[MemoryMeter]:
    with MemoryMeter(threads=1) as made:
        yield made


def test_what_a_run_allocates_is_seen(meter: MemoryMeter) -> None:
    assert meter.peak(partial(partial, torch.ones, FLOATS)) == pytest.approx(SIZE, rel=0.2)
    assert meter.peak(partial(partial, torch.ones, 1)) < 2 * MIB


def test_inputs_do_not_count() -> None:
    def make() -> Callable[[], object]:
        large = torch.ones(FLOATS)
        return large[:1].clone

    assert peak_here(make, torch.get_num_threads()) < 8 * MIB


def test_temporaries_count_together() -> None:
    def make() -> Callable[[], object]:
        return lambda: torch.ones(FLOATS).add(1).sum()

    assert peak_here(make, torch.get_num_threads()) == pytest.approx(2 * SIZE, rel=0.2)


def test_what_is_kept_counts_and_what_making_it_took_does_not() -> None:
    kept: list[Tensor] = []

    def run() -> None:
        if not kept:
            kept.append(torch.ones(4 * FLOATS)[:FLOATS].clone())

    assert peak_here(lambda: run, torch.get_num_threads()) == pytest.approx(SIZE, rel=0.2)


def test_what_fails_has_no_peak(meter: MemoryMeter) -> None:
    assert meter.peak(partial(partial, torch.ones, -1)) is None
    assert meter.peak(partial(os._exit, 1)) is None
    assert meter.peak(partial(partial, torch.ones, 1)) is not None, "the next one is measured"


def test_what_does_not_pickle_is_an_error_and_nothing_is_lost(meter: MemoryMeter) -> None:
    with pytest.raises(Exception, match="pickle"):
        meter.peak(lambda: lambda: None)
    assert meter.peak(partial(partial, torch.ones, 1)) is not None


def test_a_lost_server_is_replaced(meter: MemoryMeter) -> None:
    meter.peak(partial(partial, torch.ones, 1))
    meter._server.kill()
    assert meter.peak(partial(partial, torch.ones, 1)) is None
    assert meter.peak(partial(partial, torch.ones, 1)) is not None


@pytest.mark.parametrize("follows", [False, True])
def test_plans_are_followed_only_if_they_are_elsewhere(
    follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, env: dict[str, str], **__: object) -> None:
        started.append(env["SIZELESS_CACHE"])
        raise KeyboardInterrupt

    started: list[str] = []
    monkeypatch.setenv("SIZELESS_CACHE", "somewhere")
    monkeypatch.setattr("subprocess.Popen", start)
    with MemoryMeter(1, plans=follows) as meter, pytest.raises(KeyboardInterrupt):
        meter.peak(partial(partial, torch.ones, 1))
    assert started == ["somewhere" if follows else ""]
