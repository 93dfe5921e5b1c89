from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from sizeless.study.comparisons import AccuracyAgainstCost, LearnedAgainstSearched, pareto_front

few = st.integers(0, 4).map(float)
points = st.lists(st.tuples(few, few), max_size=12)


def naive_front(costs, accuracies):
    """Ask of every point whether any other beats it."""
    pairs = list(zip(costs, accuracies, strict=True))

    def beats(other, one):
        return other != one and other[0] <= one[0] and other[1] >= one[1]

    return [not any(beats(other, one) for other in pairs) for one in pairs]


@given(points)
def test_the_front_is_that_of_all_comparisons(pairs):
    costs, accuracies = [cost for cost, _ in pairs], [accuracy for _, accuracy in pairs]
    assert pareto_front(costs, accuracies).tolist() == naive_front(costs, accuracies)


@given(points.filter(bool), st.randoms())
def test_the_front_does_not_depend_on_the_order(pairs, random):
    front = dict(zip(pairs, pareto_front(*zip(*pairs, strict=True)).tolist(), strict=True))
    random.shuffle(pairs)
    again = pareto_front(*zip(*pairs, strict=True)).tolist()
    assert [front[pair] for pair in pairs] == again


@pytest.mark.parametrize(
    ("costs", "accuracies", "message"),
    [
        ([1.0, math.nan], [0.5, 0.5], "costs must be finite numbers; leave out"),
        ([1.0], [math.inf], "accuracies must be finite"),
        ([1.0, 2.0], [0.5], r"one length, got shapes \(2,\) and \(1,\)"),
    ],
)
def test_a_front_of_anything_but_numbers_is_refused(costs, accuracies, message):
    with pytest.raises(ValueError, match=message):
        pareto_front(costs, accuracies)


def runs(*rows, keys=("family", "setting", "cost", "accuracy", "seed")):
    return [dict(zip(keys, row, strict=True)) for row in rows]


TWO_SEEDS = runs(
    ("learned", 0.5, 100, 0.90, 0),
    ("learned", 0.5, 120, 0.94, 1),
    ("learned", 1.0, 210, 0.95, 0),
    ("fixed", 0.5, 110, 0.80, 0),
    ("fixed", 0.5, 110, 0.82, 1),
)


def test_seeds_of_one_setting_are_one_point():
    table = AccuracyAgainstCost(TWO_SEEDS).table()
    assert table["family"].tolist() == ["learned", "learned", "fixed"]
    first, second, fixed = table.to_dict("records")
    assert (first["cost"], first["accuracy"], first["seeds"]) == (110, pytest.approx(0.92), 2)
    assert first["cost_spread"] == pytest.approx(10 * math.sqrt(2))
    assert first["accuracy_spread"] == pytest.approx(0.02 * math.sqrt(2))
    assert math.isnan(second["accuracy_spread"])
    assert (first["on_front"], second["on_front"], fixed["on_front"]) == (True, True, False)


def test_without_a_setting_equal_costs_are_one_point():
    rows = runs(("a", 10, 0.5, 0), ("a", 10, 0.7, 1), ("a", 5, 0.4, 0),
                keys=("family", "cost", "accuracy", "seed"))  # fmt: skip
    table = AccuracyAgainstCost(pd.DataFrame(rows)).table()
    assert table[["cost", "accuracy", "seeds"]].values.tolist() == [[5, 0.4, 1], [10, 0.6, 2]]


def test_points_lines_and_rings_are_drawn(tmp_path):
    found = AccuracyAgainstCost(TWO_SEEDS, unit="MACs")
    (axes,) = found.figure().axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("MACs", "test accuracy")
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["learned", "fixed", "Pareto front (ringed)"]
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [tuple(ring.get_xdata()) for ring in rings] == [(110, 210)]
    assert "learned: 2" in found.caption()
    assert "seeds" in found.caption()
    assert axes.get_xscale() == "linear"
    paths = found.save(tmp_path)
    assert imread(paths[2]).std() > 0.02, "the picture is empty"


