"""What a network costs: hand counts, torch's own counter, and gradients by the flow of data."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sizeless import (
    DiffStride1d,
    DiffStride2d,
    DiffStrideResidual1d,
    FlexConv1d,
    FlexConv2d,
    NIFFConv2d,
    SeparableFlexConv1d,
    SpectralPool1d,
    SpectralPool2d,
    cost,
)

LN2 = math.log(2)


def exact1d(stride):
    return DiffStride1d(stride, size_rule="exact")


def counted_by_torch(model, *inputs):
    with FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    return counter.get_total_flops() / 2


def sensitivity(macs, pool):
    """Relative change of a cost per octave of a stride; None if it does not depend on it."""
    if not macs.requires_grad:
        return None
    (slope,) = torch.autograd.grad(macs, pool.log2_stride, allow_unused=True, retain_graph=True)
    return None if slope is None else (slope / macs.detach() / LN2).tolist()


def sensitivities(model, x, pool):
    return {row.name: sensitivity(row.macs, pool) for row in cost(model, x).rows}


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv1d(3, 4, 5), (2, 3, 20), 2 * 4 * 16 * 3 * 5),
        (nn.Conv2d(4, 6, (3, 5), stride=2, padding=1, groups=2), (1, 4, 9, 12), 6 * 25 * 2 * 15),
        (nn.Conv2d(2, 3, 3, dilation=2, padding="same"), (1, 2, 7, 8), 3 * 56 * 2 * 9),
        (nn.Conv3d(1, 2, 2), (1, 1, 4, 5, 6), 2 * 60 * 8),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (2, 4, 10), 2 * 4 * 10 * 3 * 3),
        (nn.ConvTranspose2d(2, 3, 4, stride=2), (1, 2, 5, 6), 2 * 30 * 3 * 16),
        (nn.Linear(7, 5), (3, 7), 3 * 7 * 5),
        (nn.Linear(7, 5), (3, 4, 7), 3 * 4 * 7 * 5),
        (FlexConv1d(2, 4, 17, init_size=5), (3, 2, 30), 3 * 4 * 30 * 2 * 5),
        (
            FlexConv2d(4, 6, (9, 17), groups=2, init_size=(3, 7), stride=2),
            (1, 4, 12, 9),
            6 * 6 * 5 * 2 * 21,
        ),
        (NIFFConv2d(2, 4), (3, 2, 8, 16), 3 * 128 * (1.25 * 6 * 7 + 2 * 8)),
        (SpectralPool1d(2.0), (2, 3, 9), 2 * 3 * 5 * 9),
        (SpectralPool2d(output_size=4), (2, 3, 8, 6), 2 * 3 * (4 * 6 * 8 + 4 * 4 * 6)),
        (DiffStride2d(2.0), (2, 3, 32, 24), 2 * 3 * (24 * 24 * 32 + 24 * 20 * 24)),
        (
            DiffStride2d((2.0, 3.0), size_rule="exact"),
            (1, 2, 10, 12),
            2 * (5 * 12 * 10 + 5 * 4 * 12),
        ),
    ],
)
def test_hand_counts(layer, shape, expected):
    x = torch.randn(shape)
    result = cost(layer, x)
    assert result.macs.item() == pytest.approx(expected, rel=1e-6)
    (row,) = result.rows
    assert (row.name, row.layer, row.strides) == ("", type(layer).__name__, {})
    assert (row.input_shape, row.output_shape) == (shape, tuple(layer(x).shape))


def test_rows_of_a_network_in_the_order_of_the_calls():
    model = nn.Sequential(
        SeparableFlexConv1d(2, 4, 9, init_size=3),
        exact1d(2.0),
        nn.BatchNorm1d(4),
        nn.Conv1d(4, 8, 1, bias=False),
        nn.Flatten(),
        nn.Linear(80, 3),
    )
    result = cost(model, torch.zeros(1, 2, 20))
    assert [(row.name, int(row.macs)) for row in result.rows] == [
        ("0.depthwise", 2 * 20 * 3),
        ("0.pointwise", 4 * 20 * 2),
        ("1", 4 * 10 * 20),
        ("3", 8 * 10 * 4),
        ("5", 240),
    ]
    assert result.macs.item() == sum(row.macs.item() for row in result.rows)
    assert [len(row.strides) for row in result.rows] == [0, 0, 0, 1, 1]
    assert result.rows[3].strides == {(model[1], 1): (20,)}


def test_a_plain_network_costs_what_torch_counts():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 5, groups=4, padding=2),
        nn.ConvTranspose2d(8, 4, 3, stride=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    x = torch.randn(2, 3, 21, 18)
    model(x)
    assert cost(model, x).macs.item() == counted_by_torch(model, x)


def test_resnet18_costs_what_torch_counts():
    models = pytest.importorskip("torchvision.models", reason="torchvision is an extra")
    model, x = models.resnet18().eval(), torch.randn(1, 3, 64, 64)
    assert cost(model, x).macs.item() == pytest.approx(counted_by_torch(model, x), rel=1e-6)


def test_all_arguments_may_be_given():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv1d(1, 1, 1)

        def forward(self, first, second, *, flip=False):
            return self.convolution(input=first + second.flip(-1) * flip)

    assert cost(Two(), (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5))).macs.item() == 5


def test_the_gradient_is_that_of_the_relaxed_size_along_a_path():
    """Exact rule: doubling a stride halves the axis for all that follows."""
    pools = exact1d(2.0), exact1d(1.5)
    model = nn.Sequential(pools[0], nn.Conv1d(1, 2, 3), pools[1], nn.Conv1d(2, 1, 3))
    x = torch.zeros(1, 1, 64)
    first, second = (sensitivities(model, x, pool) for pool in pools)
    assert first == {"0": [-1.0], "1": [-1.0], "2": [-1.0], "3": [-1.0]}
    assert second == {"0": None, "1": None, "2": [-1.0], "3": [-1.0]}


def test_a_pool_pays_for_one_axis_after_the_other():
    pool = DiffStride2d((2.0, 4.0), size_rule="exact")
    rows, columns = 8 * 24 * 16, 8 * 6 * 24
    slopes = sensitivity(cost(pool, torch.zeros(1, 1, 16, 24)).macs, pool)
    assert slopes == pytest.approx([-1.0, -columns / (rows + columns)])


@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_the_gradient_is_a_finite_difference_of_the_relaxed_cost(rule):
    pools = [DiffStride2d(s, size_rule=rule, dtype=torch.float64) for s in ((1.4, 2.0), (1.7, 1.3))]
    flex = FlexConv2d(1, 2, 33, init_size=9)
    model = nn.Sequential(pools[0], flex, pools[1], nn.Conv2d(2, 2, 3))
    x = torch.zeros(1, 1, 40, 36)
    rows = cost(model, x).rows
    macs = [row.macs.item() for row in rows]
    maps = [row.input_shape[2:] for row in rows]
    free = [pools[0].log2_stride, pools[1].log2_stride, flex.window.log_sigma]
    gradients = torch.autograd.grad(rows[1].macs + rows[3].macs, free)

    def relaxed():
        first, second = pools[0].relaxed_size(maps[0]), pools[1].relaxed_size(maps[2])
        return first.prod(), second.prod(), flex.window.relaxed_size().double().prod()

    def total(now):
        first, second, taps = (a / b for a, b in zip(now, start, strict=True))
        return (macs[1] * first * taps + macs[3] * first * second).item()

    start = relaxed()
    for parameter, gradient in zip(free, gradients, strict=True):
        step = 1e-2 if parameter.dtype == torch.float32 else 1e-5
        for axis in range(2):
            with torch.no_grad():
                parameter[axis] += step
                ahead = total(relaxed())
                parameter[axis] -= 2 * step
                behind = total(relaxed())
                parameter[axis] += step
            assert gradient[axis].item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-3)


def test_the_gradient_foretells_the_cost_of_a_larger_stride():
    def network(stride):
        return nn.Sequential(exact1d(stride), nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Conv1d(4, 8, 3))

    x = torch.zeros(1, 1, 1000)
    model = network(2.0)
    macs = cost(model, x).macs
    (slope,) = torch.autograd.grad(macs, model[0].log2_stride)
    octaves = 0.1
    dearer, cheaper = (cost(network(2.0 * 2**d), x).macs.item() for d in (-octaves, octaves))
    assert (cheaper - dearer) / (2 * octaves) == pytest.approx(slope.item(), rel=0.01)


class Branches(nn.Module):
    """Two branches with a stride each, joined in a way that ``join`` names."""

    def __init__(self, join, strides=(2.0, 2.0)):
        super().__init__()
        self.a, self.b = (exact1d(s) for s in strides)
        self.stem, self.conv_a, self.conv_b = (nn.Conv1d(2, 2, 1) for _ in range(3))
        self.join = join
        self.last = nn.Conv1d(4 if join in ("cat", "write") else 2, 2, 1)
        self.head = nn.Linear(2, 3)

    def forward(self, input):
        stem = self.stem(input)
        a, b = self.conv_a(self.a(stem)), self.conv_b(self.b(stem))
        if self.join == "cat":
            joined = torch.cat([a, b], dim=1)
        elif self.join == "write":
            joined = torch.empty(len(a), 4, a.shape[2])
            joined[:, :2], joined[:, 2:] = a, b
        elif self.join == "in place":
            joined = a
            joined += b
        else:
            joined = a + b
        return self.head(self.last(joined.relu_()).mean(2))


@pytest.mark.parametrize("join", ["cat", "add", "write", "in place"])
def test_parallel_branches_feel_their_own_stride_only(join):
    model, x = Branches(join), torch.zeros(1, 2, 16)
    assert sensitivities(model, x, model.a) == {
        "stem": None,
        "a": [-1.0],
        "conv_a": [-1.0],
        "b": None,
        "conv_b": None,
        "last": [-1.0],
        "head": None,
    }
    own = sensitivities(model, x, model.b)
    assert (own["conv_a"], own["conv_b"], own["last"]) == (None, [-1.0], [-1.0])


def test_one_stride_on_both_branches_counts_once():
    block = DiffStrideResidual1d(2, 4, exact1d(2.0))
    model = nn.Sequential(block, nn.Conv1d(4, 4, 3))
    found = sensitivities(model, torch.zeros(1, 2, 16), block.pool)
    assert found["0.conv1"] is None
    assert found["0.pool"] == found["0.conv2"] == found["0.shortcut"] == found["1"] == [-1.0]


def test_strides_are_followed_out_of_nested_containers():
    inner = nn.Sequential(nn.Sequential(exact1d(2.0), nn.ReLU()), nn.BatchNorm1d(1))
    model = nn.Sequential(nn.Sequential(inner), nn.Conv1d(1, 1, 1))
    assert sensitivities(model, torch.zeros(1, 1, 8), inner[0][0])["1"] == [-1.0]


def test_a_stride_that_is_passed_twice_counts_twice():
    pool = exact1d(2.0)
    model = nn.Sequential(pool, pool, nn.Conv1d(1, 1, 1))
    rows = cost(model, torch.zeros(1, 1, 64)).rows
    assert [(row.name, row.macs.item()) for row in rows] == [("0", 2048), ("0", 512), ("2", 16)]
    assert [sensitivity(row.macs, pool) for row in rows] == [[-1.0], [-2.0], [-2.0]]
    assert rows[2].strides == {(pool, 1): (64,), (pool, 2): (32,)}


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return 2 * value

    @staticmethod
    def backward(ctx, grad_output):
        return 2 * grad_output


class Custom(nn.Module):
    """An operation that torch's function modes do not see."""

    def forward(self, input):
        return Doubled.apply(input)


