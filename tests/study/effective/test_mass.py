"""Mass and energy of kernels about their origin, against slow twins and known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sizeless.study.effective.mass import energy_radii, kernel_mass_ratio, reaching, tap_sides

LEVELS = (0.3, 0.5, 0.9, 0.95, 1.0)


def taps_of(size):
    return itertools.product(*(range(n) for n in size))


def naive_mass_ratio(kernel, origin, side, causal=False):
    inside = total = 0.0
    for tap in taps_of(kernel.shape):
        distances = [t - o for t, o in zip(tap, origin, strict=True)]
        if causal:
            held = all(0 <= -d <= side - 1 for d in distances)
        else:
            held = all(abs(d) <= (side - 1) / 2 for d in distances)
        total += abs(kernel[tap])
        inside += abs(kernel[tap]) if held else 0.0
    return inside / total


def naive_effective_size(kernel, origin, level, causal=False):
    side = 1
    while naive_mass_ratio(kernel, origin, side, causal) < level - 1e-9:
        side += 1
    return side


def naive_energy_radius(kernel, origin, level):
    """Try a disc through every tap."""
    distance = {tap: math.dist(tap, origin) for tap in taps_of(kernel.shape)}
    total = sum(kernel[tap] ** 2 for tap in distance)
    for radius in sorted(distance.values()):
        held = sum(kernel[tap] ** 2 for tap in distance if distance[tap] <= radius)
        if held >= (level - 1e-9) * total:
            return radius
    raise AssertionError("the largest disc holds everything")


def box(ndim, side, length):
    """A box in the middle of a kernel."""
    margin = (length - side) // 2
    kernel = np.zeros((length,) * ndim)
    kernel[(slice(margin, margin + side),) * ndim] = 1.0
    return kernel


@st.composite
def kernels_and_origins(draw, most=6):
    size = tuple(draw(st.lists(st.integers(1, most), min_size=1, max_size=3)))
    causal = draw(st.booleans())
    origin = tuple(n - 1.0 if causal else draw(st.integers(0, 2 * (n - 1))) / 2 for n in size)
    seed = draw(st.integers(0, 2**16))
    kernel = np.random.default_rng(seed).standard_normal(size)
    kernel[np.random.default_rng(seed + 1).random(size) < 0.3] = 0.0
    assume(np.abs(kernel).sum() > 0)
    return kernel, origin, causal


def effective(kernel, origin, causal=False, levels=LEVELS):
    sizes, ratios = kernel_mass_ratio(kernel[None], origin, causal)
    return reaching(sizes, ratios, levels)[0].tolist()


@given(kernels_and_origins())
def test_ratios_are_those_of_a_loop_over_taps(case):
    kernel, origin, causal = case
    sizes, ratios = kernel_mass_ratio(kernel[None], origin, causal)
    expected = [naive_mass_ratio(kernel, origin, side, causal) for side in sizes]
    np.testing.assert_allclose(ratios[0], expected, rtol=1e-12, atol=1e-15)
    assert ratios[0, -1] == 1.0


@given(kernels_and_origins())
def test_sizes_are_those_at_which_a_window_takes_in_taps(case):
    kernel, origin, causal = case
    sizes, _ = kernel_mass_ratio(kernel[None], origin, causal)
    held = [
        naive_mass_ratio(np.ones_like(kernel), origin, side, causal)
        for side in range(2 * max(kernel.shape) + 1)
    ]
    grows = [side for side in range(1, len(held)) if held[side] > held[side - 1]]
    assert sizes.tolist() == grows


@given(kernels_and_origins(most=4))
def test_effective_sizes_are_those_of_a_loop_over_sizes(case):
    kernel, origin, causal = case
    expected = [naive_effective_size(kernel, origin, level, causal) for level in LEVELS]
    assert effective(kernel, origin, causal) == expected


@given(kernels_and_origins(most=4))
def test_energy_is_where_a_loop_over_taps_finds_it(case):
    kernel, origin, _ = case
    radius, radii = energy_radii(kernel[None], origin, LEVELS)
    total = sum(kernel[tap] ** 2 for tap in taps_of(kernel.shape))
    moment = sum(kernel[tap] ** 2 * math.dist(tap, origin) ** 2 for tap in taps_of(kernel.shape))
    assert radius[0] == pytest.approx(math.sqrt(moment / total), abs=1e-7)
    expected = [naive_energy_radius(kernel, origin, level) for level in LEVELS]
    np.testing.assert_allclose(radii[0], expected)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 9])
def test_a_box_is_as_large_as_it_is(ndim, side):
    length = side + 6
    kernel, origin = box(ndim, side, length), ((length - 1) / 2,) * ndim
    smaller = (max(side - 2, 0) / side) ** ndim
    levels = (np.nextafter(smaller, 1) + 1e-6, 0.99, 1.0)
    assert effective(kernel, origin, levels=levels) == [side] * 3
    sizes, ratios = kernel_mass_ratio(kernel[None], origin)
    expected = (np.minimum(sizes, side) / side) ** ndim
    np.testing.assert_allclose(ratios[0], expected, rtol=1e-12)


def test_a_box_in_a_frequency_filter_of_even_size():
    """Its origin is a tap, and one more tap lies after it than before."""
    kernel = np.zeros((56, 56))
    kernel[27 - 4 : 27 + 5, 27 - 4 : 27 + 5] = 1.0
    sizes, ratios = kernel_mass_ratio(kernel[None], (27, 27))
    assert sizes.tolist() == list(range(1, 58, 2))
    np.testing.assert_allclose(ratios[0, :6], [1 / 81, 9 / 81, 25 / 81, 49 / 81, 1, 1])


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_the_radius_of_a_box_is_its_standard_deviation(side):
    variance = (side**2 - 1) / 12
    for ndim in (1, 2, 3):
        length = side + 2
        origin = ((length - 1) / 2,) * ndim
        (radius,), (radii,) = energy_radii(box(ndim, side, length)[None], origin, [1.0])
        assert radius == pytest.approx(math.sqrt(ndim * variance))
        assert radii == pytest.approx(math.sqrt(ndim) * (side - 1) / 2)


@pytest.mark.parametrize(
    ("size", "origin", "sizes"),
    [
        ((3, 3), (1, 1), [1, 3]),
        ((4, 4), (1.5, 1.5), [2, 4]),
        ((1, 7), (0, 3), [1, 3, 5, 7]),
        ((3, 4), (1, 1.5), [2, 3, 4]),
        ((1, 4), (0, 1.5), [2, 4]),
        ((5,), (0,), [1, 3, 5, 7, 9]),
        ((1, 1, 1), (0, 0, 0), [1]),
    ],
)
def test_window_sizes_of_kernels_whose_axes_differ(size, origin, sizes):
    kernels = np.ones((2, *size))
    found, ratios = kernel_mass_ratio(kernels, origin)
    assert found.tolist() == sizes
    assert ratios.shape == (2, len(sizes))
    assert (np.diff(ratios, axis=1) > 0).all()


def test_causal_windows_hold_the_newest_taps():
    kernel = np.array([[1.0, 2.0, -3.0, 4.0]])
    sizes, ratios = kernel_mass_ratio(kernel, (3,), causal=True)
    assert sizes.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(ratios[0], [0.4, 0.7, 0.9, 1.0])
    assert effective(kernel[0], (3,), causal=True) == [1, 2, 3, 4, 4]


def test_kernels_without_mass_have_no_ratio():
    kernels = np.zeros((4, 3))
    kernels[1] = [0, 1, 0]
    kernels[2, 0] = np.nan
    kernels[3, 0] = np.inf
    sizes, ratios = kernel_mass_ratio(kernels, (1,))
    assert np.isnan(ratios[[0, 2, 3]]).all()
    assert ratios[1].tolist() == [1.0, 1.0]
    assert np.isnan(reaching(sizes, ratios, [0.5])[:, 0]).tolist() == [True, False, True, True]
    radius, radii = energy_radii(kernels, (1,), [0.5])
    assert np.isnan(radius).tolist() == np.isnan(radii[:, 0]).tolist() == [True, False, True, True]


def test_no_kernels_have_no_ratios():
    sizes, ratios = kernel_mass_ratio(np.zeros((0, 3, 3)), (1, 1))
    assert sizes.tolist() == [1, 3]
    assert ratios.shape == (0, 2)


# ---- what cannot change the answer ---------------------------------------------------------------


@given(kernels_and_origins(), st.floats(1e-20, 1e20), st.sampled_from([-1, 1]))
def test_scale_and_sign_do_not_matter(case, scale, sign):
    kernel, origin, causal = case
    _, expected = kernel_mass_ratio(kernel[None], origin, causal)
    _, ratios = kernel_mass_ratio(sign * scale * kernel[None], origin, causal)
    np.testing.assert_allclose(ratios, expected, rtol=1e-12)
    before = energy_radii(kernel[None], origin, LEVELS)
    after = energy_radii(sign * scale * kernel[None], origin, LEVELS)
    np.testing.assert_allclose(after[0], before[0], atol=1e-7)
    np.testing.assert_array_equal(after[1], before[1])


@given(kernels_and_origins(), st.data())
def test_moving_kernel_and_origin_together_does_not_matter(case, data):
    kernel, origin, _ = case
    margins = [data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in origin]
    moved = np.pad(kernel, margins)
    place = [o + before for o, (before, _) in zip(origin, margins, strict=True)]
    assert effective(moved, place) == effective(kernel, origin)
    for a, b in zip(
        energy_radii(moved[None], place, LEVELS),
        energy_radii(kernel[None], origin, LEVELS),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-7)


@given(kernels_and_origins(), st.data())
def test_flips_and_exchanged_axes_do_not_matter(case, data):
    kernel, origin, _ = case
    axis = data.draw(st.integers(0, kernel.ndim - 1))
    turned = list(origin)
    turned[axis] = kernel.shape[axis] - 1 - origin[axis]
    order = data.draw(st.permutations(range(kernel.ndim)))
    changes = [
        (np.flip(kernel, axis), turned),
        (kernel.transpose(order), [origin[a] for a in order]),
    ]
    for changed, place in changes:
        assert effective(changed, place) == effective(kernel, origin)
        np.testing.assert_allclose(
            energy_radii(changed[None], place, LEVELS)[1],
            energy_radii(kernel[None], origin, LEVELS)[1],
        )


# ---- wrong calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "origin", "causal", "said"),
    [
        ((2,), (), False, r"shape \(count, \*size\)"),
        ((2, 3, 0), (1, 0), False, r"got size \(3, 0\)"),
        ((2, 3, 3), (1,), False, "origin must have 2 entries"),
        ((2, 3), (0.25,), False, "on a tap or in the middle"),
        ((2, 3), (3,), False, "from 0 to size - 1"),
        ((2, 3), (-0.5,), False, "from 0 to size - 1"),
        ((2, 3), (1,), True, r"last tap, \(2,\)"),
    ],
)
def test_an_origin_that_does_not_belong_to_the_kernels(shape, origin, causal, said):
    with pytest.raises(ValueError, match=said):
        kernel_mass_ratio(np.ones(shape), origin, causal)


def test_sides_of_taps():
    assert tap_sides((3, 4), (1, 1.5)).tolist() == [[4, 3, 3, 4], [4, 2, 2, 4], [4, 3, 3, 4]]
    assert tap_sides((3,), (2,), causal=True).tolist() == [3, 2, 1]
