"""Effective sizes of layers and stages, with their control, against known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from torch import nn

from sizeless import FlexConv1d, NIFFConv2d
from sizeless.compat import niff_from_official
from sizeless.study.bank import LayerKernels, layer_kernels
from sizeless.study.control import untrained_kernels
from sizeless.study.effective.curves import gaps
from sizeless.study.effective.sizes import effective_sizes, kernel_mass_ratio


def layer(kernels, name="a", *, stage=1, kind="NIFF", map_size=None, origin=None, causal=False):
    kernels = np.asarray(kernels, dtype=np.float32)
    size = kernels.shape[1:]
    return LayerKernels(
        name=name,
        layer="Layer",
        kind=kind,
        stage=stage,
        kernels=kernels,
        total=2 * len(kernels),
        origin=origin or tuple((n - 1) / 2 for n in size),
        map_size=map_size or size,
        stride=(1,) * len(size),
        causal=causal,
    )


def boxes(*sides, length=9):
    """Square boxes in the middle of a kernel."""
    kernels = np.zeros((len(sides), length, length))
    for kernel, side in zip(kernels, sides, strict=True):
        margin = (length - side) // 2
        kernel[margin : margin + side, margin : margin + side] = 1.0
    return kernels


def random_layers(seed, *, spread=3.0, name="a", length=15, count=24):
    """Noise under a window, wide or narrow."""
    noise = np.random.default_rng(seed).standard_normal((count, length, length))
    taps = np.arange(length) - length // 2
    window = np.exp(-0.5 * (taps / spread) ** 2)
    return [layer(noise * np.outer(window, window), name)]


# ---- numbers -------------------------------------------------------------------------------------


def test_the_sizes_of_boxes():
    found = effective_sizes([layer(boxes(3, 3, 5, 7), map_size=(28, 14))], levels=(0.9, 1.0))
    row = found.table().iloc[0]
    sizes = {"": 3, " low": 3, " high": 7, " mean": 4.5, " of map": 3 / 28, " of curve": 7}
    for what, size in sizes.items():
        assert row[f"effective 100 %{what}"] == pytest.approx(size), what
    assert row["effective 90 % of curve"] == 7
    expected = [math.sqrt(2 * (side**2 - 1) / 12) for side in (3, 3, 5, 7)]
    assert row["radius mean"] == pytest.approx(np.mean(expected))
    assert row["radius"] == pytest.approx(expected[1])
    assert row["radius of map"] == pytest.approx(expected[1] / 28)
    assert row["radius 100 %"] == pytest.approx(math.sqrt(2))
    assert (row["kernels"], row["measured"], row["left out"]) == (8, 4, 0)
    assert not any("control" in column or "score" in column for column in found.table())
    assert found.draws == 0


def test_a_window_is_never_larger_than_the_map():
    """A filter on a map of even size is covered by a window of one sample more."""
    flat = layer(np.ones((1, 6, 6)), origin=(2, 2))
    row = effective_sizes([flat]).table().iloc[0]
    assert (row["effective 95 %"], row["effective 95 % of map"]) == (7, 1.0)


def test_layers_of_one_stage_and_kind_count_together():
    layers = [
        layer(boxes(3, 5), "a"),
        layer(boxes(1, 3, 3, length=4), "b"),
        layer(np.ones((1, 1, 7)), "c"),
        layer(boxes(7), "d", kind="convolution"),
        layer(boxes(7), "e", stage=2),
    ]
    found = effective_sizes(layers, levels=(1.0,))
    table = found.table().set_index(["of", "stage", "kind"])
    assert list(table.index)[5:] == [
        ("stage", 1, "NIFF"),
        ("stage", 1, "convolution"),
        ("stage", 2, "NIFF"),
    ]
    pooled = table.loc[("stage", 1, "NIFF")]
    sizes = found.per_kernel().query("stage == 1 and kind == 'NIFF'")["effective 100 %"]
    assert pooled["measured"] == len(sizes) == 6
    assert pooled["effective 100 % mean"] == pytest.approx(sizes.mean())
    curves = found.curves().query("of == 'stage' and stage == 1 and kind == 'NIFF'")
    for window, mean in zip(curves["window"], curves["mean"], strict=True):
        held = [
            np.abs(kernel[_inside(kernel, part.origin, window)]).sum() / np.abs(kernel).sum()
            for part in layers[:3]
            for kernel in part.kernels
        ]
        assert mean == pytest.approx(np.mean(held)), window
    assert sorted(set(curves["window"])) == [1, 2, 3, 4, 5, 7, 9]


def _inside(kernel, origin, side):
    axes = [np.abs(np.arange(n) - o) for n, o in zip(kernel.shape, origin, strict=True)]
    return np.maximum(*np.ix_(*axes)) <= (side - 1) / 2


def test_kernels_of_zeros_are_left_out_and_counted():
    with_zeros = [layer(np.concatenate([boxes(3, 5), np.zeros((2, 9, 9))]))]
    found, expected = effective_sizes(with_zeros), effective_sizes([layer(boxes(3, 5))])
    assert found.table()["left out"].tolist() == [2, 2]
    same = [column for column in found.table() if column not in {"kernels", "measured", "left out"}]
    pd.testing.assert_frame_equal(found.table()[same], expected.table()[same])
    assert np.isnan(found.per_kernel()["radius"]).tolist() == [False, False, True, True]


def test_a_layer_of_zeros_has_no_sizes():
    found = effective_sizes([layer(np.zeros((3, 5, 5)))], [[layer(boxes(3, length=5))]] * 2)
    row = found.table().iloc[0]
    assert row["left out"] == 3
    assert row[["effective 50 %", "radius", "gap", "score 50 %"]].isna().all()
    assert row["control 50 %"] == 3
    found.figure()
    assert "nan" in found.caption()


def test_causal_kernels_are_measured_backwards():
    network = FlexConv1d(2, 3, 33, causal=True, init_size=9)
    (bank,) = layer_kernels(network, torch.zeros(1, 2, 40))
    row = effective_sizes([bank]).table().iloc[0]
    mass = np.abs(bank.kernels.astype(float))[:, ::-1].cumsum(axis=1)
    sizes = (mass >= 0.9 * mass[:, -1:]).argmax(axis=1) + 1
    assert row["effective 90 % mean"] == pytest.approx(sizes.mean())


def test_long_kernels_keep_a_curve_of_few_windows():
    long = layer(np.ones((2, 4001)), causal=True, origin=(4000,))
    found = effective_sizes([long])
    windows = found.curves().query("of == 'layer'")["window"].to_numpy()
    assert len(windows) <= 256
    assert windows[:100].tolist() == list(range(1, 101))
    assert windows[-1] == 4001
    assert found.table()["effective 90 %"].tolist() == [3601, 3601]


# ---- the control ---------------------------------------------------------------------------------

PUBLISHED = {
    56: (0.08, 0.25, 0.34, 0.46),
    28: (0.09, 0.31, 0.43, 0.59),
    14: (0.13, 0.40, 0.57, 0.78),
    7: (0.25, 0.60, 0.81, 1.00),
}
"""Mean mass ratio of 64 untrained filters at sizes 1, 3, 5, 9, over 20 draws; NIFF's networks."""


