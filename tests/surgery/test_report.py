"""What a report tells."""

import csv
import io

import torch
from torch import nn

import sizeless
from sizeless.surgery import Change, Report

CHANGES = (
    Change("stem", "Conv2d", "", (7, 7), (7, 7), 9408, 9408, 10_000_000, 10_000_000, None, "why"),
    Change("body.0", "Conv2d", "FlexConv2d", (3, 3), (3, 3), 36_864, 139_000, 5000, 5000, 4.2e-7),
    Change("body.1", "MaxPool2d", "DiffStride2d", (2, 2), (2.5, 2.0), 0, 2, 0, 1_570_000),
)


def test_a_report_is_a_table_and_reasons():
    report = Report(CHANGES, 1.26e-6, ("A note.",))
    assert str(report).split("\n") == [
        "layer   before     after         size          parameters     MACs        error",
        "------  ---------  ------------  ------------  -------------  ----------  -----",
        "body.0  Conv2d     FlexConv2d    3x3           36.9k -> 139k  5k          4e-07",
        "body.1  MaxPool2d  DiffStride2d  2x2 -> 2.5x2  0 -> 2         0 -> 1.57M",
        "2 of 3 layers changed; in these, parameters 36.9k -> 139k, MACs 5k -> 1.57M",
        "relative error of the network's output: 1.3e-06",
        "left alone:",
        "- why: stem",
        "A note.",
    ]


def test_changes_are_sorted_out():
    report = Report(CHANGES)
    assert [change.name for change in report.changed] == ["body.0", "body.1"]
    assert [change.name for change in report.left_alone] == ["stem"]


def test_rows_are_plain_dictionaries():
    rows = Report(CHANGES).rows()
    assert rows[1]["name"] == "body.0"
    assert rows[1]["error"] == 4.2e-7
    table = csv.DictWriter(io.StringIO(), list(rows[0]))
    table.writerows(rows)


def test_a_report_without_layers_can_be_printed():
    text = "0 of 0 layers changed; in these, parameters 0 -> 0, MACs 0 -> 0"
    assert str(Report(())) == text


def test_long_texts_are_wrapped_and_many_names_counted():
    alone = [
        Change(f"a.rather.long.path.of.layer{n}", "Conv2d", reason="x " * 70) for n in range(9)
    ]
    text = str(Report(tuple(alone), notes=("word " * 60,)))
    assert "layer2 and 6" in text.replace("\n ", "")
    assert max(map(len, text.split("\n"))) <= 120


def test_a_report_of_a_network_fits_on_the_screen():
    block = [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.MaxPool2d(2)]
    model = nn.Sequential(nn.Conv2d(1, 8, 3), *block, *block)
    for arguments in ({"conv": "flex"}, {"conv": "niff"}, {"downsample": "diffstride"}):
        _, report = sizeless.convert(model, torch.randn(1, 1, 20, 20), **arguments)
        assert max(map(len, str(report).split("\n"))) <= 120
