"""The kernel networks that are compared."""

from __future__ import annotations

import pytest
import torch

from sizeless import kernels
from sizeless.study.fitting.networks import NETWORKS, make, parameters, width_for


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_those_of_the_library(name):
    network = make(name, 2, 3, hidden=8)
    assert type(network) is NETWORKS[name].make
    assert type(network).__module__.startswith(kernels.__name__)
    assert network(torch.zeros(4, 2)).shape == (4, 3)
    assert sum(p.numel() for p in network.parameters()) == parameters(name, 2, 3, 8)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_decides_the_weights_and_nothing_else(name):
    before = torch.get_rng_state()
    first, again, other = (make(name, 1, 1, hidden=4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    same = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    different = zip(first.parameters(), other.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in different)


@pytest.mark.parametrize("name", ["magnet", "gabor", "fourier"])
def test_scale_multiplies_the_first_frequencies(name):
    once, thrice = (make(name, 2, 1, scale=scale) for scale in (1.0, 3.0))
    torch.testing.assert_close(thrice.frequency, 3 * once.frequency)


def test_scale_multiplies_the_frequency_of_a_siren():
    assert make("siren", 2, 1, scale=2.0).omega_0 == 60.0


def test_usual_frequencies_are_the_defaults_of_the_library():
    for contender in NETWORKS.values():
        if contender.frequency is not None:
            default = contender.make(1, 1)
            assert getattr(default, contender.frequency) == contender.usual


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 300, 4097])
def test_a_width_comes_as_near_to_a_count_as_any(name, count):
    width = width_for(name, 2, 1, count)
    distance = abs(parameters(name, 2, 1, width) - count)
    for other in (width - 1, width + 1):
        if other > 0:
            assert abs(parameters(name, 2, 1, other) - count) >= distance


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "mlpp"}, "network must be 'magnet', .* got 'mlpp'"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"scale": 0.0}, "scale must be"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_wrong_networks_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        make(**{"name": "mlp", "ndim": 2, "out_features": 1, **given})