@pytest.mark.parametrize("side", PUBLISHED)
def test_untrained_frequency_filters_are_as_local_as_the_authors_are(side):
    def make():
        return NIFFConv2d(64, 64, groups=64, half_sample_grid=True)

    draws = []
    for (bank,) in untrained_kernels(make, torch.zeros(1, 64, side, side), draws=20):
        sizes, ratios = kernel_mass_ratio(bank.kernels, bank.origin)
        draws.append(ratios.mean(axis=0)[np.searchsorted(sizes, (1, 3, 5, 9), "right") - 1])
    # Both are means of 20 draws; the published ones have two digits.
    error = np.std(draws, axis=0, ddof=1) * math.sqrt(2 / 20)
    assert (np.abs(np.mean(draws, axis=0) - PUBLISHED[side]) < 3 * error + 0.005).all()


def test_narrow_kernels_differ_from_wide_ones_and_wide_ones_do_not():
    control = [random_layers(seed) for seed in range(1, 9)]
    narrow = effective_sizes(random_layers(0, spread=1.0), control).table().iloc[0]
    alike = effective_sizes(random_layers(0), control).table().iloc[0]
    assert narrow["score 90 %"] < -10
    assert narrow["score radius"] < -10
    assert narrow["gap"] > 5 * narrow["control gap"] > 0
    assert narrow["gap at"] in {3, 5}
    assert abs(alike["score 90 %"]) < 3
    assert abs(alike["gap"]) < 2 * alike["control gap"]


