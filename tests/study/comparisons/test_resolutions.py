from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from torch import nn

from sizeless.nn import FlexConv1d
from sizeless.study.comparisons import ResolutionMap, measure_resolutions, resolution_map

KEYS = "train", "test", "accuracy", "seed"


def records(*rows):
    return [dict(zip(KEYS, row, strict=False)) for row in rows]


SEEDS = records(
    (16, 16, 0.90, 0),
    (16, 16, 0.80, 1),
    (16, 32, 0.70, 0),
    (16, 32, 0.66, 1),
    (32, 32, 0.95, 0),
)


def cell(found, train, test):
    table = found.table().set_index(["train", "test"])
    return table.loc[(train, test)]


def test_a_change_is_that_of_the_same_network():
    found = cell(ResolutionMap(SEEDS), 16, 32)
    assert (found["accuracy"], found["seeds"]) == (pytest.approx(0.68), 2)
    assert found["spread"] == pytest.approx(0.04 / math.sqrt(2))
    assert found["change"] == pytest.approx((-0.2 - 0.14) / 2)
    assert found["change_spread"] == pytest.approx(0.06 / math.sqrt(2))
    assert found["gap"] == pytest.approx(0.68 - 0.95)


def test_pairs_that_were_not_measured_have_no_row_and_no_diagonal_no_change():
    found = ResolutionMap(records((16, 32, 0.7), (64, 64, 0.9)))
    assert found.table()[["train", "test"]].values.tolist() == [[16, 32], [64, 64]]
    assert math.isnan(cell(found, 16, 32)["change"])
    assert math.isnan(cell(found, 16, 32)["gap"])
    (axes,) = found.figure().axes
    texts = sorted(text.get_text() for text in axes.texts)
    assert texts == sorted(["70.0", "–", "–", "90.0"])
    assert "On the right" not in found.caption()


def test_a_seed_without_its_own_resolution_does_not_count_in_the_change():
    rows = [row for row in SEEDS if (row["train"], row["test"], row["seed"]) != (16, 16, 1)]
    found = cell(ResolutionMap(rows), 16, 32)
    assert found["accuracy"] == pytest.approx(0.68)
    assert found["change"] == pytest.approx(-0.2)


def test_cells_have_their_numbers(tmp_path):
    found = ResolutionMap(SEEDS, unit="samples")
    left, right = found.figure().axes
    assert left.get_xlabel() == "tested at (samples)"
    assert left.get_ylabel() == "trained at (samples)"
    at = {text.get_position(): text for text in left.texts}
    assert at[0.5, 0.5].get_text() == "85.0\n±7.1"
    assert at[1.5, 0.5].get_text() == "68.0\n±2.8"
    assert at[0.5, 1.5].get_text() == "–"
    assert at[1.5, 1.5].get_text() == "95.0"
    assert [at[1.5, y].get_fontweight() for y in (0.5, 1.5)] == ["normal", "bold"]
    changes = {text.get_position(): text.get_text() for text in right.texts}
    assert changes[1.5, 0.5] == "−17.0\n±4.2"
    assert changes[1.5, 1.5] == "0"
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["16", "32"]
    assert "from 16 to 32 samples" in found.caption()
    assert imread(found.save(tmp_path)[2]).std() > 0.02, "the picture is empty"


def test_numbers_can_be_read_on_their_cells():
    rows = records(*((s, t, 0.1 + 0.2 * (s + t)) for s in range(1, 3) for t in range(1, 3)))
    left, _ = ResolutionMap(rows).figure().axes
    (mesh,) = left.collections
    colors = mesh.to_rgba(mesh.get_array()).reshape(4, 4)[:, :3]
    for color, text in zip(colors, left.texts, strict=True):
        ink = float(np.mean([int(text.get_color()[i : i + 2], 16) for i in (1, 3, 5)])) / 255
        assert abs(ink - color @ [0.299, 0.587, 0.114]) > 0.4


def test_a_single_cell_is_a_map():
    found = ResolutionMap(records((8, 8, 0.5)))
    (axes,) = found.figure().axes
    assert [text.get_text() for text in axes.texts] == ["50.0"]
    assert "seeds" not in found.caption()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "records must hold at least one row"),
        ([{"train": 8, "accuracy": 0.5}], "columns train, test, accuracy; 'test' is missing among"),
        (records((8, 8, math.nan)), "'accuracy' must be .* in row 0; leave out what was not"),
        (records((8, 8, 50.0)), "from 0 to 1 in every row, got .*50.0"),
        (records((8, "high", 0.5)), "'test' must be a finite number"),
        (
            records((8, 8, 0.5), (8, 8, 0.6)),
            r"got two for train 8\.0, test 8\.0, seed 0; runs that",
        ),
    ],
)
def test_records_that_are_no_map_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        ResolutionMap(pd.DataFrame(rows))


