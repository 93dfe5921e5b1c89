"""Where the influence of a learned stride on the cost ends."""

import pytest
import torch
from torch import nn

from sizeless import DiffStride1d, cost


def exact1d(stride):
    return DiffStride1d(stride, size_rule="exact")


def test_a_compiled_network_costs_what_it_costs_eagerly():
    model = nn.Sequential(exact1d(2.0), nn.Conv1d(1, 2, 3))
    compiled = torch.compile(model, backend="eager")
    x = torch.zeros(1, 1, 64)
    assert cost(compiled, x).macs == cost(model, x).macs


@pytest.mark.parametrize(
    "fixed",
    [nn.Upsample(size=16), lambda x: nn.functional.interpolate(x, size=16)],
    ids=["module", "function"],
)
def test_enlarging_to_a_fixed_size_ends_the_influence_of_a_stride(fixed):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.conv = exact1d(2.0), nn.Conv1d(1, 1, 3)

        def forward(self, input):
            return self.conv(fixed(self.pool(input)))

    rows = cost(Fixed(), torch.zeros(1, 1, 32)).rows
    assert rows[-1].strides == {}
    assert not rows[-1].macs.requires_grad


def test_a_linear_layer_on_pooled_tokens_feels_no_stride():
    class Tokens(nn.Module):
        def __init__(self, pooled):
            super().__init__()
            self.pooled, self.pool, self.mix = pooled, exact1d(2.0), nn.Linear(4, 4)

        def forward(self, input):
            hidden = self.pool(input).transpose(1, 2)
            return self.mix(hidden.mean(dim=1, keepdim=True) if self.pooled else hidden)

    x = torch.zeros(1, 4, 32)
    assert not cost(Tokens(True), x).rows[-1].macs.requires_grad
    assert cost(Tokens(False), x).rows[-1].macs.requires_grad
