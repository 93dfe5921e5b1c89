"""Learned strides in networks with branches."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sizeless

from .striding import Residual, learned, reasons, residual_net, set_strides, strides_of


class Branches(nn.Module):
    """Parallel branches whose outputs are concatenated, without padding."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2)
        self.conv = nn.Conv2d(2, 4, 3, 2)
        self.deep = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, 2))
        self.head = nn.Conv2d(10, 4, 3, padding=1)

    def forward(self, input):
        return self.head(torch.cat([self.pool(input), self.conv(input), self.deep(input)], 1))


class Dense(nn.Module):
    """Layers that see all maps before them, and a transition."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(2 * n, 2, 3, padding=1) for n in (1, 2, 3))
        self.transition = nn.Sequential(nn.Conv2d(8, 2, 1), nn.AvgPool2d(2))
        self.last = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, input):
        for layer in self.layers:
            input = torch.cat([input, layer(input)], 1)
        return self.last(self.transition(input))


class UNet(nn.Module):
    """Halves the map twice and doubles it twice, with skip connections."""

    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(1, 4, 3, 2, padding=1)
        self.down2 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2))
        self.up2 = nn.ConvTranspose2d(4, 4, 2, 2)
        self.mix = nn.Conv2d(8, 4, 3, padding=1)
        self.last = nn.Conv2d(5, 1, 3, padding=1)

    def forward(self, input):
        first = self.down1(input)
        hidden = self.mix(torch.cat([self.up2(self.down2(first)), first], 1))
        return self.last(torch.cat([F.interpolate(hidden, scale_factor=2), input], 1))


def test_a_residual_block_shares_one_stride():
    model = residual_net()
    input = torch.randn(2, 1, 32, 32)
    new, report = learned(model, input)
    assert new[1].conv1[-1] is new[1].shortcut[0]
    assert new[2].conv1[-1] is new[2].shortcut[0]
    assert new[1].conv1[-1] is not new[2].conv1[-1]
    assert [change.reason for change in report.changed] == [
        "one stride with 1.shortcut",
        "one stride with 1.conv1",
        "one stride with 2.shortcut",
        "one stride with 2.conv1",
    ]
    for value in (1.3, 1.7, 2.0, 2.2, 2.7):
        set_strides(new, value)
        assert new(input).shape == (2, 3)
        assert new(torch.randn(1, 1, 29, 41)).shape == (1, 3)


@pytest.mark.parametrize("side", [4, 8, 9])
def test_maps_of_one_position_share_it_as_well(side):
    new, report = learned(residual_net(), torch.randn(2, 1, side, side))
    assert len(report.changed) == 4
    assert len(strides_of(new)) == 2
    set_strides(new, 1.3)
    assert new[:3](torch.randn(1, 1, 33, 33)).shape == (1, 8, 20, 20)


def test_a_shortcut_that_pools_shares_the_stride():
    shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(4, 8, 1))
    new, _ = learned(residual_net(shortcut), torch.randn(2, 1, 31, 31))
    assert new[1].shortcut[0][0] is new[1].conv1[-1]
    set_strides(new, 1.6)
    assert new(torch.randn(2, 1, 31, 31)).shape == (2, 3)


def test_layers_that_round_in_their_own_way_do_not_keep_those_before_them():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, padding=1),
        Residual(4, 4, 2, nn.MaxPool2d(2)),
        Residual(4, 4, 2, nn.MaxPool2d(2)),
    )
    new, report = learned(model, torch.randn(1, 1, 32, 32))
    assert not report.left_alone
    assert len(strides_of(new)) == 3
    set_strides(new, 1.3)
    assert new(torch.randn(1, 1, 32, 32)).shape[2:] == (16, 16)


def test_a_shortcut_by_a_function_keeps_its_stride():
    class Sliced(nn.Module):
        def forward(self, input):
            return F.pad(input[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))

    new, report = learned(residual_net(Sliced()), torch.randn(2, 1, 32, 32))
    assert type(new[1].conv1) is nn.Conv2d
    assert reasons(report)["1.conv1"] == (
        "its output meets that of __getitem__ in 1.shortcut, whose stride is fixed"
    )
    assert [change.name for change in report.changed] == ["2.conv1", "2.shortcut"]


def test_a_rule_for_one_branch_holds_for_what_it_meets():
    input = torch.randn(2, 1, 32, 32)
    new, report = learned(residual_net(), input, rules={"1.shortcut": None, "*": True})
    assert reasons(report) == {
        "1.shortcut": "a rule says so",
        "1.conv1": "its output meets that of conv2d in 1.shortcut, whose stride is fixed",
    }
    assert len(strides_of(new)) == 1


def test_branches_share_one_stride():
    input = torch.randn(1, 2, 21, 23)
    new, report = learned(Branches(), input)
    assert len(report.changed) == 3
    assert len(strides_of(new)) == 1
    for value in (1.3, 2.0, 2.7):
        set_strides(new, value)
        assert new(input).shape[2:] == (math.ceil(21 / value), math.ceil(23 / value))


def test_branches_of_different_strides_are_left_alone():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.once = nn.Conv2d(1, 2, 4, 4)
            self.twice = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 2, 2, 2))
            self.other = nn.MaxPool2d(2)
            self.wide = nn.AvgPool2d(1, 3)

        def forward(self, input):
            square = self.once(input) + self.twice(input)
            return square, self.other(input[:, :, :4, :4]) + self.wide(input[:, :, :4, :4])

    _, report = learned(Both(), torch.randn(1, 1, 16, 16))
    assert not report.changed
    meets = "its output meets a map of other strides in the model"
    differ = "branches that meet have different strides [(2, 2), (3, 3)]"
    assert reasons(report) == {
        "once": meets,
        "twice.0": meets,
        "twice.1": meets,
        "other": differ,
        "wide": differ,
    }


def test_a_dense_network_learns_its_transition():
    new, report = learned(Dense(), torch.randn(1, 2, 16, 16))
    assert [change.name for change in report.changed] == ["transition.1"]
    set_strides(new, 1.4)
    assert new(torch.randn(1, 2, 16, 16)).shape[2:] == (12, 12)


def test_a_u_net_keeps_its_strides_but_not_its_kernels():
    input = torch.randn(1, 1, 16, 16)
    _, report = learned(UNet(), input)
    assert not report.changed
    assert set(reasons(report)) == {"down1", "down2.1"}
    assert all("meets a map of other strides" in text for text in reasons(report).values())
    _, report = sizeless.convert(UNet(), input, conv="flex", stem=True)
    assert len(report.changed) == 4
    assert report.error < 1e-5


def test_a_head_for_maps_of_one_size_keeps_the_strides():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, 2, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * 49, 3)
    )
    new, report = learned(model, torch.randn(2, 1, 28, 28))
    assert not report.changed
    assert all(
        reason.startswith("the network does not take other strides there: RuntimeError: ")
        for reason in reasons(report).values()
    )
    assert type(new[0]) is nn.Conv2d


def test_a_view_that_makes_other_samples_is_noticed():
    class View(nn.Module):
        def forward(self, input):
            return input.reshape(-1, 1)

    model = nn.Sequential(nn.MaxPool2d(2), View())
    _, report = learned(model, torch.randn(2, 1, 4, 4))
    assert reasons(report) == {
        "0": "the network does not take other strides there: the output would have another number "
        "of axes, samples or channels"
    }


def test_one_group_that_fails_leaves_others():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fixed = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(49, 3))
            self.free = nn.Sequential(nn.Conv2d(1, 3, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, input):
            return self.fixed(input) + self.free(input)

    _, report = learned(Two(), torch.randn(2, 1, 14, 14))
    assert [change.name for change in report.changed] == ["free.0"]
    assert list(reasons(report)) == ["fixed.0"]
