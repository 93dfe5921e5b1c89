"""Lengths of transforms, and the product over channels."""

from __future__ import annotations

import torch

from sizeless.functional import good_length
from sizeless.functional.fft import mix_channels


def is_fast(n: int) -> bool:
    if n % 2:
        return False
    for factor in (2, 3, 5):
        while n % factor == 0:
            n //= factor
    return n == 1


def test_good_length_is_the_smallest_even_5_smooth_one() -> None:
    assert good_length(1) == 1
    expected = 2
    for n in range(2, 3000):
        while expected < n or not is_fast(expected):
            expected += 1
        assert good_length(n) == expected


def test_good_length_of_a_long_signal_is_close() -> None:
    for n in (16_001, 65_537, 1_000_003):
        assert is_fast(good_length(n))
        assert n <= good_length(n) < 1.03 * n


def test_mix_channels_multiplies_frequency_by_frequency() -> None:
    for groups, group_inputs, group_outputs in ((1, 3, 2), (3, 1, 1), (3, 1, 2), (2, 2, 3)):
        signal = torch.randn(2, groups * group_inputs, 4, 3, dtype=torch.complex128)
        shape = (groups * group_outputs, group_inputs, 4, 3)
        filter = torch.randn(shape, dtype=torch.complex128)
        expected = torch.zeros(2, groups * group_outputs, 4, 3, dtype=torch.complex128)
        for o in range(shape[0]):
            first = o // group_outputs * group_inputs
            for i in range(group_inputs):
                expected[:, o] += signal[:, first + i] * filter[o, i]
        torch.testing.assert_close(mix_channels(signal, filter, groups), expected)
