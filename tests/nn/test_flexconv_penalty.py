"""The penalty on frequencies that a kernel's taps cannot hold."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sizeless import FlexConv1d, FlexConv2d, aliasing_penalty
from sizeless.kernels import SIREN, Fourier, MAGNet
from sizeless.nn import FlexConvNd

SMALL = partial(MAGNet, hidden=3, layers=2)
FORMS = ["together", "summed"]


def wave_layer(highest: float, layers: int = 2) -> FlexConvNd:
    """Layer of 33 taps (Nyquist frequency 8) of which every wave reaches ``highest``."""
    layer = FlexConv1d(1, 1, 33, kernel=partial(Fourier, hidden=4, layers=layers))
    layer.double()
    with torch.no_grad():
        frequency = layer.kernel.frequency
        frequency *= 2 * math.pi * highest / frequency.abs().amax(dim=1, keepdim=True)
    return layer


@given(share=st.floats(0, 3), layers=st.integers(1, 3), form=st.sampled_from(FORMS))
def test_penalty_is_the_squared_excess_over_nyquist(share: float, layers: int, form: str) -> None:
    highest = share * 8 / (layers + 1)
    penalty = aliasing_penalty(wave_layer(highest, layers), form=form).item()
    excess = max(0.0, share - 1) * 8
    expected = excess**2 if form == "summed" else excess**2 / (layers + 1)
    assert penalty == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(low=st.floats(0.1, 30), high=st.floats(0.1, 30), form=st.sampled_from(FORMS))
def test_penalty_grows_with_the_frequency(low: float, high: float, form: str) -> None:
    low, high = sorted((low, high))
    before, after = (aliasing_penalty(wave_layer(f), form=form).item() for f in (low, high))
    assert before <= after + 1e-9
    assert (after > 0) == (3 * high > 8)


@pytest.mark.parametrize("include_window", [False, True])
@pytest.mark.parametrize("bound", ["tight", "official"])
@pytest.mark.parametrize("form", FORMS)
def test_penalty_is_the_formula(form: str, bound: str, include_window: bool) -> None:
    layer = FlexConv2d(1, 1, (9, 21), kernel=SMALL, dtype=torch.float64)
    layer.window.assign_(torch.zeros(2), torch.tensor([0.05, 0.4]))
    w, gamma = layer.kernel.frequency.abs().tolist(), layer.kernel.gamma.abs().tolist()
    turn, s, nyquist = 2 * math.pi, 1.5, (2.0, 5.0)
    bounds = []
    for axis in range(2):
        if bound == "tight":
            factors = [
                max((w[f][i][axis] + s * gamma[f][i][axis]) / turn for i in range(3))
                for f in range(3)
            ]
            window = s / (turn * layer.window.sigma[axis].item())
        else:
            factors = [(max(map(max, w[f])) + s * max(map(max, gamma[f]))) / turn for f in range(3)]
            window = s / (turn * 0.05)
        bounds.append((factors, window * include_window))
    if form == "summed":
        excess = max(sum(bounds[d][0]) + bounds[d][1] - nyquist[d] for d in range(2))
        expected = max(0.0, excess) ** 2
    else:
        expected = 0.0
        for factor in range(3):
            excess = max(bounds[d][0][factor] + bounds[d][1] / 3 - nyquist[d] / 3 for d in range(2))
            expected += max(0.0, excess) ** 2
    penalty = aliasing_penalty(
        layer, form=form, bound=bound, include_window=include_window, stddevs=s
    )
    assert penalty.shape == ()
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_narrow_window_counts_where_it_is_asked_to(form: str) -> None:
    layer = wave_layer(2.0)
    penalties = []
    for sigma in (0.5, 0.1, 0.05, 0.02):
        layer.window.assign_(torch.zeros(1), torch.tensor([sigma]))
        assert aliasing_penalty(layer, form=form).item() == 0
        penalties.append(aliasing_penalty(layer, form=form, include_window=True).item())
    assert penalties[0] == 0
    assert penalties == sorted(penalties)
    # 2 / (2 pi sigma) is 2 at a width of 0.159: only narrower windows pass what is left.
    assert penalties[1] > 0


def test_layers_add_up() -> None:
    first, second = FlexConv2d(1, 2, 9, kernel=SMALL), FlexConv2d(2, 1, 17, kernel=SMALL)
    together = aliasing_penalty(nn.Sequential(first, nn.ReLU(), second))
    torch.testing.assert_close(together, aliasing_penalty(first) + aliasing_penalty(second))


def test_a_finer_grid_holds_more() -> None:
    layer = FlexConv2d(1, 1, 33, kernel=SMALL)
    coarse = aliasing_penalty(layer)
    layer.change_resolution_(2)
    assert layer.nyquist() == (16.0, 16.0)
    assert aliasing_penalty(layer) < coarse


def test_descending_the_penalty_removes_aliasing() -> None:
    layer = FlexConv1d(1, 1, 33, kernel=partial(MAGNet, hidden=2, layers=1, input_scale=5.0))
    first = aliasing_penalty(layer, include_window=True).item()
    assert first > 1
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.2)
    for _ in range(80):
        optimizer.zero_grad()
        aliasing_penalty(layer, include_window=True).backward()
        optimizer.step()
    assert aliasing_penalty(layer, include_window=True).item() < 1e-3 * first
    highest = layer.kernel.max_frequency() + layer.window.max_frequency()
    assert highest.item() < 8.1


def test_a_network_without_an_analytic_frequency_is_named() -> None:
    model = nn.Sequential(nn.ReLU(), FlexConv1d(1, 1, 9, kernel=SIREN))
    with pytest.raises(ValueError, match="layer '1': SIREN has no analytic maximum frequency"):
        aliasing_penalty(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "mean"}, "form must be 'together' or 'summed', got 'mean'"),
        ({"bound": "loose"}, "bound must be 'tight' or 'official', got 'loose'"),
        ({"stddevs": -1.0}, "stddevs must be a finite number of at least 0, got -1.0"),
        ({"stddevs": math.nan}, "stddevs must be a finite number of at least 0, got nan"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aliasing_penalty(FlexConv1d(1, 1, 9), **options)


def test_a_model_without_flexible_kernels_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no FlexConv layer"):
        aliasing_penalty(nn.Linear(1, 1))
