"""Lengths of transforms, and the product over channels."""

from __future__ import annotations

from sizeless.functional import good_length


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