def test_costs_far_apart_have_a_logarithmic_axis():
    keys = "family", "cost", "accuracy"
    wide = AccuracyAgainstCost(runs(("a", 1, 0.5), ("a", 100, 0.6), keys=keys))
    assert wide.figure().axes[0].get_xscale() == "log"
    free = AccuracyAgainstCost(runs(("a", 0, 0.5), ("a", 100, 0.6), keys=keys))
    assert free.figure().axes[0].get_xscale() == "linear"
    assert "One run each" in free.caption()


LEARNED = [{"accuracy": 0.9, "seconds": 20, "seed": 0}]
TRIALS = pd.DataFrame(
    {
        "trial": [3, 1, 2, 4],
        "size": [9, 3, 5, 7],
        "validation": [0.8, 0.5, 0.8, 0.9],
        "accuracy": [0.95, 0.6, 0.7, 0.65],
        "seconds": [30, 10, 20, 40],
    }
)


def test_a_search_chooses_by_validation_and_counts_what_it_spends():
    found = LearnedAgainstSearched(LEARNED, TRIALS)
    trials = found.table().query("run == 'trial'")
    assert trials["size"].tolist() == [3, 5, 9, 7]
    assert trials["so_far"].tolist() == [0.6, 0.7, 0.7, 0.65], "of equals the first is chosen"
    assert trials["spent"].tolist() == [10, 30, 60, 100]
    (row,) = found.summary().to_dict("records")
    assert (row["trials"], row["searched"], row["best"], row["learned"]) == (4, 0.65, 0.95, 0.9)
    assert row["cost_ratio"] == 5
    assert math.isnan(row["overtaken"])
    assert "reaches 0.650" in found.caption()


def test_without_validation_the_accuracy_itself_decides():
    found = LearnedAgainstSearched(LEARNED, TRIALS.drop(columns="validation"))
    trials = found.table().query("run == 'trial'")
    assert trials["so_far"].tolist() == [0.6, 0.7, 0.95, 0.95]
    assert found.summary()["overtaken"].tolist() == [3]
    assert "accuracy itself" in found.caption()


@settings(max_examples=40)
@given(st.lists(st.tuples(few, few), min_size=1, max_size=10))
def test_what_is_chosen_so_far_is_the_first_best_on_validation(pairs):
    trials = [{"validation": v / 4, "accuracy": a / 4, "steps": 1} for v, a in pairs]
    learned = [{"accuracy": 0.5, "steps": 1}]
    table = LearnedAgainstSearched(learned, trials, cost="steps").table()
    for count, so_far in enumerate(table["so_far"][1:], 1):
        best = max(trials[:count], key=lambda row: row["validation"])
        assert so_far == best["accuracy"]
    assert table["spent"].tolist() == [1, *range(1, len(pairs) + 1)]


def test_several_searches_are_compared_each_with_its_own_seed():
    second = TRIALS.assign(seed=1, accuracy=[0.9, 0.92, 0.91, 0.93])
    trials = pd.concat([TRIALS.assign(seed=0), second, TRIALS.assign(seed=2)])
    learned = [*LEARNED, {"accuracy": 0.8, "seconds": 10, "seed": 1}]
    rows = LearnedAgainstSearched(learned, trials).summary().set_index("seed")
    assert rows["learned"].to_dict() == {0: 0.9, 1: 0.8, 2: pytest.approx(0.85)}
    assert rows["cost_ratio"].to_dict() == {0: 5, 1: 10, 2: pytest.approx(100 / 15)}
    assert rows.loc[1, "overtaken"] == 1


