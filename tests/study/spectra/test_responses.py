"""Frequency responses: known kernels, their definition, invariances, tables and pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sizeless.nn import FlexConv1d, NIFFConv1d, NIFFConv2d, NIFFConv3d
from sizeless.penalties import aliasing_margins
from sizeless.study import LayerKernels, layer_kernels, untrained_kernels
from sizeless.study.spectra.measure import energies, frequencies, measure
from sizeless.study.spectra.responses import spectra


def bank(kernels, *, kind="convolution", stride=1, name="layer", stage=1):
    kernels = np.asarray(kernels, dtype=np.float32)
    ndim = kernels.ndim - 1
    return LayerKernels(
        name,
        f"Conv{ndim}d",
        kind,
        stage,
        kernels,
        len(kernels),
        tuple((n - 1) / 2 for n in kernels.shape[1:]),
        kernels.shape[1:] if kind == "NIFF" else (32,) * ndim,
        (stride,) * ndim if isinstance(stride, int) else stride,
    )


def measured(kernels, *, level=0.95, grid=64, **about):
    return measure(bank(kernels, **about), level=level, grid=grid, margin=math.nan)


@settings(max_examples=25)
@given(
    size=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    extra=st.lists(st.integers(0, 4), min_size=3, max_size=3),
)
def test_energies_are_those_of_the_definition(size, extra):
    grid = tuple(n + more for n, more in zip(size, extra, strict=False))
    kernel = np.random.default_rng(sum(grid)).normal(size=size)
    found, squared = frequencies(grid), energies(kernel[None], grid)[0]
    assert found.counts.sum() == math.prod(grid)
    # Parseval: frequencies that are not there are those of the other sign.
    assert squared @ found.counts / math.prod(grid) == pytest.approx(np.square(kernel).sum())
    half = (*grid[:-1], grid[-1] // 2 + 1)
    for place, index in enumerate(np.ndindex(*half)):
        signed = [i / n if i <= n / 2 else i / n - 1 for i, n in zip(index, grid, strict=True)]
        response = sum(
            kernel[tap] * np.exp(-2j * np.pi * np.dot(signed, tap)) for tap in np.ndindex(*size)
        )
        assert squared[place] == pytest.approx(abs(response) ** 2, abs=1e-9)
        np.testing.assert_allclose(found.axes[place], np.abs(signed), atol=1e-12)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kind", ["convolution", "NIFF"])
def test_a_single_tap_is_flat(ndim, kind):
    kernel = np.zeros((1, *(7,) * ndim))
    kernel[(0, *(2,) * ndim)] = -3.0
    found = measured(kernel, kind=kind)
    rings = np.isfinite(found.magnitude[0])
    np.testing.assert_allclose(found.magnitude[0, rings], 1, rtol=1e-6)
    np.testing.assert_allclose(found.energy[0, rings], 1, rtol=1e-6)
    assert found.center[0] == pytest.approx(found.flat)
    assert found.constant[0] == pytest.approx(7**-ndim)
    assert found.grid == ((7,) if kind == "NIFF" else (64,)) * ndim
    # The area of a circle, and of half an interval.
    area = {1: 0.5, 2: math.pi / 16, 3: math.pi / 48}[ndim]
    if kind != "NIFF":
        assert found.low[0] == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("width", [2, 5, 9])
def test_a_box_is_a_dirichlet_kernel(width):
    found = measured(np.full((1, width), 0.2))
    frequency = found.frequency[1:]
    expected = np.abs(np.sin(np.pi * width * frequency) / np.sin(np.pi * frequency))
    np.testing.assert_allclose(found.magnitude[0, 1:], expected / math.sqrt(width), atol=1e-6)
    assert found.magnitude[0, 0] == pytest.approx(math.sqrt(width))
    assert found.constant[0] == pytest.approx(1)


@pytest.mark.parametrize("turns", [3, 10, 24])
def test_a_wave_peaks_at_its_frequency(turns):
    places = np.arange(64)
    wave = np.cos(2 * np.pi * turns * places / 64)
    found = measured(wave[None])
    assert found.frequency[found.magnitude[0].argmax()] == turns / 64
    assert found.center[0] == pytest.approx(turns / 64)
    assert found.bandwidth[0] == turns / 64
    plane = np.cos(2 * np.pi * turns * (places[:, None] + places) / 64)
    assert measured(plane[None]).center[0] == pytest.approx(turns / 64 * math.sqrt(2))


def test_the_share_that_a_blur_lets_alias_is_the_known_one():
    # |H|^2 of 1 2 1 is 16 cos^4(pi f); its integral from 1/4 to 1/2 is 1/2 - 4 / (3 pi) of all.
    share = 0.5 - 4 / (3 * math.pi)
    blur = np.array([1.0, 2.0, 1.0])
    found = measured(blur[None], stride=2)
    assert found.aliased[0] == pytest.approx(share, abs=5e-4)
    assert found.low[0] == pytest.approx(1 - share, abs=5e-4)
    assert measured(blur[None], stride=2, grid=1024).aliased[0] == pytest.approx(share, abs=2e-6)
    both = measured(np.outer(blur, blur)[None], stride=2)
    assert both.aliased[0] == pytest.approx(1 - (1 - share) ** 2, abs=1e-3)
    along = measured(np.outer(blur, blur)[None], stride=(1, 2))
    assert along.aliased[0] == pytest.approx(share, abs=5e-4)
    assert along.strides == (2,)
    assert math.isnan(measured(blur[None]).aliased[0])
    # White noise through a single tap: all but the part that the output holds.
    assert measured(np.ones((1, 1)), stride=4).aliased[0] == pytest.approx(0.75)


def test_a_bandwidth_holds_its_share():
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(5, 6, 7))
    found, grid = measured(kernels, level=0.8), frequencies((64, 64))
    for place, squared in enumerate(energies(kernels.astype(np.float32), (64, 64))):
        shares = squared * grid.counts / (squared @ grid.counts)
        width = found.bandwidth[place]
        assert shares[grid.radius <= width].sum() >= 0.8
        assert shares[grid.radius < width].sum() < 0.8
    flat = np.ones((1, 1))
    assert measured(flat, level=1.0).bandwidth[0] == 0.5
    assert measured(flat, level=0.5).bandwidth[0] == pytest.approx(0.25, abs=1 / 64)
    assert measured(flat[None], level=1.0).bandwidth[0] == pytest.approx(math.sqrt(0.5))


@settings(max_examples=20)
@given(
    shift=st.tuples(st.integers(0, 6), st.integers(0, 4)),
    factor=st.sampled_from([-1.0, 1e-20, 40.0]),
    flip=st.booleans(),
)
def test_place_gain_and_direction_do_not_matter(shift, factor, flip):
    kernel = np.random.default_rng(1).normal(size=(2, 4, 5)).astype(np.float32)
    moved = np.zeros((2, 10, 9))
    moved[:, shift[0] : shift[0] + 4, shift[1] : shift[1] + 5] = factor * kernel
    if flip:
        moved = moved[:, ::-1, ::-1]
    one, other = measured(kernel, stride=2), measured(moved, stride=2)
    for name in ("magnitude", "energy", "bandwidth", "center", "low", "aliased"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4)


def test_a_filter_as_large_as_its_map_is_taken_on_it():
    torch.manual_seed(0)
    layer = NIFFConv1d(3, 3, groups=3)
    (kernels,) = layer_kernels(layer, torch.zeros(1, 3, 20))
    found = measured(kernels.kernels, kind="NIFF")
    response = torch.fft.rfft(layer.spatial_kernel(20).double().flatten(0, 1)).abs().detach()
    expected = response.numpy() / np.linalg.norm(kernels.kernels, axis=1)[:, None]
    np.testing.assert_allclose(found.magnitude, expected, rtol=1e-4)
    np.testing.assert_allclose(found.frequency, np.arange(11) / 20)


def test_long_kernels_have_a_grid_of_their_own_length():
    found = measured(np.random.default_rng(0).normal(size=(2, 101)))
    assert found.grid == (102,)
    assert len(found.frequency) == 33
    assert np.isfinite(found.magnitude).all()
    assert np.square(found.magnitude).mean() == pytest.approx(np.mean(found.energy), rel=0.5)


def test_kernels_of_nothing_count_nowhere():
    kernels = np.random.default_rng(0).normal(size=(6, 5, 5))
    kernels[2], kernels[4, 0, 0] = 0.0, np.inf
    found, rest = (spectra([bank(k)]) for k in (kernels, np.delete(kernels, [2, 4], axis=0)))
    numbers = ["bandwidth", "centre frequency", "energy at DC", "high-pass"]
    one, other = (result.table().loc[0, numbers] for result in (found, rest))
    np.testing.assert_allclose(one.astype(float), other.astype(float))
    nothing = spectra([bank(np.zeros((2, 3)))])
    assert nothing.table().loc[0, numbers].isna().all()
    assert nothing.profiles()["magnitude"].isna().all()
    nothing.figure()


def test_low_and_high_pass_kernels_are_told():
    low, high = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 2.0, -1.0])
    table = spectra([bank([low, low, high])]).table().iloc[0]
    assert table["high-pass"] == pytest.approx(1 / 3)
    assert table["energy at DC"] == pytest.approx(2 / 3 * 16 / 18)
    assert spectra([bank([[1.0]])]).table().iloc[0]["high-pass"] == 0


def test_the_control_and_the_margins_stand_beside():
    rng = np.random.default_rng(0)
    layers = [bank(rng.normal(size=(9, 5)), name="a"), bank(np.ones((4, 9)), name="b")]
    draws = [[bank(rng.normal(size=(9, n)), name=name) for name in "ab"] for n in (5, 7, 9)]
    found = spectra(layers, draws, margins={"b": -0.5, "elsewhere": 1.0})
    table = found.table().set_index("layer")
    assert table.loc["b", "margin"] == table.loc["stage 1", "margin"] == -0.5
    assert math.isnan(table.loc["a", "margin"])
    assert table.loc["b", "bandwidth"] < table.loc["b", "control bandwidth"]
    assert table.loc["b", "score bandwidth"] < 0
    assert table.loc["b", "bandwidth of Nyquist"] == 2 * table.loc["b", "bandwidth"]
    profiles = found.profiles()
    assert set(profiles["network"]) == {"trained", "untrained"}
    box = profiles[(profiles["layer"] == "b") & (profiles["network"] == "trained")]
    assert box["magnitude"].iloc[0] == pytest.approx(3)
    assert "(untrained 0.4" in found.caption()
    plain = spectra(layers)
    assert not {"margin", "control bandwidth"} & set(plain.table())
    assert "untrained" not in plain.caption()


def test_margins_are_those_of_the_network():
    network = nn.Sequential(FlexConv1d(1, 4, 65), nn.Conv1d(4, 4, 3))
    margins = aliasing_margins(network)
    table = spectra(layer_kernels(network, torch.zeros(1, 1, 80)), margins=margins).table()
    assert table["margin"].iloc[0] == margins["0"]
    assert math.isnan(table["margin"].iloc[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"level": 0}, ValueError, "level must be a finite number above 0 and at most 1, got 0"),
        ({"level": 1.5}, ValueError, "level must be .* at most 1, got 1.5"),
        ({"grid": 63}, ValueError, "grid must be even, so that it has the Nyquist frequency"),
        ({"grid": 0}, ValueError, "grid must be at least 2, got 0"),
        ({"grid": 64.0}, TypeError, "grid must be an int, got 64.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        spectra([bank(np.ones((1, 3)))], **arguments)


@pytest.mark.parametrize(
    ("make", "example"),
    [
        (lambda: nn.Conv1d(1, 3, 9, stride=3), torch.zeros(1, 1, 30)),
        (lambda: NIFFConv2d(2, 2, groups=2), torch.zeros(1, 2, 7, 12)),
        (lambda: nn.Sequential(nn.Conv3d(1, 2, 3, stride=2), NIFFConv3d(2, 2)), None),
        (
            lambda: nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(13))),
            torch.zeros(1, 1, 40, 40),
        ),
        (lambda: NIFFConv2d(2, 2), torch.zeros(1, 2, 1, 1)),
    ],
    ids=["1d", "oblong", "3d", "more stages than panels", "a map of one sample"],
)
def test_networks_of_every_kind_have_a_picture_and_files(make, example, tmp_path):
    torch.manual_seed(0)
    example = torch.zeros(1, 1, 9, 9, 9) if example is None else example
    found = spectra(layer_kernels(make(), example), untrained_kernels(make, example, draws=2))
    paths = found.save(tmp_path)
    assert [path.name for path in paths] == ["spectra.csv", "spectra.json", "spectra.png"]
    axes = found.figure().axes
    assert sum(panel.axison for panel in axes) == min(12, len(found.stages))
    assert all("cycles/pixel" in panel.get_xlabel() for panel in axes if panel.axison)
    assert ("first 12 of the 13" in found.caption()) == (len(found.stages) == 13)


def test_a_control_may_see_maps_of_other_sizes():
    trained = layer_kernels(NIFFConv2d(4, 4, groups=4), torch.zeros(1, 4, 90, 90))
    control = [
        layer_kernels(NIFFConv2d(4, 4, groups=4), torch.zeros(1, 4, size, size))
        for size in (80, 110)
    ]
    found = spectra(trained, control)
    profiles = found.profiles()
    counts = profiles.groupby(["of", "network"]).size()
    assert counts.nunique() == 1, "all on the rings of the network that is studied"
    untrained = profiles[profiles["network"] == "untrained"]["energy"].dropna()
    assert (untrained > 0).all()
    assert found.figure().axes


def test_interpolation_between_rings_keeps_what_is_flat():
    delta = np.zeros((1, 65, 65), np.float32)
    delta[0, 32, 32] = 1
    (layer,) = layer_kernels(nn.Conv2d(1, 1, 65, padding=32), torch.zeros(1, 1, 65, 65))
    small, large = (
        replace(layer, kernels=delta),
        replace(layer, kernels=np.pad(delta, ((0, 0), (30, 30), (30, 30)))),
    )
    profiles = spectra([small], [[large]]).profiles()
    flat = profiles[profiles["of"] == "layer"]["magnitude"].dropna()
    np.testing.assert_allclose(flat, 1, atol=1e-6)
