"""Untrained networks beside the one that is studied."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sizeless.models.small import SmallResNet
from sizeless.nn import FlexConv1d
from sizeless.study import untrained, untrained_kernels


def weights(model):
    return torch.cat([parameter.flatten() for parameter in model.parameters()]).detach()


def test_every_draw_is_another_and_the_same_again():
    def make():
        return SmallResNet(1, 3)

    first = [weights(model) for model in untrained(make, draws=3)]
    again = [weights(model) for model in untrained(make, draws=3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])


def test_generators_are_left_as_they_were():
    model = nn.Sequential(nn.Conv1d(1, 1, 3))
    before = torch.get_rng_state()
    list(untrained(model, draws=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_is_drawn_anew_and_itself_left_alone():
    model = nn.Sequential(FlexConv1d(1, 2, 33, init_size=5), nn.BatchNorm1d(2))
    nn.init.constant_(model[0].window.log_sigma, -1.0)
    before = weights(model)
    (fresh,) = untrained(model, draws=1)
    assert torch.equal(weights(model), before)
    assert fresh[0].size == (5,), "sizes are at their start again"
    assert not fresh.training
    assert not torch.equal(weights(fresh), before)


def test_kernels_of_each_draw():
    model = nn.Conv2d(2, 3, 3)
    draws = untrained_kernels(model, torch.zeros(1, 2, 8, 8), draws=2, most=4)
    assert [len(draw) for draw in draws] == [1, 1]
    assert draws[0][0].kernels.shape == (4, 3, 3)


def test_wrong_calls():
    with pytest.raises(ValueError, match="draws"):
        list(untrained(nn.Linear(1, 1), draws=0))
    with pytest.raises(TypeError, match=r"what make\(\) returns"):
        list(untrained(lambda: "network", draws=1))


@pytest.mark.parametrize("normed", ["weight_norm", "spectral_norm"])
def test_weights_that_are_computed_are_drawn_anew(normed):
    wrap = getattr(nn.utils.parametrizations, normed)
    model, example = nn.Sequential(wrap(nn.Conv1d(2, 8, 5))), torch.zeros(1, 2, 9)
    own = untrained_kernels(lambda: model, example, draws=1)[0][0].kernels
    one, other = (draw[0].kernels for draw in untrained_kernels(model, example, draws=2))
    assert abs(one - own).max() > 1e-3
    assert abs(one - other).max() > 1e-3


def test_a_network_that_cannot_be_drawn_anew_is_no_control():
    with pytest.warns(FutureWarning, match="weight_norm"):
        model = nn.Sequential(nn.utils.weight_norm(nn.Conv1d(1, 4, 3)))
    with torch.no_grad():
        model(torch.zeros(1, 1, 9))
    with pytest.raises(ValueError, match="keeps its weights in 0, a Conv1d"):
        list(untrained(model, draws=1))


def test_weights_that_start_the_same_each_time_are_drawn():
    class Blur(nn.Conv1d):
        def reset_parameters(self):
            nn.init.constant_(self.weight, 1 / 3)

    (fresh,) = untrained(Blur(1, 1, 3, bias=False), draws=1)
    assert torch.equal(fresh.weight, torch.full((1, 1, 3), 1 / 3))
