"""Shapes of kernels: preferred axes, contours, what is fitted, tables, files and pictures."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sizeless.nn import FlexConv2d, FlexConv3d, NIFFConv2d
from sizeless.study import LayerKernels, layer_kernels, untrained_kernels
from sizeless.study.shapes.ellipses import moments
from sizeless.study.shapes.figure import mean_kernel
from sizeless.study.shapes.measure import measure
from sizeless.study.shapes.shape import shapes

SIDE = 17


def bank(kernels, *, name="layer", kind="convolution", stage=1, origin=None):
    size = kernels.shape[1:]
    return LayerKernels(
        name,
        f"Conv{len(size)}d",
        kind,
        stage,
        np.asarray(kernels, dtype=np.float32),
        len(kernels),
        origin or tuple((n - 1) / 2 for n in size),
        (32,) * len(size),
        (1,) * len(size),
    )


def drawn(count, *, square=False, ratio=1.0, noise=0.02, seed=0):
    """Gaussians, or their like with square contours, that are ratio as wide as high."""
    rng = np.random.default_rng(seed)
    places = np.arange(SIDE) - SIDE // 2
    kernels = []
    for _ in range(count):
        (cy, cx), height = rng.uniform(-1, 1, size=2), rng.uniform(1.2, 2.0)
        y, x = ((places - cy) / height) ** 2, ((places - cx) / (ratio * height)) ** 2
        distance = np.maximum(y[:, None], x) if square else y[:, None] + x
        kernels.append(rng.choice([-1, 1]) * np.exp(-0.5 * distance))
    return np.stack(kernels) + noise * rng.normal(size=(count, SIDE, SIDE))


def boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    kernels = np.zeros((count, SIDE, SIDE))
    for kernel in kernels:
        (y, x), (height, width) = rng.integers(3, 6, size=2), rng.integers(5, 9, size=2)
        kernel[y : y + height, x : x + width] = rng.normal()
    return kernels


@pytest.mark.parametrize(
    ("kernels", "square"),
    [(drawn(30), False), (drawn(30, square=True), True), (boxes(30), True)],
    ids=["round", "square", "boxes"],
)
def test_round_kernels_are_called_round_and_square_ones_square(kernels, square):
    row = shapes([bank(kernels)]).table().iloc[0]
    assert row["contours compared"] >= 28
    assert row["closer to square low"] <= row["closer to square"] <= row["closer to square high"]
    if square:
        assert row["closer to square"] >= 0.9
        assert row["closer to square low"] > 0.6
    else:
        assert row["closer to square"] <= 0.1


def test_a_preferred_axis_is_found():
    wide, high = (bank(drawn(40, ratio=ratio, noise=0), name="a") for ratio in (1.5, 1 / 1.5))
    for layer, ratio in ((wide, 1.5), (high, 1 / 1.5)):
        row = shapes([layer]).table().iloc[0]
        for name in ("log(x/y)", "fit log(x/y)"):
            assert row[name] == pytest.approx(math.log(ratio), abs=0.03)
            assert row[f"{name} low"] <= row[name] <= row[f"{name} high"]
            assert row[f"{name} low"] * row[f"{name} high"] > 0, "the interval holds 0"
        assert row["long/short"] == pytest.approx(1.5, abs=0.04)
        assert row["fit R2"] == pytest.approx(1, abs=1e-6)
        assert row["sigma x"] / row["sigma y"] == pytest.approx(ratio, abs=0.05)
    both = shapes([replace(wide, name="w"), replace(high, name="h")])
    stage = both.table().iloc[-1]
    assert stage["of"] == "stage"
    assert stage["log(x/y)"] == pytest.approx(0, abs=0.02)
    assert stage["log(x/y) low"] < 0 < stage["log(x/y) high"]
    assert "no preferred axis, in 1 of 1 rows" in both.caption()
    assert "no preferred axis, in 0 of 1 rows" in shapes([wide]).caption()


def test_energy_weighs_faint_taps_less():
    layer = bank(drawn(10, noise=0.05))
    mass, energy = (shapes([layer], weight=weight).table().iloc[0] for weight in ("abs", "energy"))
    assert energy["sigma x"] < 0.8 * mass["sigma x"]
    assert energy["fit R2"] == mass["fit R2"]


def test_small_kernels_have_moments_and_no_fits():
    rng = np.random.default_rng(0)
    layers = [
        bank(rng.normal(size=(20, 3, 3)), name="small"),
        bank(rng.normal(size=(20, 1, 9)), name="flat"),
        bank(drawn(20), name="large"),
    ]
    table = shapes(layers).table().set_index("layer")
    assert table.loc["small", "not fitted"] == "9 taps for 6 parameters"
    assert table.loc["flat", "not fitted"] == "fewer than 3 taps along an axis"
    assert table["tried"].tolist() == [0, 0, 20, 20]
    assert table.loc["large", "fitted"] == 20
    assert math.isfinite(table.loc["small", "log(long/short)"])
    assert math.isnan(table.loc["flat", "log(long/short)"])
    assert table.loc["flat", "sigma x"] > 1
    assert math.isnan(table.loc["small", "fit log(x/y)"])
    assert table.loc["stage 1", "not fitted"].count(";") == 1


def test_taps_of_dilated_kernels_are_fitted_without_the_gaps():
    dense = drawn(12)
    spread = np.zeros((12, 2 * SIDE - 1, 3 * SIDE - 2))
    spread[:, ::2, ::3] = dense
    close, apart = (shapes([bank(kernels)]).per_kernel() for kernels in (dense, spread))
    for axis, step in (("y", 2), ("x", 3)):
        for name in (f"sigma {axis}", f"fit sigma {axis}", f"fit centre {axis} error"):
            np.testing.assert_allclose(apart[name], step * close[name], rtol=1e-3)
    np.testing.assert_array_equal(apart["closer to square"], close["closer to square"])


def test_zeros_around_a_kernel_are_no_gaps():
    kernel = np.zeros((1, SIDE, SIDE))
    kernel[0, ::8, ::8] = 1.0
    kernel[0, 4:9, 4:9] = 1.0
    assert shapes([bank(kernel)]).table().iloc[0]["fitted"] == 1


def test_kernels_without_mass_count_nowhere():
    kernels = drawn(10)
    kernels[3], kernels[5, 0, 0] = 0.0, np.nan
    found, rest = shapes([bank(kernels)]), shapes([bank(np.delete(kernels, [3, 5], axis=0))])
    one, other = found.table().iloc[0], rest.table().iloc[0]
    assert (one["measured"], one["tried"], one["fitted"]) == (10, 10, 8)
    for name in ("sigma x", "log(x/y)", "fit log(x/y)", "closer to square"):
        assert one[name] == pytest.approx(other[name], rel=1e-6)
    nothing = shapes([bank(np.zeros((2, 9, 9)))])
    assert math.isnan(nothing.table().iloc[0]["sigma x"])
    nothing.figure()


def test_the_control_stands_beside():
    control = [[bank(drawn(20, ratio=r, noise=0))] for r in (1.4, 1.5, 1.6)]
    kernels = drawn(20, ratio=1.5, square=True, noise=0)
    found = shapes([bank(kernels)], control, fitted=10)
    row = found.table().iloc[0]
    assert row["control log(x/y)"] == pytest.approx(math.log(1.5), abs=0.03)
    assert 0.03 < row["control log(x/y) spread"] < 0.1
    assert row["control closer to square"] <= 0.2
    assert row["closer to square"] >= 0.8
    assert row["tried"] == 10
    difference = row["log(x/y)"] - row["control log(x/y)"]
    assert row["score log(x/y)"] == pytest.approx(difference / row["control log(x/y) spread"])
    assert "the mean lies among those of untrained networks (grey) in 1" in found.caption()
    assert "control log(x/y)" not in shapes([bank(drawn(4))]).table()


def test_as_many_kernels_are_fitted_as_asked_for_always_the_same():
    layer, state = bank(drawn(30)), np.random.get_state()[1].copy()
    some, again, others = (shapes([layer], fitted=7, seed=s).per_kernel() for s in (0, 0, 1))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    fitted = some["fit R2"].notna()
    assert fitted.sum() == 7
    np.testing.assert_array_equal(fitted, again["fit R2"].notna())
    assert (fitted != others["fit R2"].notna()).any()
    everything = shapes([layer]).per_kernel()
    np.testing.assert_allclose(
        some.loc[fitted, "fit sigma x"], everything.loc[fitted, "fit sigma x"], rtol=1e-5
    )
    none = shapes([layer], fitted=0)
    assert none.table().iloc[0]["not fitted"] == "none asked for"
    assert "fit R2" not in none.per_kernel()


def test_centroids_are_seen_from_the_origin():
    kernels = np.zeros((1, 9, 9))
    kernels[0, 2:5, 5:8] = 1.0
    row = shapes([bank(kernels, origin=(6.0, 6.0))]).per_kernel().iloc[0]
    assert (row["centre y"], row["centre x"]) == (-3, 0)
    assert shapes([bank(kernels, origin=(6.0, 6.0))]).table().iloc[0]["off centre"] == 3


def test_the_mean_kernel_lies_on_the_origin():
    shape = [
        measure(layer, power=1, fitted=0, seed=0)
        for layer in (bank(np.ones((1, 3, 3))), bank(-np.ones((3, 1, 5)), origin=(0.0, 1.0)))
    ]
    mean, taps = mean_kernel(shape)
    assert [axis.tolist() for axis in taps] == [[-1, 0, 1], [-1, 0, 1, 2, 3]]
    expected = np.zeros((3, 5))
    expected[:, :3] += 1 / 9
    expected[1] += 3 / 5
    np.testing.assert_allclose(mean, expected / 4)
    assert moments(mean[None], taps).center[0, 1] > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight": "mass"}, ValueError, "weight must be 'abs' or 'energy', got 'mass'"),
        ({"confidence": 1.0}, ValueError, "confidence must be below 1"),
        ({"confidence": 0}, ValueError, "confidence must be a finite number above 0"),
        ({"fitted": -1}, ValueError, "fitted must be at least 0, got -1"),
        ({"fitted": 2.5}, TypeError, "fitted must be an int, got 2.5"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        shapes([bank(drawn(2))], **arguments)
    with pytest.raises(ValueError, match="at least one layer"):
        shapes([])


def test_a_network_is_measured_saved_and_drawn(tmp_path):
    def make():
        return nn.Sequential(
            nn.Conv2d(1, 4, 7, stride=2, padding=3),
            NIFFConv2d(4, 4, groups=4),
            FlexConv2d(4, 4, 9, init_size=5),
        )

    example = torch.zeros(1, 1, 28, 28)
    found = shapes(layer_kernels(make(), example), untrained_kernels(make, example, draws=2))
    paths = found.save(tmp_path)
    assert [path.name for path in paths] == ["shape.csv", "shape.json", "shape.png"]
    records = json.loads(paths[1].read_text())
    assert [record["layer"] for record in records] == [
        "0",
        "1",
        "2",
        "stage 1",
        "stage 2",
        "stage 2",
    ]
    assert {record["kind"] for record in records[3:]} == {"convolution", "NIFF", "FlexConv"}
    kernels = found.per_kernel()
    assert kernels.groupby("layer").size().tolist() == [4, 4, 16]
    assert kernels["angle"].dropna().between(-90, 90).all()


@pytest.mark.parametrize(
    ("network", "example"),
    [
        (nn.Conv1d(1, 6, 15, padding=7), torch.zeros(1, 1, 40)),
        (nn.Conv1d(1, 6, 2), torch.zeros(1, 1, 40)),
        (FlexConv3d(1, 4, 7), torch.zeros(1, 1, 8, 8, 8)),
        (nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(13))), torch.zeros(1, 1, 40, 40)),
        (nn.Conv2d(1, 6, (1, 9)), torch.zeros(1, 1, 20, 20)),
    ],
    ids=["1d", "two taps", "3d", "more stages than panels", "one tap high"],
)
def test_networks_of_every_kind_have_a_picture(network, example, tmp_path):
    found = shapes(layer_kernels(network, example), [layer_kernels(network, example)])
    figure = found.figure()
    figure.savefig(tmp_path / "shape.png")
    labels = [
        text.get_text()
        for part in figure.subfigs
        for axes in part.axes
        for text in (axes.xaxis.label,)
    ]
    assert any("samples" in label for label in labels)
    assert ("the first 12 of the 13 stages" in found.caption()) == (len(found.stages) == 13)
    assert len(found.stages) == (13 if len(found.layers) > 1 else 1)
    assert ("sigma z" in found.table()) == (example.dim() == 5)
    assert ("sigma y" in found.table()) == (example.dim() > 3)
