from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.image import imread
from torch import nn

from sizeless.nn import DiffStride2d, FlexConv2d, NIFFConv2d
from sizeless.study.history import Trajectories, trajectories
from sizeless.study.tracks import layer_colors, legend_entries
from sizeless.trajectories import CostPoint, SizePoint, snapshot, tracks, write_points


def point(epoch, size, name="conv", *, kind="kernel size", axis=0, center=None, low=3, high=33):
    return SizePoint(
        epoch=epoch,
        step=10 * epoch,
        name=name,
        layer="FlexConv1d",
        kind=kind,
        axis=axis,
        size=float(size),
        window=None if center is None else 2.0,
        center=center,
        low=float(low),
        high=float(high),
    )


def course(*sizes, **options):
    return [point(epoch, size, **options) for epoch, size in enumerate(sizes)]


@pytest.fixture
def folder(tmp_path):
    """A run of four epochs, with costs."""
    points = course(5, 7, 9, 9, center=0.0) + course(5, 5, 5, 5, name="other")
    write_points(tmp_path / "sizes.csv", points)
    rows = "".join(f"{epoch},{10 * epoch},{100 + epoch}.5\n" for epoch in range(4))
    (tmp_path / "costs.csv").write_text("epoch,step,macs\n" + rows)
    return tmp_path


def labels(figure):
    return [axes.get_ylabel() for axes in figure.axes]


def summary_of(points):
    (row,) = Trajectories(tuple(points)).summary().to_dict("records")
    return row


def test_a_folder_is_read_as_it_was_written(folder):
    found = trajectories(folder)
    table = found.table()
    assert len(table) == 8
    conv = table[table["name"] == "conv"]
    assert conv["size"].tolist() == [5, 7, 9, 9]
    assert conv["macs"].tolist() == [100.5, 101.5, 102.5, 103.5]
    assert found.costs[-1] == CostPoint(3, 30, 103.5)
    assert trajectories(str(folder)) == found


def test_a_folder_without_costs_has_none_and_no_panel_of_them(folder):
    assert labels(trajectories(folder).figure())[-1] == "cost of a sample (MACs)"
    (folder / "costs.csv").unlink()
    found = trajectories(folder)
    assert found.costs == ()
    assert found.table()["macs"].isna().all()
    assert labels(found.figure()) == ["kernel size (taps)"]
    assert "multiply-accumulates" not in found.caption()


def test_the_summary_says_where_a_size_began_and_ended():
    row = summary_of(course(5, 11, 3, 7))
    ends = {key: row[key] for key in ("first", "last", "smallest", "largest", "limit")}
    assert ends == {"first": 5, "last": 7, "smallest": 3, "largest": 11, "limit": ""}


@pytest.mark.parametrize(
    ("sizes", "epoch"),
    [
        ((20, 20, 20), 0),
        ((5, 10, 20, 21, 20), 2),
        ((20, 20, 5, 20), 3),
        ((5, 9, 10.4, 10), 2),
        ((7,), 0),
    ],
    ids=["never moved", "within 5 %", "left again", "just within", "one moment"],
)
def test_a_size_has_converged_once_it_stays_near_the_last(sizes, epoch):
    assert summary_of(course(*sizes))["converged"] == epoch


@pytest.mark.parametrize(
    ("last", "options", "limit"),
    [
        (3, {}, "low"),
        (33, {}, "high"),
        (32, {}, ""),
        (4, {"low": 4, "high": 4}, "fixed"),
        (1.004, {"kind": "stride", "low": 1, "high": math.inf}, "low"),
        (1.3, {"kind": "stride", "low": 1, "high": math.inf}, ""),
        (3.995, {"kind": "stride", "low": 1, "high": 4}, "high"),
    ],
)
def test_the_limit_that_a_size_ended_at(last, options, limit):
    assert summary_of(course(2, last, **options))["limit"] == limit


def test_real_networks_give_one_panel_per_kind():
    network = nn.Sequential(
        FlexConv2d(1, 2, 7), DiffStride2d(2.0, max_stride=4.0), NIFFConv2d(2, 2)
    )
    points = [p for epoch in range(3) for p in snapshot(network, epoch, 10 * epoch)]
    points += [replace(p, name="2", kind="filter extent", size=8.0) for p in points[2:4]]
    found = Trajectories(tuple(points))
    figure = found.figure()
    assert labels(figure) == ["kernel size (taps)", "stride", "filter extent (samples)"]
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["0", "1", "2", "axis 0", "axis 1", "limits"]
    assert "2 kernel sizes: 3 at first" in found.caption()


def test_centres_are_drawn_where_they_moved():
    still = course(5, 7, center=0.0)
    moved = [point(epoch, 5, name="moved", center=-epoch / 2) for epoch in range(2)]
    assert labels(Trajectories(tuple(still)).figure()) == ["kernel size (taps)"]
    figure = Trajectories(tuple(still + moved)).figure()
    assert labels(figure) == ["kernel size (taps)", "centre of the window (taps)"]
    (line,) = figure.axes[1].lines
    assert line.get_ydata() == pytest.approx([0, -0.5])