@pytest.mark.parametrize("seeds", [1, 3])
def test_stairs_lines_and_failed_trials_are_drawn(seeds, tmp_path):
    random = np.random.default_rng(0)
    trials = pd.concat(
        TRIALS.assign(seed=seed, accuracy=[0.1, *random.uniform(0.8, 0.9, 3)])
        for seed in range(seeds)
    )
    learned = [{"accuracy": 0.9 + seed / 100, "seconds": 20, "seed": seed} for seed in range(seeds)]
    found = LearnedAgainstSearched(learned, trials)
    figure = found.figure()
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "trials of the search", "training time (s), all trials together",
    ]  # fmt: skip
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert 0.1 < low < 0.9 < high, "one failed trial must not squeeze the others"
        (below,) = [line for line in axes.lines if line.get_marker() == "v"]
        assert list(below.get_ydata()) == [low] * seeds
    assert ("bands reach" in found.caption()) == (seeds > 1)
    bands = sum(patch.get_alpha() is not None for patch in figure.axes[0].patches)
    assert bands == (0 if seeds == 1 else 2), "bands over seeds"
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "below"
    assert imread(found.save(tmp_path)[2]).std() > 0.02, "the picture is empty"


def test_one_trial_and_no_cost_at_all_are_drawn(tmp_path):
    found = LearnedAgainstSearched(
        [{"accuracy": 1.0, "flops": 0}], [{"accuracy": 1.0, "flops": 0}], cost="flops"
    )
    left, right = found.figure().axes
    assert right.get_xlabel() == "flops, all trials together"
    assert left.get_ylim()[0] < 1.0 < left.get_ylim()[1]
    assert math.isnan(found.summary()["cost_ratio"][0])
    assert imread(found.save(tmp_path)[2]).std() > 0.02, "the picture is empty"


GOOD = {"family": "a", "cost": 1.0, "accuracy": 0.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "points must hold at least one row"),
        (pd.DataFrame(columns=["family", "cost", "accuracy"]), "at least one row"),
        ([{"family": "a", "cost": 1.0}], r"columns family, cost, accuracy; 'accuracy' is missing"),
        ([GOOD | {"accuracy": math.nan}], r"'accuracy' must be .* from 0 to 1 .*nan.* in row 0"),
        ([GOOD, GOOD | {"accuracy": 97.0, "cost": 2}], r"from 0 to 1 in every row, got .*97.* 1"),
        ([GOOD | {"cost": -1.0}], r"'cost' must be a finite number from 0 on .*-1"),
        ([GOOD | {"cost": "much"}], r"'cost' must be .*'much'"),
        ([GOOD, GOOD], "one row for each family, cost, seed, got two for family a, cost 1.0, seed"),
        ([GOOD | {"family": None}], "column 'family' must have a value in every row"),
        ([GOOD | {"seed": math.nan}], "column 'seed' must have a value in every row"),
    ],
)
def test_points_that_cannot_be_compared_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        AccuracyAgainstCost(rows)


@pytest.mark.parametrize("rows", [3, "text", [1, 2]])
def test_what_is_no_table_is_refused(rows):
    with pytest.raises(TypeError, match="points must be a DataFrame or a sequence of mappings"):
        AccuracyAgainstCost(rows)


@pytest.mark.parametrize(
    ("learned", "trials", "message"),
    [
        ([{"accuracy": 0.9}], TRIALS, "learned must have the columns accuracy, seconds; 'seconds'"),
        (LEARNED, TRIALS.drop(columns="seconds"), "trials must have .* 'seconds' is missing"),
        (LEARNED * 2, TRIALS, "learned must have one row for each seed, got two for seed 0"),
        (LEARNED, TRIALS.assign(trial=1), "got two for seed 0, trial 1"),
        (LEARNED, TRIALS.assign(validation=[0.5, math.nan, 0.5, 0.5]), "trials: 'validation'"),
        (LEARNED, [], "trials must hold at least one row"),
    ],
)
def test_a_search_that_cannot_be_compared_is_refused(learned, trials, message):
    with pytest.raises(ValueError, match=message):
        LearnedAgainstSearched(learned, trials)


def test_tables_that_are_given_stay_as_they_are():
    given = TRIALS.copy()
    LearnedAgainstSearched(LEARNED, given).table()
    pd.testing.assert_frame_equal(given, TRIALS)
    given = pd.DataFrame(TWO_SEEDS)
    AccuracyAgainstCost(given).figure()
    pd.testing.assert_frame_equal(given, pd.DataFrame(TWO_SEEDS))
