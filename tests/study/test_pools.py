"""Layers of a stage together, their control beside them, and intervals of means and shares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from sizeless.study import LayerKernels
from sizeless.study.pools import pools
from sizeless.study.shapes.intervals import bootstrap_mean, wilson


def layer(name, values, *, kind="convolution", stage=1, total=None):
    kernels = np.asarray(values, dtype=np.float32)[:, None]
    return LayerKernels(
        name, "Conv1d", kind, stage, kernels, total or len(kernels), (0.0,), (8,), (1,)
    )


def values(layer):
    return layer.kernels[:, 0]


def own(found):
    return found


LAYERS = [
    layer("a", [1, 2]),
    layer("b", [9], kind="NIFF"),
    layer("c", [3, np.nan, np.inf], total=40),
    layer("d", [5], stage=2),
]


def test_layers_of_a_stage_and_kind_are_one_pool():
    alone, together = pools(LAYERS, (), values)
    assert [pool.label for pool in alone] == ["a", "b", "c", "d"]
    assert [pool.values(own).tolist() for pool in alone] == [[1, 2], [9], [3], [5]]
    assert [pool.values(own).tolist() for pool in together] == [[9], [1, 2, 3], [5]]
    facts = together[1].facts
    assert (facts["of"], facts["layer"], facts["kind"]) == ("stage", "stage 1", "convolution")
    assert (facts["kernels"], facts["measured"], facts["map"]) == (42, 5, "8")
    assert alone[2].facts["of"] == "layer"


def test_every_layer_is_measured_once():
    seen = []
    pools(LAYERS, [LAYERS, LAYERS], lambda found: seen.append(found.name))
    assert sorted(seen) == sorted("abcd" * 3)


def test_the_control_is_matched_by_name():
    draws = [
        [replace(found, kernels=found.kernels + shift) for found in reversed(LAYERS)]
        for shift in (10, 20, 30)
    ]
    extra = [*draws[0], layer("not asked for", [0])]
    alone, together = pools(LAYERS, [extra, *draws[1:]], values)
    assert [draw.tolist() for draw in alone[0].draws(own)] == [[11, 12], [21, 22], [31, 32]]
    assert together[1].draws(own)[0].tolist() == [11, 12, 13]
    row = together[1].compare("level", own, np.mean)
    assert row == {
        "level": 2,
        "control level": 22,
        "control level spread": 10,
        "score level": -2,
    }


def test_without_draws_there_are_no_columns_and_one_draw_has_no_spread():
    (alone, *_), _ = pools(LAYERS, (), values)
    assert alone.compare("level", own) == {"level": 1.5}
    (alone, *_), _ = pools(LAYERS, [LAYERS], values)
    row = alone.compare("level", own)
    assert row["control level"] == 1.5
    assert math.isnan(row["control level spread"])
    assert math.isnan(row["score level"])
    _, together = pools([layer("a", [np.nan])], [[layer("a", [np.nan])]], values)
    assert all(math.isnan(value) for value in together[0].compare("level", own).values())


def test_wrong_layers_and_controls_are_refused():
    with pytest.raises(ValueError, match="layers must hold at least one layer"):
        pools([], (), values)
    with pytest.raises(TypeError, match=r"layers must hold LayerKernels.* got Conv1d"):
        pools(nn.Conv1d(1, 1, 3), (), values)
    with pytest.raises(
        TypeError, match=r"a draw of control must hold LayerKernels.* one such list"
    ):
        pools(LAYERS, LAYERS, values)
    with pytest.raises(ValueError, match="draw 1 of control lacks 'b'"):
        pools(LAYERS, [LAYERS, [LAYERS[0], *LAYERS[2:]]], values)


@pytest.mark.parametrize(
    ("successes", "count", "ends"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611))],
)
def test_wilsons_interval_is_the_published_one(successes, count, ends):
    assert wilson(successes, count) == pytest.approx(ends, abs=5e-5)


def test_wilsons_interval_stays_in_range_and_grows_with_confidence():
    assert wilson(5, 5)[1] == 1.0
    assert wilson(5, 5)[0] == pytest.approx(1 - wilson(0, 5)[1])
    wide, narrow = wilson(3, 9, 0.99), wilson(3, 9, 0.5)
    assert wide[0] < narrow[0] < 1 / 3 < narrow[1] < wide[1]
    assert all(math.isnan(end) for end in wilson(0, 0))


def test_the_bootstrap_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(400):
        low, high = bootstrap_mean(rng.normal(3.0, 2.0, size=50), 0.9, resamples=400, seed=trial)
        held += low <= 3.0 <= high
    # The standard deviation of the count is 6; the percentile interval is a little short.
    assert 0.85 <= held / 400 <= 0.93


def test_the_bootstrap_interval_is_reproducible_and_scales():
    sample = np.random.default_rng(1).exponential(size=300)
    state = np.random.get_state()[1].copy()
    low, high = bootstrap_mean(sample)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert bootstrap_mean(sample) == (low, high)
    assert bootstrap_mean(3 * sample + 1) == pytest.approx((3 * low + 1, 3 * high + 1))
    half = 1.96 * sample.std() / math.sqrt(300)
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.02)
    assert all(math.isnan(end) for end in bootstrap_mean(np.ones(1)))
