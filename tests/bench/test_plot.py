from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .made_rows import layer, point

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from sizeless.bench.plot import draw_bars, draw_convolve
from sizeless.bench.rows import Row


def assert_picture(path: Path) -> tuple[int, int]:
    """Check that there is something to see, and return height and width."""
    image = imread(path)
    assert image.min() < 0.5 < image.max()
    assert image.std() > 0.01
    return image.shape[:2]


def many() -> list[Row]:
    return [
        row
        for kind in ("1-D dense", "1-D depthwise", "2-D dense", "3-D grouped")
        for kernel in (3, 5, 31, 16383)
        for mode in ("forward", "training")
        for row in point(kernel, kind, mode, sizeless=1.0, torch=kernel, julius=2.0)
    ]


def test_picture_of_convolutions(tmp_path: Path) -> None:
    draw_convolve(many(), tmp_path / "all.png")
    draw_convolve(point(1, sizeless=2, torch=1), tmp_path / "one.png")
    assert assert_picture(tmp_path / "all.png") > assert_picture(tmp_path / "one.png")


def test_picture_of_bars(tmp_path: Path) -> None:
    rows = [
        *layer(0.25, bar=0.5),
        *layer(3.0, bar=0.5, mode="forward"),
        *layer(0.001, kind="NIFF"),
        *layer(None, bar=0.5, case="broken"),
        *(replace(row, status="n/a", ours_over_this=None) for row in layer(1.0, case="absent")),
    ]
    draw_bars("layers", rows, tmp_path / "bars.png")
    height, width = assert_picture(tmp_path / "bars.png")
    draw_bars("layers", rows * 5, tmp_path / "more.png")
    taller, same = assert_picture(tmp_path / "more.png")
    assert (taller > height, same) == (True, width)


def test_nothing_measured_is_a_picture_too(tmp_path: Path) -> None:
    draw_bars("layers", [], tmp_path / "bars.png")
    assert_picture(tmp_path / "bars.png")
