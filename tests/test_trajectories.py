from __future__ import annotations

import math

import pytest
from torch import nn

from sizeless.models import FlexNet
from sizeless.nn import DiffStride2d, NIFFConv2d
from sizeless.trajectories import read_points, snapshot, tracks, write_points


@pytest.fixture
def network():
    return nn.Sequential(
        FlexNet(1, 10, kernel_size=5, widths=(2,)), DiffStride2d(2.0), NIFFConv2d(2, 2)
    )


def test_points_survive_the_file(network, tmp_path):
    points = [*snapshot(network), *snapshot(network, epoch=1, step=7)]
    write_points(tmp_path / "sizes.csv", points)
    read = read_points(tmp_path / "sizes.csv")
    assert len(read) == len(points)
    for one, other in zip(points, read, strict=True):
        for name, value in vars(one).items():
            expected = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            assert getattr(other, name) == expected


def test_one_point_per_layer_and_axis(network):
    points = snapshot(network, epoch=2, step=9)
    assert {(point.epoch, point.step) for point in points} == {(2, 9)}
    kernels = [point for point in points if point.kind == "kernel size"]
    assert [(point.name, point.axis) for point in kernels] == [
        (name, axis)
        for name in ("0.stem", "0.blocks.0.conv1", "0.blocks.0.conv2")
        for axis in (0, 1)
    ]
    assert {(point.layer, point.low, point.high) for point in kernels} == {("FlexConv2d", 3, 5)}
    assert all(point.window is not None and point.center == 0 for point in kernels)
    strides = [point for point in points if point.kind == "stride"]
    assert [(point.size, point.window, point.low) for point in strides] == [(2.0, None, 1.0)] * 2
    assert math.isinf(strides[0].high)
    assert not [point for point in points if point.kind == "filter extent"], "it has seen no map"


def test_tracks_are_sorted_and_may_be_of_one_kind(network):
    late, early = snapshot(network, 2, 20), snapshot(network, 1, 10)
    found = tracks([*late, *early], kind="stride")
    assert list(found) == [("1", 0), ("1", 1)]
    assert [point.step for point in found["1", 0]] == [10, 20]
    assert len(tracks([*late, *early])) == 8


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv is no table of learned sizes.*'a', 'b'"):
        read_points(path)