def test_networks_are_measured_with_kernels_of_every_resolution():
    networks = {16: [FlexConv1d(1, 1, 9), FlexConv1d(1, 1, 9)], 32: FlexConv1d(1, 1, 17)}
    before = networks[16][0].window.log_sigma.clone()
    seen = []

    def evaluate(network, size):
        seen.append((network.kernel_size[0], size))
        with torch.no_grad():
            network.window.log_sigma += 1.0
        return network.kernel_size[0] / 100

    found = measure_resolutions(evaluate, networks, unit="samples")
    assert seen == [(9, 16), (9, 16), (17, 32), (17, 32), (9, 16), (17, 32)]
    assert cell(found, 16, 32)["seeds"] == 2
    assert found.unit == "samples"
    assert networks[16][0].kernel_size == (9,), "the network itself was changed"
    torch.testing.assert_close(networks[16][0].window.log_sigma, before)


def test_a_network_without_such_kernels_is_measured_as_it_is():
    found = measure_resolutions(lambda _, size: size / 100, {16: nn.Linear(1, 1)}, [16, 48])
    assert found.table()["accuracy"].tolist() == [0.16, 0.48]


@pytest.mark.parametrize(
    ("networks", "sizes", "error", "message"),
    [
        ({}, (), ValueError, "at least one row"),
        ({16: nn.Identity()}, (0,), ValueError, "sizes must be at least 1, got 0"),
        ({"16": nn.Identity()}, (16,), TypeError, "networks must be an int, got '16'"),
    ],
)
def test_sizes_are_positive_ints(networks, sizes, error, message):
    with pytest.raises(error, match=message):
        measure_resolutions(lambda *_: 0.5, networks, sizes)


def write_run(folder, trained, accuracies, seed=0, own=None):
    folder.mkdir()
    metrics = {"seed": seed, "test/accuracy": accuracies.get(trained, own)}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for resolution, accuracy in accuracies.items():
        content = {
            "resolution": resolution,
            "trained_resolution": trained,
            "test/accuracy": accuracy,
        }
        (folder / f"metrics-{resolution}.json").write_text(json.dumps(content))
    return folder


def test_runs_are_read_from_their_folders(tmp_path):
    folders = [
        write_run(tmp_path / "a", 16, {32: 0.7}, own=0.9),
        write_run(tmp_path / "b", 16, {32: 0.6, 16: 0.8}, seed=1),
        write_run(tmp_path / "c", 32, {16: 0.5, 32: 0.95}),
    ]
    (folders[0] / "metrics-old.json").write_text("{}")
    found = resolution_map(folders)
    assert len(found.records) == 6
    assert cell(found, 16, 16)["accuracy"] == pytest.approx(0.85)
    assert cell(found, 16, 32)["change"] == pytest.approx(-0.2)
    assert cell(found, 32, 16)["gap"] == pytest.approx(0.5 - 0.85)


def test_one_path_is_no_sequence_of_folders(tmp_path):
    with pytest.raises(TypeError, match="folders must be a sequence of run folders, got"):
        resolution_map(str(tmp_path))


def test_a_folder_that_was_not_tested_elsewhere_is_told_how(tmp_path):
    folder = write_run(tmp_path / "a", 16, {}, own=0.9)
    with pytest.raises(ValueError, match=r"holds no metrics-PIXELS\.json; write some with: sizel"):
        resolution_map([folder])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics-32.json", "{", "cannot be read"),
        ("metrics-32.json", "[1]", "cannot be read"),
        (
            "metrics-32.json",
            '{"resolution": 32, "test/accuracy": 0.5}',
            r"'trained_resolution'; write it anew with: sizeless test .* --resolution 32$",
        ),
        (
            "metrics-32.json",
            '{"resolution": 32, "trained_resolution": null, "test/accuracy": 0.5}',
            "does not say 'trained_resolution'",
        ),
        ("metrics.json", '{"seed": 0}', r"does not say 'test/accuracy'; .*sizeless test \S+$"),
        (
            "metrics-64.json",
            '{"resolution": 64, "trained_resolution": 8, "test/accuracy": 0.5}',
            r"trained at \[8, 16\]",
        ),
    ],
)
def test_metrics_that_do_not_say_enough_name_their_file(tmp_path, name, content, message):
    folder = write_run(tmp_path / "a", 16, {32: 0.7}, own=0.9)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        resolution_map([folder])
    assert str(folder) in str(caught.value)


def test_a_run_without_metrics_names_the_file(tmp_path):
    folder = write_run(tmp_path / "a", 16, {32: 0.7}, own=0.9)
    (folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read"):
        resolution_map([folder])
