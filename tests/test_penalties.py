"""The price of the work that learned strides leave to a network."""

import math

import pytest
import torch
from torch import nn

import sizeless
from sizeless import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    DiffStrideResidual1d,
    FlexConv1d,
    complexity_penalty,
    cost,
)

LN2 = math.log(2)
LINE = torch.zeros(1, 1, 64)


def chain(*strides, rule="exact"):
    layers = [DiffStride1d(stride, size_rule=rule) for stride in strides]
    convolutions = [nn.Conv1d(1, 1, 3, padding="same") for _ in strides]
    return nn.Sequential(*(m for pair in zip(layers, convolutions, strict=True) for m in pair))


@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_strides_in_a_row_multiply(rule):
    penalty = complexity_penalty(chain(2.0, 1.25, 4.0, rule=rule), LINE)
    assert penalty.shape == ()
    assert penalty.item() == pytest.approx(1 / 2 + 1 / 2.5 + 1 / 10)


def test_all_axes_multiply():
    model = nn.Sequential(DiffStride2d((2.0, 1.5)), nn.Sequential(DiffStride2d(3.0, shared=True)))
    assert complexity_penalty(model, torch.zeros(1, 1, 32, 32)).item() == pytest.approx(
        1 / 3 + 1 / 27
    )
    cube = DiffStride3d((1.0, 2.0, 4.0))
    assert complexity_penalty(cube, torch.zeros(1, 1, 8, 8, 8)).item() == pytest.approx(1 / 8)


def test_the_gradient_is_that_of_the_products():
    model = chain(2.0, 4.0)
    complexity_penalty(model, LINE).backward()
    # The first stride is in both terms, 1/2 and 1/8; an octave divides a term by 2.
    assert model[0].log2_stride.grad.item() == pytest.approx(-LN2 * (1 / 2 + 1 / 8))
    assert model[2].log2_stride.grad.item() == pytest.approx(-LN2 / 8)
    assert all(p.grad is None for m in (model[1], model[3]) for p in m.parameters())