def test_the_control_is_that_of_its_kernels():
    control = [random_layers(seed) for seed in range(1, 5)]
    found = effective_sizes(random_layers(0, spread=2.0), control)
    row = found.table().iloc[0]
    kernels = found.per_kernel()
    means = kernels.query("draw > 0").groupby("draw")["effective 90 %"].mean()
    assert row["control 90 % mean"] == pytest.approx(means.mean())
    assert row["control 90 % spread"] == pytest.approx(means.std())
    difference = kernels.query("draw == 0")["effective 90 %"].mean() - means.mean()
    assert row["score 90 %"] == pytest.approx(difference / means.std())
    untrained = kernels.query("network == 'untrained'")
    assert row["control 90 %"] in untrained["effective 90 %"].to_numpy()
    assert row["control radius"] == untrained["radius"].quantile(0.5, "lower")
    assert found.draws == 4
    assert len(kernels) == 5 * 24


def test_the_spread_of_the_curves_is_that_over_draws():
    control = [random_layers(seed) for seed in range(1, 4)]
    curves = effective_sizes(random_layers(0), control).curves()
    curves = curves[curves["of"] == "layer"]
    found = curves[curves["network"] == "untrained"].reset_index()
    parts = [effective_sizes(draw).curves().query("of == 'layer'")["mean"] for draw in control]
    np.testing.assert_allclose(found["spread"], np.std(parts, axis=0, ddof=1))
    np.testing.assert_allclose(found["mean"], np.mean(parts, axis=0))
    assert curves[curves["network"] == "trained"]["spread"].isna().all()
    for column in ("mean", "low", "median", "high"):
        assert (found[column].diff()[1:] >= -1e-12).all()
        assert found[column].iloc[-1] == pytest.approx(1.0)


def test_one_draw_has_no_spread():
    row = effective_sizes(random_layers(0), [random_layers(1)]).table().iloc[0]
    assert row["control 90 %"] > 0
    assert row[["control 90 % spread", "score 90 %", "control gap"]].isna().all()


@pytest.mark.parametrize(("sides", "score"), [((3,), 0.0), ((5,), math.inf), ((1,), -math.inf)])
def test_a_control_that_never_varies(sides, score):
    control = [[layer(boxes(3))], [layer(boxes(3))]]
    row = effective_sizes([layer(boxes(*sides))], control, levels=(1.0,)).table().iloc[0]
    assert (row["control 100 % spread"], row["score 100 %"]) == (0.0, score)


def test_layers_of_the_control_go_by_their_names():
    layers = [layer(boxes(3), "a"), layer(boxes(5), "b")]
    control = [[layer(boxes(7), "b", stage=4), layer(boxes(9), "a")]]
    table = effective_sizes(layers, control, levels=(1.0,)).table()
    assert table["control 100 % mean"].tolist() == [9, 7, 8]


def test_the_gap_of_curves():
    draws = [np.array([0.2, 0.5, 1.0]), np.array([0.4, 0.5, 1.0])]
    place, gap, between = gaps(np.array([0.1, 0.9, 1.0]), draws)
    assert (place, gap, between) == (1, pytest.approx(0.4), pytest.approx(0.2))


# ---- golden filters ------------------------------------------------------------------------------

GOLDEN = {"depthwise_small_28": 28, "depthwise_big_14": 14, "split_small_14": 14}