def test_lines_end_at_their_sizes_and_equal_ones_lie_beside_each_other():
    points = course(5, 9, name="a") + course(5, 7, name="b") + course(5, 5, name="c")
    figure = Trajectories(tuple(points)).figure()
    (axes,) = figure.axes
    lines = axes.lines[:3]
    starts = [line.get_ydata()[0] for line in lines]
    assert starts == sorted(set(starts)), "tracks of equal size lie on each other"
    assert starts == pytest.approx([5, 5, 5], abs=1.0)
    assert starts[1] == 5
    assert [line.get_ydata()[1] for line in lines] == [9, 7, 5]
    limits = {line.get_ydata()[0] for line in axes.lines[3:]}
    assert limits == {3, 33}


def test_forty_equal_tracks_stay_close_to_their_size():
    points = [p for n in range(40) for p in course(9, 9, name=f"layer{n}")]
    (axes,) = Trajectories(tuple(points)).figure().axes
    heights = [line.get_ydata()[0] for line in axes.lines[:40]]
    assert len(set(heights)) == 40
    assert max(heights) - min(heights) < 0.2 * (33 - 3)


def test_a_legend_names_some_of_many_layers():
    points = [p for n in range(40) for p in course(5, 7, name=f"layer{n}")]
    entries, title = legend_entries(tracks(points), layer_colors(points))
    assert title == "one layer in 3"
    assert [entry.get_label() for entry in entries[:2]] == ["layer0", "layer3"]
    assert entries[-1].get_label() == "limits"


def test_a_size_without_upper_limit_is_drawn():
    points = course(2.0, 2.5, kind="stride", low=1, high=math.inf)
    (axes,) = Trajectories(tuple(points)).figure().axes
    assert math.isfinite(axes.get_ylim()[1])
    assert [line.get_ydata()[0] for line in axes.lines] == [2.0, 1.0]


def test_a_network_that_learns_no_size_is_told_so(tmp_path):
    write_points(tmp_path / "sizes.csv", [])
    found = trajectories(tmp_path)
    assert found.table().empty
    assert found.summary().empty
    assert found.caption() == "No layer of this network learns its size."
    (axes,) = found.figure().axes
    assert axes.texts[0].get_text() == "no layer of this network learns its size"
    (tmp_path / "costs.csv").write_text("epoch,step,macs\n0,0,640\n")
    found = trajectories(tmp_path)
    assert labels(found.figure()) == ["cost of a sample (MACs)"]
    assert "640 multiply-accumulates" in found.caption()


def test_files_of_a_result_are_written(folder, tmp_path):
    found = trajectories(folder)
    paths = found.save(tmp_path / "out")
    assert [path.name for path in paths] == [
        "trajectories.csv", "trajectories.json", "trajectories.png",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), found.table(), check_dtype=False)
    assert len(json.loads(paths[1].read_text())) == 8
    assert imread(paths[2]).std() > 0.02, "the picture is empty"


def test_a_missing_table_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sizes\.csv does not exist: name the folder of"):
        trajectories(tmp_path)


HEAD = "epoch,step,name,layer,kind,axis,size,window,center,low,high\n"
ROW = "0,0,conv,FlexConv1d,kernel size,0,5,,,3,33\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("a,b\n1,2\n", r"no table of learned sizes: its columns are \['a', 'b'\]"),
        (HEAD + ROW[:-3], "it ends in the middle of a row"),
        (HEAD + "0,0,conv,FlexConv1d\n", "cannot be read"),
        (HEAD + ROW.replace("0,0,conv", "x,0,conv"), "'x'"),
        (HEAD + ROW.replace(",5,", ",nan,"), "'conv' has size nan at step 0"),
        (HEAD + ROW.replace("3,33", "33,3"), "'conv' has size 5"),
        (HEAD + ROW + ROW.replace("conv", "b") + "1,10,conv,L,kernel size,0,5,,,3,33\n",
         "'b' has no row after step 0"),
        (HEAD + "\udcff\n", "cannot be read"),
    ],
    ids=["empty", "other", "cut", "short", "letters", "nan", "limits", "rows lost", "bytes"],
)  # fmt: skip
def test_a_damaged_table_of_sizes_is_one_line_with_its_name(folder, content, message):
    (folder / "sizes.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message) as caught:
        trajectories(folder)
    assert str(folder / "sizes.csv") in str(caught.value)
    assert str(caught.value).count("sizes.csv") == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("epoch,macs\n0,1\n", r"its columns are \['epoch', 'macs'\]"),
        ("epoch,step,macs\n0,0,12", "it ends in the middle of a row"),
        ("epoch,step,macs\n0,0\n", "cannot be read"),
        ("epoch,step,macs\n0,0,many\n", "'many'"),
        ("epoch,step,macs\n0,0,nan\n", "no finite number"),
    ],
    ids=["empty", "other", "cut", "short", "letters", "nan"],
)
def test_a_damaged_table_of_costs_is_one_line_with_its_name(folder, content, message):
    (folder / "costs.csv").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        trajectories(folder)
    assert str(folder / "costs.csv") in str(caught.value)