class Tree(nn.Module):
    """A stem, two branches, and a stride after they have met."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.c = (
            DiffStride1d(stride, size_rule="exact") for stride in (1.25, 2.0, 2.0, 1.6)
        )

    def forward(self, input):
        stem = self.stem(input)
        return self.c(torch.cat([self.a(stem), self.b(stem)], dim=1))


def test_branches_multiply_what_their_input_has_passed():
    terms = [1.25, 1.25 * 2, 1.25 * 2, 1.25 * 2 * 2 * 1.6]
    assert complexity_penalty(Tree(), LINE).item() == pytest.approx(sum(1 / t for t in terms))


def test_a_stride_shared_by_two_branches_counts_once():
    first, second = (
        DiffStrideResidual1d(1, 2, DiffStride1d(2.0, size_rule="exact")),
        DiffStrideResidual1d(2, 2, DiffStride1d(4.0, size_rule="exact")),
    )
    assert complexity_penalty(nn.Sequential(first, second), LINE).item() == pytest.approx(
        1 / 2 + 1 / 8
    )


def test_a_stride_that_is_passed_twice_counts_twice():
    pool = DiffStride1d(2.0, size_rule="exact")
    penalty = complexity_penalty(nn.Sequential(pool, nn.Conv1d(1, 1, 1), pool), LINE)
    assert penalty.item() == pytest.approx(1 / 2 + 1 / 4)
    penalty.backward()
    assert pool.log2_stride.grad.item() == pytest.approx(-LN2 * (1 / 2 + 2 / 4))


def test_only_strides_that_are_used_count():
    model = Tree()
    before = complexity_penalty(model, LINE)
    model.unused = DiffStride1d(4.0)
    assert torch.equal(complexity_penalty(model, LINE), before)


def test_strides_count_within_their_limits_and_keep_their_gradient():
    model = DiffStride1d(2.0, max_stride=4.0)
    with torch.no_grad():
        model.log2_stride.fill_(5.0)
    penalty = complexity_penalty(model, LINE)
    assert penalty.item() == pytest.approx(1 / 4)
    penalty.backward()
    assert model.log2_stride.grad.item() == pytest.approx(-LN2 / 4)


def test_the_other_form_is_the_whole_cost():
    model = nn.Sequential(chain(2.0, 1.5), FlexConv1d(1, 3, 17, init_size=7))
    penalty, result = complexity_penalty(model, LINE, form="macs"), cost(model, LINE)
    assert penalty.item() == pytest.approx(result.macs.item() / 1e9)
    sizes = [model[0][0].log2_stride, model[0][2].log2_stride, model[1].window.log_sigma]
    ours, theirs = (torch.autograd.grad(y, sizes) for y in (penalty, result.macs / 1e9))
    for mine, expected in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, expected)
    # Smaller strides and larger kernels cost more.
    assert [g.sign().item() for g in ours] == [-1, -1, 1]


def test_the_other_form_needs_no_learned_stride():
    assert complexity_penalty(nn.Conv1d(1, 1, 1), LINE, form="macs").item() == pytest.approx(64e-9)


@pytest.mark.parametrize("form", ["cumulative", "macs"])
@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_both_fall_as_strides_grow(form, rule):
    prices = [
        complexity_penalty(chain(s, 2.0, rule=rule), torch.zeros(1, 1, 256), form=form).item()
        for s in (1.0, 1.5, 2.0, 3.0, 6.0)
    ]
    assert prices == sorted(prices, reverse=True)
    assert len(set(prices)) == len(prices)


@pytest.mark.parametrize("form", ["cumulative", "macs"])
def test_descent_on_it_makes_strides_grow(form):
    model = chain(1.5, 1.5)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    prices = []
    for _ in range(4):
        optimiser.zero_grad()
        prices.append(complexity_penalty(model, LINE, form=form))
        prices[-1].backward()
        optimiser.step()
    assert prices[-1] < prices[0]
    assert all(model[i].stride[0] > 1.7 for i in (0, 2))


def test_a_tuple_of_arguments_will_do():
    assert complexity_penalty(chain(2.0), (LINE,)).item() == pytest.approx(0.5)


def test_errors():
    with pytest.raises(ValueError, match="form must be 'cumulative' or 'macs', got 'flops'"):
        complexity_penalty(chain(2.0), LINE, form="flops")
    with pytest.raises(ValueError, match=r"Conv1d has no DiffStride layer.*form='macs'"):
        complexity_penalty(nn.Conv1d(1, 1, 1), LINE)
    with pytest.raises(ValueError, match="called no layer that is counted"):
        complexity_penalty(nn.ReLU(), LINE)


def test_kernel_norms_are_those_of_rendered_kernels_and_biases():
    model = nn.Sequential(
        sizeless.FlexConv2d(2, 3, 9, init_size=3), sizeless.FlexConv1d(1, 2, 9, bias=False)
    )
    expected = model[0].weight.norm() + model[0].bias.norm() + model[1].weight.norm()
    penalty = sizeless.penalties.kernel_norm_penalty(model)
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    assert all(p.grad is not None for p in model[1].parameters())
    with pytest.raises(ValueError, match="Linear has no FlexConv layer"):
        sizeless.penalties.kernel_norm_penalty(nn.Linear(1, 1))


def test_a_margin_is_what_the_summed_penalty_leaves():
    layer = sizeless.FlexConv1d(1, 1, kernel_size=65, init_size=9)
    model = nn.Sequential(layer, nn.ReLU())
    margins = sizeless.penalties.aliasing_margins(model)
    penalty = sizeless.aliasing_penalty(layer, form="summed", include_window=True)
    (nyquist,) = layer.nyquist()
    assert list(margins) == ["0"]
    assert max(-margins["0"], 0) * nyquist == pytest.approx(penalty.sqrt().item(), rel=1e-4)


def test_kernels_without_an_analytic_frequency_have_no_margin():
    layer = sizeless.FlexConv1d(1, 1, kernel_size=65, kernel=sizeless.kernels.SIREN)
    assert sizeless.penalties.aliasing_margins(layer) == {}