def official_kernels(case, side):
    """The authors' filters in space, from their formulas in numpy."""
    line = np.arange(side) - side / 2
    values = dict.fromkeys(("real", "imag"), np.stack(np.meshgrid(line, line)))
    for part in values:
        index, grid = 1, values[part]
        while (key := f"param/0.mlp_{part}.layer_mpl{index}") + ".weight" in case:
            if index > 1:
                grid = grid / (1 + np.exp(-grid))
            weight, bias = (case[f"{key}.{name}"].double().numpy() for name in ("weight", "bias"))
            grid = np.einsum("oi,ipq->opq", weight[:, :, 0, 0], grid) + bias[:, None, None]
            index += 1
        values[part] = grid
    spectrum = np.fft.ifftshift(values["real"] + 1j * values["imag"], axes=(1, 2))
    kernels = np.fft.fftshift(np.fft.ifft2(spectrum).real, axes=(1, 2))
    return np.roll(kernels, -(len(kernels) // 2), axis=0)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_filters(golden, name):
    case, side = golden("niff_official", f"{name}/"), GOLDEN[name]
    weights = {k.removeprefix("param/"): v for k, v in case.items() if k.startswith("param/")}
    official = niff_from_official(weights)
    (bank,) = layer_kernels(official, case["input"])
    sizes, ratios = kernel_mass_ratio(bank.kernels, bank.origin)
    kernels, middle = np.abs(official_kernels(case, side)), side // 2
    for column, size in enumerate(sizes):
        reach = (size - 1) // 2
        low, high = max(middle - reach, 0), middle + reach + 1
        held = kernels[:, low:high, low:high].sum(axis=(1, 2)) / kernels.sum(axis=(1, 2))
        np.testing.assert_allclose(ratios[:, column], held, rtol=1e-4)
    row = effective_sizes([bank]).table().iloc[0]
    assert 1 <= row["effective 50 %"] <= row["effective 90 %"] <= row["effective 95 %"] <= side + 1
    assert 0 < row["radius"] < side


# ---- pictures and files --------------------------------------------------------------------------


def test_few_layers_get_a_panel_each_and_many_one_per_stage():
    few = effective_sizes([layer(boxes(3), f"l{n}") for n in range(6)])
    many = effective_sizes([layer(boxes(3), f"l{n}") for n in range(7)])
    assert [len(found.figure().axes) for found in (few, many)] == [6, 1]
    assert len(many.figure_of_layers().axes) == 9, "a grid of 3 x 3, two of them empty"
    assert many.figure().axes[0].get_title(loc="left") == "stage 1, map 9 × 9: NIFF"
    assert "stage 1 NIFF: 3." in many.caption()
    assert "l0: 3; l1: 3" in few.caption()


def test_the_figure_shows_both_curves():
    found = effective_sizes(random_layers(0, spread=1.0), [random_layers(1), random_layers(2)])
    (axes,) = found.figure().axes
    curves = found.curves().query("of == 'layer'")
    drawn = [line.get_ydata() for line in axes.lines]
    for network in ("trained", "untrained"):
        mean = curves.query("network == @network")["mean"].to_numpy()
        assert any(len(line) == len(mean) and np.allclose(line, mean) for line in drawn), network
    assert "2 untrained networks" in found.caption()


def test_kernels_with_one_window_size_have_no_panel():
    patches = layer(np.ones((1, 2, 2)), "patches")
    found = effective_sizes([patches, layer(boxes(3))])
    assert [axes.get_title(loc="left") for axes in found.figure().axes] == ["a, map 9 × 9"]
    assert "Not drawn: 1 with a single window size" in found.caption()
    alone = effective_sizes([patches])
    assert len(alone.figure().axes) == 1
    assert "Not drawn" not in alone.caption()


def test_a_long_name_keeps_its_end():
    name = "encoder.stages.3.blocks.17.depthwise.convolution.spatial"
    (axes,) = effective_sizes([layer(boxes(3), name)]).figure().axes
    title = axes.get_title(loc="left")
    assert title.endswith("convolution.spatial, map 9 × 9")
    assert len(title) < 44


def test_files(tmp_path):
    found = effective_sizes(random_layers(0), [random_layers(1)])
    paths = found.save(tmp_path / "study")
    assert sorted(path.name for path in paths) == [
        "effective_size.csv",
        "effective_size.json",
        "effective_size.png",
        "effective_size_curves.csv",
    ]
    assert sorted(paths) == sorted((tmp_path / "study").iterdir())
    assert (
        pd.read_csv(paths[0])["effective 50 %"].tolist() == found.table()["effective 50 %"].tolist()
    )
    assert imread(tmp_path / "study" / "effective_size.png").std() > 0.02


# ---- wrong calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(), (0.0,), (1.5,), (math.nan,), (0.5, 0.5)])
def test_levels_are_different_shares(levels):
    with pytest.raises(ValueError, match="levels must"):
        effective_sizes(random_layers(0), levels=levels)


def test_levels_are_numbers():
    with pytest.raises(TypeError, match="levels must"):
        effective_sizes(random_layers(0), levels=("half",))
    with pytest.raises(TypeError, match="levels must"):
        effective_sizes(random_layers(0), levels=0.5)


def test_layers_are_needed():
    with pytest.raises(ValueError, match="layers must hold"):
        effective_sizes([])
    with pytest.raises(TypeError, match="layers must hold LayerKernels"):
        effective_sizes([nn.Conv2d(1, 1, 3)])


def test_the_control_has_every_layer():
    (found,) = random_layers(0)
    with pytest.raises(ValueError, match="lacks 'a'"):
        effective_sizes([found], [[replace(found, name="b")]])
