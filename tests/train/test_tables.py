from __future__ import annotations

import io

from rich.console import Console
from torch import nn

from sizeless.nn import DiffStride2d, FlexConv2d
from sizeless.train.tables import size_table
from sizeless.trajectories import snapshot


def shown(table):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def test_the_table_tells_where_sizes_started_and_ended():
    before = nn.Sequential(FlexConv2d(1, 1, (9, 7)), DiffStride2d(2.0))
    after = nn.Sequential(FlexConv2d(1, 1, (9, 7), init_size=5), DiffStride2d(2.5))
    text = shown(size_table([*snapshot(before), *snapshot(after, 1, 10)]))
    kernel, stride = (line for line in text.splitlines() if "×" in line)
    for cell in ("kernel size", " 3 × 3 ", " 5 × 5 ", " 3–9 × 3–7 "):
        assert cell in kernel
    for cell in ("stride", " 2.00 × 2.00 ", " 2.50 × 2.50 ", " – ", " 1–map "):
        assert cell in stride


def test_no_path_is_cut_short():
    layers = nn.ModuleDict({"a_stage_of_blocks": nn.ModuleDict({"convolution": DiffStride2d(2.0)})})
    text = shown(size_table(snapshot(layers)))
    cells = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert "".join(cells) == "a_stage_of_blocks.convolution"
