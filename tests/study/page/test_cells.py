from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizeless.study.page import Table
from sizeless.study.page.cells import column, number, words
from sizeless.study.page.tables import columns


def texts(values, **keywords):
    return [cell.text for cell in column("x", values, **keywords).cells]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (0.98712, "0.9871"),
        (7.42, "7.42"),
        (-3, "−3"),
        (9999, "9999"),
        (241_310, "241,310"),
        (123_456.7, "123,457"),
        (-1234567, "−1,234,567"),
        (1.5e9, "1.5×10⁹"),
        (-2.5e-7, "−2.5×10⁻⁷"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (np.float32(0.5), "0.5"),
        (np.int64(12), "12"),
        (Fraction(1, 3), "0.3333"),
    ],
)
def test_a_number_is_written_for_people(value, text):
    assert number(value) == text


def test_the_numbers_of_a_column_have_the_same_decimals():
    assert texts([0.5, 12.25, 3.0]) == ["0.50", "12.25", "3.00"]
    assert texts([0.98765, 0.5]) == ["0.9877", "0.5000"]
    assert texts([1.0, 2.0, math.nan]) == ["1", "2", "–"]


def test_a_small_number_keeps_two_digits_beside_large_ones():
    assert texts([12.0, 0.034]) == ["12.000", "0.034"]


def test_numbers_of_very_different_size_are_written_each_on_its_own():
    assert texts([1e-9, 0.25, 31234.5]) == ["1×10⁻⁹", "0.25", "31,234"]


def test_a_number_that_rounds_to_zero_has_no_sign():
    assert texts([-0.00001, 0.5], spec=".2f") == ["0.00", "0.50"]


def test_what_is_missing_is_a_dash_and_makes_a_column_no_less_numeric():
    made = column("x", [1.5, None, math.nan, pd.NA, pd.NaT])
    assert made.numeric
    assert [cell.missing for cell in made.cells] == [False, True, True, True, True]
    assert {cell.text for cell in made.cells[1:]} == {"–"}
    assert not column("x", [None, math.nan]).numeric


def test_truth_values_are_words_and_not_numbers():
    made = column("x", [True, np.False_])
    assert not made.numeric
    assert [cell.text for cell in made.cells] == ["yes", "no"]


@pytest.mark.parametrize("size", [(3, 5), [3, 5], np.array([3, 5])])
def test_a_tuple_of_numbers_is_a_size(size):
    assert words(size) == "3\xa0×\xa05"


def test_a_tuple_of_words_is_a_list():
    assert words(("a", "b")) == "a, b"


def test_a_format_takes_the_place_of_the_chosen_one():
    assert texts([0.123456, -1.0], spec=".1%") == ["12.3%", "−100.0%"]
    assert texts([3.0, math.nan, math.inf], spec="d") == ["3", "–", "∞"]


@given(st.lists(st.floats(allow_nan=False) | st.integers(), min_size=1))
def test_sorting_by_the_keys_sorts_the_numbers(values):
    random.Random(0).shuffle(values)
    cells = column("x", values).cells
    # A browser reads a number as Python's float does.
    assert [float(cell.key) for cell in cells] == [float(value) for value in values]


@given(st.floats(1e-12, 1e12), st.sampled_from([1, -1]))
def test_a_number_is_written_with_at_least_its_four_digits(magnitude, sign):
    text = number(sign * magnitude)
    superscripts = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True))
    plain = text.replace("−", "-").replace(",", "").replace("×10", "e")
    value = float("".join(superscripts.get(letter, letter) for letter in plain))
    assert value == pytest.approx(sign * magnitude, rel=5.1e-4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_a_column_is_never_off_by_more_than_it_shows(values):
    largest = max(map(abs, values))
    for cell, value in zip(column("x", values).cells, values, strict=True):
        if "×" not in cell.text:
            shown = float(cell.text.replace("−", "-").replace(",", ""))
            assert shown == pytest.approx(value, abs=max(5.1e-3 * largest, 1e-12))


def test_named_levels_of_the_index_are_columns():
    frame = pd.DataFrame({"kind": ["a", "a", "b"], "size": [1, 3, 5]}).groupby("kind").mean()
    assert [made.name for made in columns(Table(frame))] == ["kind", "size"]
    unnamed = pd.DataFrame({"size": [1]}, index=[7])
    assert [made.name for made in columns(Table(unnamed))] == ["size"]


def test_headers_of_several_levels_are_joined():
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("size", "max"), ("n", "")]))
    assert [made.name for made in columns(Table(frame))] == ["size, max", "n"]


def test_columns_of_one_name_are_both_there():
    frame = pd.DataFrame([[1, 2]], columns=["size", "size"])
    assert [made.cells[0].text for made in columns(Table(frame))] == ["1", "2"]


def test_numbers_beside_words_keep_their_text():
    made = column("x", [3, "none", 0.5])
    assert not made.numeric
    assert [cell.text for cell in made.cells] == ["3", "none", "0.5"]


def test_a_format_of_no_column_is_an_error():
    frame = pd.DataFrame({"size": [1.0]})
    with pytest.raises(ValueError, match=r"units names 'sise', which is no column .*'size'"):
        columns(Table(frame, units={"sise": "taps"}))
    with pytest.raises(ValueError, match=r"formats\['size'\] must be .* got 'taps'"):
        columns(Table(frame, formats={"size": "taps"}))
