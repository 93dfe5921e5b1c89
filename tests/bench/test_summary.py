"""What the rows come to."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from sizeless.bench.summary import (
    bar_table,
    convolve_tables,
    meets,
    ratio_of,
    summarise,
    verdicts,
)

from .made_rows import layer, point


def shown(*tables: Any) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get()


def test_the_best_way_is_the_fastest_that_computes_the_same() -> None:
    rows = point(
        5,
        sizeless=12,
        sizeless_fft=11,
        torch=20,
        textbook_fft=40,
        julius=10,
        **{"torch channels_last": 5, "bare transforms": 1},
    )
    (verdict,) = verdicts(rows)
    assert verdict.best.contender == "sizeless fft"
    assert verdict.ratio == pytest.approx(12 / 11)
    assert verdict.peer is not None
    assert verdict.peer.contender == "julius"
    assert verdict.lost_to_a_peer


@pytest.mark.parametrize(
    ("times", "lost"),
    [
        ({"torch": 10, "julius": 9}, False),
        ({"torch": 20, "textbook_fft": 10, "julius": 9}, True),
        ({"torch": 20, "textbook_fft": 10, "julius": 9.9}, False),
        ({"torch": 20, "textbook_fft": 10, "julius": 12}, False),
        ({"torch": 20, "textbook_fft": 10}, False),
    ],
)
def test_a_package_may_win_by_calling_torch(times: dict[str, float], lost: bool) -> None:
    (verdict,) = verdicts(point(5, sizeless=10, **times))
    assert verdict.lost_to_a_peer is lost


def test_points_without_ours_or_another_way_are_left_out() -> None:
    alone, without = point(5, sizeless=1, julius=1), point(7, sizeless=1, torch=1)[1:]
    assert verdicts([*alone, *without]) == []
    assert convolve_tables([]) == []
    with pytest.raises(ValueError, match="no point was measured"):
        summarise([])
    with pytest.raises(ValueError, match="textbook was not measured in a layer"):
        ratio_of(layer(None)[1])


@pytest.mark.parametrize(
    ("ratios", "near", "met"),
    [
        ([1.0] * 19 + [1.29], 0.95, True),
        ([1.0] * 18 + [1.11, 1.29], 0.90, False),
        ([1.0] * 19 + [1.30], 0.95, False),
        ([1.1], 1.0, True),
    ],
)
def test_a_summary_counts(ratios: list[float], near: float, met: bool) -> None:
    rows = [r for k, ratio in enumerate(ratios) for r in point(k, sizeless=ratio, torch=1.0)]
    summary = summarise(verdicts(rows))
    assert (summary.points, summary.worst) == (len(ratios), max(ratios))
    assert summary.near == pytest.approx(near)
    assert summary.met is met


def test_losing_to_a_package_is_not_enough() -> None:
    rows = point(5, sizeless=10, textbook_fft=10, julius=5)
    summary = summarise(verdicts(rows))
    assert (summary.near, summary.lost, summary.met) == (1.0, 1, False)


def test_tables_of_convolutions() -> None:
    good = point(5, "1-D dense", sizeless=1, torch=2)
    bad = point(7, "2-D dense", "forward", sizeless=3, torch=2)
    lost = point(9, "2-D dense", sizeless=10, textbook_fft=10, julius=5)
    lines = shown(*convolve_tables([*good, *bad, *lost])).splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert ["1-D dense", "1", "100%", "0.50", "0", "", "met"] in cells
    assert ["2-D dense", "2", "50%", "1.50", "1", "", "missed"] in cells
    assert ["all", "3", "67%", "1.50", "1", "", "missed"] in cells
    assert ["2-D dense k7", "forward", "3", "2", "torch", "1.50", "", ""] in cells
    short = ["2-D dense k9", "training", "10", "10", "textbook fft", "1.00", "julius", "2.00"]
    assert short in cells
    assert len(convolve_tables(good)) == 1


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (layer(0.5, bar=0.5), True),
        (layer(0.51, bar=0.5), True),
        (layer(0.52, bar=0.5), False),
        (layer(0.5, bar=1.0, memory=0.4, memory_bar=0.5), True),
        (layer(0.5, bar=1.0, memory=0.6, memory_bar=0.5), False),
        (layer(0.5, bar=1.0, memory=None, memory_bar=0.5), None),
        (layer(None, bar=0.5), None),
        (layer(0.5), None),
    ],
)
def test_bars(row: list[Any], met: bool | None) -> None:
    assert meets(row[1]) is met


def test_table_of_bars() -> None:
    rows = [
        *layer(0.25, bar=0.5, memory=0.5, memory_bar=0.8, case="good"),
        *layer(0.5, bar=0.25, case="bad"),
        *layer(None, bar=0.25, case="broken"),
        *layer(2.0, case="free"),
    ]
    text = shown(bar_table("layers", rows))
    lines = [[c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines()]
    start = ["training", "textbook", "10"]
    assert ["good", *start, "40", "4×", "2×", "2×", "1.25×", "met"] in lines
    assert ["bad", *start, "20", "2×", "4×", "", "", "missed"] in lines
    assert ["broken", *start, "", "failed", "4×", "", "", "not measured"] in lines
    assert ["free", *start, "5", "0.5×", "", "", "", ""] in lines
    assert "1 of 3 bars met" in text
    assert "bare transforms" not in text
    assert "bars met" not in shown(bar_table("layers", layer(2.0)))


def test_what_the_same_call_says_twice_bounds_what_can_be_asked() -> None:
    still = point(5, sizeless=10, torch=10, **{"sizeless again": 10.5})
    shaken = point(7, sizeless=10, torch=10, **{"sizeless again": 8})
    steady, unsteady = verdicts([*still, *shaken])
    assert steady.apart == pytest.approx(1.05)
    assert unsteady.apart == pytest.approx(1.25)
    assert unsteady.best.contender == "torch"
    assert summarise([steady, unsteady]).steady == 0.5
    assert summarise(verdicts(point(5, sizeless=10, torch=10))).steady is None
    assert "50%" in shown(*convolve_tables([*still, *shaken]))
