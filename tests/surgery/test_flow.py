"""Where branches meet."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sizeless.surgery.flow import meetings


def found(model, input):
    """Groups of paths of pools that must share a stride, and those that must keep theirs."""
    paths = {module: path for path, module in model.named_modules()}
    pools = {module for module in model.modules() if isinstance(module, nn.MaxPool2d)}
    neutral = {module for module in model.modules() if isinstance(module, nn.Conv2d)}
    result = meetings(model, (input,), pools, neutral)
    groups = sorted(sorted(paths[pool] for pool in group) for group in result.groups())
    return groups, {paths[pool]: reason for pool, reason in result.kept.items()}


class Pools(nn.Module):
    """Three pools, and a function of them and the input."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.c = (nn.MaxPool2d(2) for _ in range(3))
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.function = function

    def forward(self, input):
        return self.function(self, input)


def assigned(m, x):
    """Two maps in one tensor, made by assignment."""
    both = torch.zeros(1, 2, 8, 8)
    both[:, :1] = m.a(x)[:, :1]
    both[:, 1:] = m.b(x)[:, :1]
    return both


TOGETHER = {
    "sum": lambda m, x: m.a(x) + m.b(x),
    "in place": lambda m, x: m.a(x).add_(m.b(x)),
    "concatenation": lambda m, x: torch.cat([m.a(x), m.b(x)], 1),
    "stack": lambda m, x: torch.stack([m.a(x), m.b(x)]).sum(0),
    "product": lambda m, x: m.a(x).relu() * m.b(x).sigmoid(),
    "after a convolution": lambda m, x: m.conv(m.a(x)) + m.b(x),
    "after normalisation": lambda m, x: F.layer_norm(m.a(x), (8, 8)) + m.b(x),
    "split": lambda m, x: torch.cat([*m.a(x).chunk(2, 1), m.b(x)], 1),
    "last channels": lambda m, x: m.a(x).permute(0, 2, 3, 1) + m.b(x).permute(0, 2, 3, 1),
    "flat": lambda m, x: m.a(x).flatten(2) + m.b(x).flatten(2),
    "assignment": assigned,
    "gate": lambda m, x: m.a(x) * m.a(x).mean((2, 3), keepdim=True) + m.b(x),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_meets_shares_a_stride(name):
    groups, kept = found(Pools(TOGETHER[name]), torch.randn(1, 2, 16, 16))
    assert groups == [["a", "b"]]
    assert not kept


APART = {
    "after each other": lambda m, x: m.b(m.a(x)),
    "after a mean": lambda m, x: m.a(x).mean((2, 3)) + m.b(x).mean((2, 3)),
    "gate": lambda m, x: m.a(x) * m.b(x).mean((2, 3), keepdim=True),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(m.a(x), 3) + F.adaptive_max_pool2d(m.b(x), 3),
    "two outputs": lambda m, x: (m.a(x), m.b(x)),
}


@pytest.mark.parametrize("name", APART)
def test_what_does_not_meet_has_its_own(name):
    groups, kept = found(Pools(APART[name]), torch.randn(1, 2, 16, 16))
    assert groups == [["a"], ["b"]]
    assert not kept


def test_meetings_go_on():
    model = Pools(lambda m, x: (m.a(x) + m.b(x)) * m.c(x))
    assert found(model, torch.randn(1, 2, 16, 16))[0] == [["a", "b", "c"]]
    model = Pools(lambda m, x: m.c(m.a(x)) + m.c(m.b(x)))
    assert found(model, torch.randn(1, 2, 16, 16))[0] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("side", [2, 3])
def test_maps_of_one_position_meet_as_others_do(side):
    groups, _ = found(Pools(TOGETHER["sum"]), torch.randn(1, 2, side, side))
    assert groups == [["a", "b"]]


KEPT = {
    "upsampled": (
        lambda m, x: F.interpolate(m.a(x), scale_factor=2) + x,
        "its output meets a map of other strides in the model",
    ),
    "sliced": (
        lambda m, x: m.a(x) + x[:, :, ::2, ::2],
        "its output meets that of __getitem__ in the model, whose stride is fixed",
    ),
    "a function's pool": (
        lambda m, x: m.a(x) + F.avg_pool2d(x, 2),
        "its output meets that of avg_pool2d in the model, whose stride is fixed",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_meets_something_fixed_keeps_its_stride(name):
    function, reason = KEPT[name]
    groups, kept = found(Pools(function), torch.randn(1, 2, 16, 16))
    assert groups == []
    assert kept == {"a": reason}


def test_a_group_keeps_its_stride_together():
    model = Pools(lambda m, x: (m.a(x) + m.b(x), F.interpolate(m.b(x), scale_factor=2) + x))
    groups, kept = found(model, torch.randn(1, 2, 16, 16))
    assert groups == []
    assert set(kept) == {"a", "b"}


def test_a_large_weight_is_no_map():
    weight = torch.randn(64, 2, 3, 3)
    model = Pools(lambda m, x: F.conv2d(m.a(x), weight, padding=1)[:, :2] + m.b(x))
    assert found(model, torch.randn(1, 2, 8, 8))[0] == [["a", "b"]]


def test_the_pass_leaves_nothing_behind():
    model = Pools(TOGETHER["sum"]).train()
    found(model, torch.randn(1, 2, 16, 16))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
