"""Padding against numpy, which pads by any amount."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizeless.functional.padding import pad, padding_amounts

NUMPY_NAMES = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}


@pytest.mark.parametrize("mode", NUMPY_NAMES)
@given(data=st.data())
def test_any_amount_equals_numpy(mode: str, data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, 3))
    size = data.draw(st.tuples(*[st.integers(1, 5)] * ndim))
    amounts = data.draw(st.tuples(*[st.tuples(st.integers(0, 13), st.integers(0, 13))] * ndim))
    input = torch.randn(1, 2, *size)
    expected = np.pad(input.numpy(), [(0, 0), (0, 0), *amounts], mode=NUMPY_NAMES[mode])
    torch.testing.assert_close(pad(input, amounts, mode), torch.from_numpy(expected))


def test_nothing_to_pad_gives_the_input_itself() -> None:
    input = torch.randn(1, 2, 3, 4)
    assert all(pad(input, ((0, 0), (0, 0)), mode) is input for mode in NUMPY_NAMES)


@pytest.mark.parametrize(
    ("padding", "causal", "expected"),
    [
        (0, False, ((0, 0),)),
        (3, False, ((3, 3),)),
        ((2,), False, ((2, 2),)),
        ("valid", False, ((0, 0),)),
        ("same", False, ((2, 3),)),
        ("same", True, ((5, 0),)),
        (0, True, ((5, 0),)),
        ((0,), True, ((5, 0),)),
    ],
)
def test_amounts_for_a_kernel_that_reaches_over_5(
    padding: int | str | tuple[int, ...], causal: bool, expected: tuple[tuple[int, int], ...]
) -> None:
    assert padding_amounts(padding, (5,), causal) == expected
