"""The file of results: what is written reads back, and no crash spoils it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sizeless.bench import rows as module
from sizeless.bench.rows import COLUMNS, Results, Row, by, read_rows, to_csv

FULL = Row(
    "layers",
    "FlexConv",
    "a case, with a comma",
    "training",
    "2x3x4",
    "contiguous",
    5,
    "ours",
    "ours",
    "ok",
    note='says "so"',
    rounds=7,
    median_ms=1.25,
    low_ms=1.0,
    high_ms=1.5,
    ours_over_this=1.0,
    bar=0.5,
    peak_mib=12.5,
    ours_memory_over_this=0.25,
    memory_bar=0.5,
    limit="sgemm",
    limit_ms=0.75,
    ratio_to_limit=2.5,
)
BARE = Row("layers", "NIFF", "another", "forward", "1", "contiguous", None, "x", "peer", "skipped")


def test_rows_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(to_csv([FULL, BARE]))
    assert read_rows(path) == [FULL, BARE]
    assert path.read_text().splitlines()[0].split(",") == COLUMNS
    assert read_rows(tmp_path / "none.csv") == []


def test_numbers_have_five_digits() -> None:
    assert ",1.2346," in to_csv([replace(FULL, median_ms=1.23456789)])


def test_a_run_gathers_rows_and_then_puts_them_in_place(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    results = Results(path, resume=False)
    assert not results.holds(FULL.case, FULL.mode)
    results.add([FULL])
    assert results.holds(FULL.case, FULL.mode)
    assert not results.holds(FULL.case, "forward")
    assert not path.exists()
    assert read_rows(Results.partial_of(path)) == [FULL]
    results.add([BARE])
    results.finish()
    assert read_rows(path) == [FULL, BARE]
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "layers.csv"
    path.write_text(to_csv([BARE]))
    results = Results(path, resume=False)
    results.add([FULL])
    # Killed when the new file is complete, or half of it, but not in place yet.
    with monkeypatch.context() as patch:
        patch.setattr("sizeless._files.os.fsync", lambda _: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            results.add([BARE])
    assert read_rows(path) == [BARE], "the table of an earlier run stays until this one is complete"
    again = Results(path, resume=True)
    assert again.rows == [FULL]
    again.add([replace(BARE, case="third")])
    again.finish()
    assert [row.case for row in read_rows(path)] == [FULL.case, "third"]


def test_a_finished_table_can_be_extended_or_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    path.write_text(to_csv([FULL]))
    assert Results(path, resume=True).rows == [FULL]
    assert Results(path, resume=False).rows == []
    assert module.read_rows(path) == [FULL]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-20], "ends in the middle of a line"),
        (lambda text: text.replace("1.25", "one"), "is damaged in line 2: could not convert"),
        (lambda text: text.replace("training,", ""), "is damaged in line 2: invalid literal"),
        (lambda text: text + "\n", "is damaged in line 4"),
        (lambda text: text.replace("median_ms", "mean_ms"), "has other columns"),
        (lambda _: "", "has other columns"),
        (lambda _: "\n", "has other columns"),
        (lambda _: "\0\0", "has other columns"),
    ],
)
def test_damage_is_told(tmp_path: Path, damage, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(damage(to_csv([FULL, BARE])))
    with pytest.raises(ValueError, match=message) as raised:
        read_rows(path)
    assert str(path) in str(raised.value)


def test_sizes_as_text() -> None:
    assert by((2, 16, 8)) == "2x16x8"
