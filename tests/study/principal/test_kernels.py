"""Principal components of kernels, against known answers, a plain twin and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizeless import FlexConv1d, NIFFConv2d
from sizeless.study.bank import LayerKernels, layer_kernels
from sizeless.study.principal.kernels import aligned, principal_kernels


def layer(kernels, name="a", *, stage=1, kind="convolution", origin=None, causal=False):
    kernels = np.asarray(kernels, dtype=np.float32)
    size = kernels.shape[1:]
    return LayerKernels(
        name=name,
        layer="Layer",
        kind=kind,
        stage=stage,
        kernels=kernels,
        total=len(kernels),
        origin=origin or tuple((n - 1) / 2 for n in size),
        map_size=size,
        stride=(1,) * len(size),
        causal=causal,
    )


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def of(kernels, **options):
    """The components of one layer."""
    (group,) = principal_kernels([layer(kernels)], **options).groups
    return group


def by_eigenvalues(kernels, components):
    """The same from the covariance of the taps."""
    samples = np.asarray(kernels, dtype=np.float64).reshape(len(kernels), -1)
    values, vectors = np.linalg.eigh(np.cov(samples, rowvar=False))
    shape = (-1, *kernels.shape[1:])
    return vectors.T[::-1][:components].reshape(shape), values[::-1][:components] / values.sum()


def assert_same_patterns(found, expected, tolerance=1e-6):
    """Compare patterns up to their signs."""
    assert found.shape == expected.shape
    products = np.abs((found * expected).reshape(len(found), -1).sum(axis=1))
    np.testing.assert_allclose(products, 1.0, atol=tolerance)


# ---- components ----------------------------------------------------------------------------------


def test_two_patterns_are_found():
    first, second = np.zeros((2, 5, 5))
    first[2, 2], second[1, 2], second[3, 2] = -1.0, 0.6, -0.8
    base = noise(0, 5, 5)
    weights = np.array([[3, 1], [-3, 1], [3, -1], [-3, -1]])
    group = of(base + np.einsum("nc,chw->nhw", weights, np.stack([first, second])))
    np.testing.assert_allclose(group.shares[:2], [0.9, 0.1], atol=1e-6)
    np.testing.assert_allclose(group.components[0], -first, atol=1e-6)
    np.testing.assert_allclose(group.components[1], -second, atol=1e-6)
    np.testing.assert_allclose(group.mean, base, atol=1e-6)
    assert len(group.shares) == 2, "they vary in no other direction"


@pytest.mark.parametrize("shape", [(40, 7), (300, 5, 5), (9, 4, 6), (60, 3, 4, 5)])
def test_components_are_eigenvectors_of_the_covariance(shape):
    kernels = noise(1, *shape) * np.linspace(1, 3, shape[-1])
    group = of(kernels, components=4)
    patterns, shares = by_eigenvalues(kernels.astype(np.float32), 4)
    np.testing.assert_allclose(group.shares, shares, rtol=1e-6)
    assert_same_patterns(group.components, patterns)


def test_many_wide_kernels_are_decomposed_at_random_and_always_alike():
    taps = np.arange(26) - 12
    window = np.exp(-0.5 * (taps / 3.0) ** 2)
    kernels = (noise(2, 600, 26, 26) * np.outer(window, window)).astype(np.float32)
    state = np.random.get_state()[1].tolist()
    first, second = of(kernels), of(kernels)
    assert np.random.get_state()[1].tolist() == state
    np.testing.assert_array_equal(first.components, second.components)
    patterns, shares = by_eigenvalues(kernels, 7)
    np.testing.assert_allclose(first.shares, shares, rtol=1e-4)
    assert_same_patterns(first.components, patterns, tolerance=1e-2)


def test_frequency_filters_vary_in_as_many_directions_as_their_networks_have_functions():
    """Five functions for the real part; for the imaginary part four, the constant does not act."""
    bank = layer_kernels(NIFFConv2d(64, 64, groups=64), torch.zeros(1, 64, 14, 14))
    (group,) = principal_kernels(bank, components=12).groups
    assert group.shares[8] > 1e-6
    np.testing.assert_allclose(group.shares[9:], 0.0, atol=1e-9)


def test_the_largest_tap_of_a_component_is_positive():
    group = of(noise(3, 50, 5, 5))
    peaks = np.abs(group.components.reshape(7, -1)).argmax(axis=1)
    assert (group.components.reshape(7, -1)[np.arange(7), peaks] > 0).all()
    turned = of(-noise(3, 50, 5, 5))
    np.testing.assert_allclose(turned.components, group.components, atol=1e-6)
    np.testing.assert_allclose(turned.mean, -group.mean)


@pytest.mark.parametrize(("count", "found"), [(1, 0), (2, 1), (3, 2), (40, 7)])
def test_few_kernels_have_few_components(count, found):
    group = of(noise(4, count, 3, 3))
    assert group.components.shape == (found, 3, 3)
    assert group.shares.shape == (found,)


def test_no_more_components_than_taps():
    assert of(noise(4, 30, 2, 2)).components.shape == (4, 2, 2)


def test_kernels_that_are_all_alike_have_no_components():
    found = principal_kernels([layer(np.ones((5, 3, 3)))])
    (row,) = found.table().to_dict("records")
    assert (row["component"], row["measured"]) == (0, 5)
    assert np.isnan(row["share"])
    assert found.figure().axes[0].get_title() == "mean"
    assert "Explained" not in found.caption()


def test_kernels_that_are_not_finite_are_left_out():
    kernels = noise(5, 20, 3, 3)
    broken = np.concatenate([kernels, np.full((1, 3, 3), np.nan), np.full((1, 3, 3), np.inf)])
    group = of(broken)
    np.testing.assert_array_equal(group.components, of(kernels).components)
    assert group.left_out == group.facts["left out"] == 2
    nothing = of(broken[20:])
    assert len(nothing.shares) == 0
    assert np.isnan(nothing.mean).all()
    principal_kernels([layer(broken[20:])]).figure()


# ---- what cannot change the shares ---------------------------------------------------------------


@st.composite
def banks(draw):
    size = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    return noise(draw(st.integers(0, 2**16)), draw(st.integers(3, 20)), *size)


def assert_same_shares(found, expected):
    np.testing.assert_allclose(found.shares, expected.shares, atol=1e-6)


@given(banks(), st.data())
def test_signs_of_taps_and_shifts_of_the_grid_do_not_matter(kernels, data):
    """A transform of the wrong phase multiplies kernels by a checkerboard."""
    expected = of(kernels)
    checkerboard = (-1.0) ** np.indices(kernels.shape[1:]).sum(axis=0)
    turned = of(kernels * checkerboard)
    assert_same_shares(turned, expected)
    axes = tuple(range(1, kernels.ndim))
    shifts = tuple(data.draw(st.integers(-4, 4)) for _ in axes)
    assert_same_shares(of(np.roll(kernels, shifts, axes)), expected)
    assert_same_shares(of(np.flip(kernels, data.draw(st.sampled_from(axes)))), expected)
    assert_same_shares(of(-2.5 * kernels), expected)
    order = data.draw(st.permutations(range(len(kernels))))
    assert_same_shares(of(kernels[order]), expected)


@given(banks(), st.data())
def test_zeros_around_kernels_do_not_matter(kernels, data):
    margins = [
        data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in kernels.shape[1:]
    ]
    assert_same_shares(of(np.pad(kernels, [(0, 0), *margins])), of(kernels))


# ---- kernels of several sizes --------------------------------------------------------------------


def test_kernels_of_several_sizes_meet_at_their_origins():
    small, wide, tall = noise(6, 2, 3, 3), noise(7, 3, 1, 7), noise(8, 1, 5, 1)
    kernels, origin = aligned([layer(small), layer(wide), layer(tall)])
    expected = np.zeros((6, 5, 7))
    expected[:2, 1:4, 2:5], expected[2:5, 2:3], expected[5:, :, 3:4] = small, wide, tall
    np.testing.assert_allclose(kernels, expected, rtol=1e-6)
    assert origin == (2.0, 3.0)


def test_kernels_of_even_size_meet_in_the_middle():
    kernels, origin = aligned([layer(noise(6, 1, 2, 2)), layer(noise(7, 1, 4, 4))])
    assert kernels.shape == (2, 4, 4)
    assert origin == (1.5, 1.5)
    np.testing.assert_allclose(kernels[0, 1:3, 1:3], noise(6, 2, 2), rtol=1e-6)


def test_beside_odd_kernels_even_ones_move_by_half_a_sample():
    even = noise(6, 1, 4)
    kernels, origin = aligned([layer(even), layer(noise(7, 1, 3))])
    assert origin == (1.0,)
    np.testing.assert_allclose(kernels[0], even[0], rtol=1e-6)
    np.testing.assert_allclose(kernels[1], [*noise(7, 3), 0], rtol=1e-6)


def test_causal_kernels_meet_at_their_newest_tap():
    network = torch.nn.Sequential(
        FlexConv1d(2, 3, 33, causal=True, init_size=9),
        FlexConv1d(3, 3, 33, causal=True, init_size=15),
    )
    bank = layer_kernels(network, torch.zeros(1, 2, 40))
    kernels, origin = aligned(bank)
    assert kernels.shape == (15, max(part.size[0] for part in bank))
    assert origin == (kernels.shape[1] - 1,)
    assert (kernels[:6, : -bank[0].size[0]] == 0).all()
    assert (kernels[:6, -1] == bank[0].kernels[:, -1]).all()
    (group,) = principal_kernels(bank).groups
    assert group.causal
    np.testing.assert_array_equal(group.cropped(4).mean, group.mean[-4:])


def test_stages_and_kinds_are_kept_apart():
    layers = [
        layer(noise(0, 8, 3, 3), "a"),
        layer(noise(1, 9, 1, 7), "b"),
        layer(noise(2, 8, 5, 5), "c", kind="NIFF"),
        layer(noise(3, 8, 3, 3), "d", stage=2),
    ]
    stages = principal_kernels(layers, components=2)
    assert [group.size for group in stages.groups] == [(5, 5), (3, 7), (3, 3)]
    expected = of(aligned(layers[:2])[0], components=2)
    np.testing.assert_allclose(stages.groups[1].components, expected.components, atol=1e-6)
    table = stages.table()
    assert table["grid"].tolist() == ["5 × 5"] * 2 + ["3 × 7"] * 2 + ["3 × 3"] * 2
    assert table["measured"].tolist() == [8, 8, 17, 17, 8, 8]
    alone = principal_kernels(layers, components=2, by="layer")
    assert alone.table()["layer"].tolist() == [name for name in "abcd" for _ in range(2)]


# ---- table, crop and picture ---------------------------------------------------------------------


def test_the_table():
    kernels = np.zeros((3, 9, 9))
    kernels[1, 4, 4], kernels[2, 3:6, 3:6] = 3.0, 0.01
    rows = principal_kernels([layer(kernels)]).table()
    group = of(kernels)
    assert rows["component"].tolist() == [1, 2]
    np.testing.assert_allclose(rows["share"], group.shares)
    np.testing.assert_allclose(rows["share so far"], np.cumsum(group.shares))
    assert rows["share so far"].iloc[-1] == pytest.approx(1.0)
    assert rows["effective 90 %"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("size", "origin", "side", "window"),
    [
        ((14, 14), (6, 6), 9, (slice(2, 11), slice(2, 11))),
        ((14, 14), (6, 6), 14, (slice(0, 13), slice(0, 13))),
        ((14, 14), (6, 6), 15, (slice(0, 14), slice(0, 14))),
        ((4, 4), (1.5, 1.5), 2, (slice(1, 3), slice(1, 3))),
        ((3, 12), (1, 5), 5, (slice(0, 3), slice(3, 8))),
        ((3, 3, 7), (1, 1, 3), 3, (slice(0, 3), slice(0, 3), slice(2, 5))),
    ],
)
def test_the_central_part(size, origin, side, window):
    found = principal_kernels([layer(noise(9, 12, *size), origin=origin)], components=3)
    (group,), (cropped,) = found.groups, found.cropped(side).groups
    np.testing.assert_array_equal(cropped.components, group.components[(slice(None), *window)])
    np.testing.assert_array_equal(cropped.mean, group.mean[window])
    places = [o - axis.start for o, axis in zip(origin, window, strict=True)]
    assert list(cropped.origin) == places
    np.testing.assert_array_equal(cropped.shares, group.shares)


def test_a_crop_holds_a_tap():
    found = principal_kernels([layer(noise(9, 12, 4, 4))])
    with pytest.raises(ValueError, match="size must be at least 2"):
        found.cropped(1)
    with pytest.raises(ValueError, match="size must be at least 1"):
        found.cropped(0)


@pytest.mark.parametrize(("size", "rows"), [((15,), 2), ((5,), 1), ((12, 10), 2), ((11, 3, 12), 2)])
def test_a_picture_has_a_row_of_patterns_and_one_of_their_central_part(size, rows):
    found = principal_kernels([layer(noise(9, 12, *size))], components=4)
    axes = found.figure().axes
    assert len(axes) == rows * 5
    titles = [panel.get_title() for panel in axes[:5]]
    expected = [f"{n}: {share:.1%}" for n, share in enumerate(found.groups[0].shares, start=1)]
    assert titles == ["mean", *(title.replace("%", " %") for title in expected)]


def test_the_slice_through_the_origin_of_a_volume_is_drawn():
    found = principal_kernels([layer(noise(9, 12, 5, 4, 3), origin=(2, 1.5, 1))])
    image = found.figure().axes[1].images[0]
    np.testing.assert_array_equal(image.get_array(), found.groups[0].components[0][2])
    low, high = image.get_clim()
    assert low == -high == -np.abs(found.groups[0].components[0]).max()


def test_of_many_layers_some_are_drawn():
    layers = [layer(noise(n, 4, 3, 3), f"l{n}") for n in range(20)]
    figure = principal_kernels(layers, components=1, by="layer").figure()
    assert len(figure.axes) == 16
    heads = [text.get_text() for text in figure.texts if "kernels" in text.get_text()]
    assert heads[0].startswith("l0, map 3 × 3, 4 kernels")
    assert heads[-1].startswith("l19")


def test_files(tmp_path):
    found = principal_kernels([layer(noise(9, 12, 12, 12))])
    assert {path.name for path in found.save(tmp_path)} == {
        "principal_kernels.csv",
        "principal_kernels.json",
        "principal_kernels.png",
    }
    assert "stage 1 convolution: " in found.caption()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"components": 0}, ValueError, "components must be at least 1"),
        ({"components": 2.0}, TypeError, "components must be an int"),
        ({"by": "kind"}, ValueError, "by must be 'stage' or 'layer'"),
    ],
)
def test_wrong_options(options, error, said):
    with pytest.raises(error, match=said):
        principal_kernels([layer(noise(9, 12, 3, 3))], **options)


def test_layers_are_needed():
    with pytest.raises(ValueError, match="layers must hold"):
        principal_kernels([])