def test_strides_are_followed_through_custom_functions():
    model = nn.Sequential(exact1d(2.0), Custom(), nn.Conv1d(1, 1, 1))
    assert sensitivities(model, torch.zeros(1, 1, 8), model[0])["2"] == [-1.0]


class Adaptive(nn.Module):
    def __init__(self, function, size):
        super().__init__()
        self.function, self.size = function, size

    def forward(self, input):
        return self.function(input, self.size)


@pytest.mark.parametrize(
    ("pool", "follows"),
    [
        (nn.AdaptiveAvgPool1d(4), False),
        (nn.AdaptiveMaxPool1d(4), False),
        (Adaptive(F.adaptive_avg_pool1d, 4), False),
        (Adaptive(F.adaptive_max_pool1d, 4), False),
        (SpectralPool1d(output_size=4), False),
        (SpectralPool1d(2.0), True),
        (nn.AvgPool1d(2), True),
        (nn.Upsample(scale_factor=2), True),
    ],
)
def test_after_a_fixed_output_size_no_stride_is_felt(pool, follows):
    model = nn.Sequential(exact1d(2.0), pool, nn.Conv1d(1, 1, 1), nn.Flatten(0), nn.LazyLinear(1))
    model(torch.zeros(1, 1, 32))
    found = sensitivities(model, torch.zeros(1, 1, 32), model[0])
    assert found["2"] == ([-1.0] if follows else None)
    assert found["4"] is None


def test_an_adaptive_pool_that_keeps_an_axis_keeps_its_stride():
    model = nn.Sequential(
        DiffStride2d(2.0, size_rule="exact"), nn.AdaptiveAvgPool2d((None, 1)), nn.Conv2d(1, 1, 1)
    )
    found = sensitivities(model, torch.zeros(1, 1, 16, 16), model[0])
    assert found["2"][0] == -1.0


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_as_it_was(training):
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), exact1d(2.0), nn.Dropout(), FlexConv1d(2, 2, 9)
    ).train(training)
    model[3].train(not training)
    x = torch.randn(2, 1, 16, requires_grad=True)
    model(x).sum().backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    cost(model, x)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    now = [parameter.grad for parameter in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(now, gradients, strict=True))
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_model_is_left_as_it_was_after_an_error():
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        cost(model, torch.zeros(1, 1, 16))
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_nothing_to_count_is_an_error():
    with pytest.raises(ValueError, match="ReLU called no layer that is counted"):
        cost(nn.ReLU(), torch.zeros(1))
