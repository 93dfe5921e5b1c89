"""Bytes and latency of a network: hand counts, and finite differences of the relaxed quantities."""

import math

import pytest
import torch
from torch import nn

from sizeless import (
    DiffStride1d,
    DiffStride2d,
    FlexConv1d,
    FlexConv2d,
    Machine,
    NIFFConv1d,
    NIFFConv2d,
    SpectralPool1d,
    SpectralPool2d,
    cost,
)

LN2 = math.log(2)


def exact1d(stride):
    return DiffStride1d(stride, size_rule="exact")


@pytest.mark.parametrize(
    ("layer", "shape", "elements"),
    [
        (nn.Conv1d(3, 4, 5), (2, 3, 20), 2 * 3 * 20 + (4 * 3 * 5 + 4) + 2 * 4 * 16),
        (nn.Conv2d(4, 6, 3, groups=2, bias=False), (1, 4, 9, 9), 4 * 81 + 6 * 2 * 9 + 6 * 49),
        (nn.ConvTranspose1d(4, 6, 3, stride=2), (1, 4, 10), 4 * 10 + (4 * 6 * 3 + 6) + 6 * 21),
        (nn.Linear(7, 5), (3, 7), 3 * 7 + (35 + 5) + 3 * 5),
        (FlexConv1d(2, 4, 17, init_size=5), (3, 2, 30), 180 + (4 * 2 * 5 + 4) + 360),
        (FlexConv2d(4, 6, 9, groups=2, init_size=3), (1, 4, 8, 8), 256 + (6 * 2 * 9 + 6) + 384),
        (NIFFConv2d(2, 4), (1, 2, 8, 16), 2 * 128 + 8 * 2 * 8 * 9 + 4 * 128),
        (NIFFConv1d(2, 2, groups=2, boundary="zeros"), (1, 2, 9), 18 + 2 * 9 + 18),
        (SpectralPool1d(2.0), (2, 3, 9), 2 * 3 * 9 + 5 * 9 + 2 * 3 * 5),
        (SpectralPool2d(output_size=4), (1, 3, 8, 6), 3 * 48 + (4 * 8 + 4 * 6) + 3 * 16),
        (exact1d(2.0), (2, 3, 32), 2 * 3 * 32 + 32 * 16 + 2 * 3 * 16),
    ],
)
def test_hand_counts(layer, shape, elements):
    result = cost(layer, torch.randn(shape))
    assert result.bytes.item() == 4 * elements
    assert result.bytes.shape == result.rows[0].bytes.shape == ()


def test_elements_count_with_their_own_width():
    double = nn.Conv1d(1, 1, 3, dtype=torch.float64)
    assert cost(double, torch.zeros(1, 1, 10, dtype=torch.float64)).bytes == 8 * (10 + 4 + 8)
    half = nn.Conv1d(1, 1, 3, dtype=torch.bfloat16)
    assert cost(half, torch.zeros(1, 1, 10, dtype=torch.bfloat16)).bytes == 2 * (10 + 4 + 8)
    # A pool computes in float32 what is smaller.
    pooled = cost(exact1d(2.0), torch.zeros(1, 1, 8, dtype=torch.bfloat16))
    assert pooled.bytes == 2 * 8 + 4 * 8 * 4 + 2 * 4


def test_latency_is_the_slower_of_computing_and_moving():
    machine = Machine(macs_per_second=1000, bytes_per_second=100)
    small = cost(nn.Linear(2, 3), torch.zeros(1, 2), machine=machine)
    # 6 multiply-accumulates, (2 + 9 + 3) elements of 4 bytes.
    assert small.latency.item() == pytest.approx(4 * 14 / 100)
    wide = Machine(macs_per_second=1000, bytes_per_second=1e9)
    assert cost(nn.Linear(2, 3), torch.zeros(1, 2), machine=wide).latency.item() == (
        pytest.approx(6 / 1000)
    )
    both = cost(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), torch.zeros(1, 2), machine=machine)
    assert both.latency.item() == pytest.approx(sum(row.latency.item() for row in both.rows))


def test_a_latency_has_the_gradient_of_what_holds_it_up():
    model = nn.Sequential(exact1d(2.0), nn.Conv1d(1, 1, 3, bias=False))
    x = torch.zeros(1, 1, 64)
    for machine, name in ((Machine(1.0, 1e12), "macs"), (Machine(1e12, 1.0), "bytes")):
        row = cost(model, x, machine=machine).rows[1]
        expected = cost(model, x).rows[1]
        ours, theirs = (
            torch.autograd.grad(value, model[0].log2_stride)[0]
            for value in (row.latency, getattr(expected, name))
        )
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_of_bytes_by_hand():
    """Exact rule, per octave: maps behind a stride halve, what is before it and weights stay."""
    model = nn.Sequential(nn.Conv1d(1, 1, 1), exact1d(2.0), nn.Conv1d(1, 2, 3, padding=1))
    rows = cost(model, torch.zeros(1, 1, 64)).rows
    slopes = [
        torch.autograd.grad(row.bytes, model[1].log2_stride)[0].item() / LN2 for row in rows[1:]
    ]
    # Of the pool its matrix and its output; of the convolution its input and its output.
    assert slopes == pytest.approx([-4 * (64 * 32 + 32), -4 * (32 + 2 * 32)])
    assert not rows[0].bytes.requires_grad


def test_no_stride_is_felt_where_one_position_is_left():
    model = nn.Sequential(
        exact1d(2.0), nn.Conv1d(1, 3, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    assert not cost(model, torch.zeros(1, 1, 64)).rows[-1].bytes.requires_grad


@pytest.mark.parametrize("rule", ["paper", "exact"])
@pytest.mark.parametrize("quantity", ["bytes", "latency"])
def test_the_gradient_is_a_finite_difference_of_the_relaxed_quantity(rule, quantity):
    """The relaxed quantity: every map and kernel with its size before rounding, over that now."""
    pools = [DiffStride2d(s, size_rule=rule, dtype=torch.float64) for s in ((1.4, 2.0), (1.7, 1.3))]
    flex = FlexConv2d(1, 2, 33, init_size=9, bias=False)
    model = nn.Sequential(pools[0], flex, pools[1], nn.Conv2d(2, 2, 3, padding=1, bias=False))
    x = torch.zeros(1, 1, 40, 36)
    # The FlexConv computes for longer than it moves, the convolution moves for longer.
    machine = Machine(macs_per_second=6.0, bytes_per_second=1.0)
    rows = cost(model, x, machine=machine).rows
    macs = [row.macs.item() for row in rows]
    maps = [math.prod(row.input_shape[2:]) for row in rows]
    free = [pools[0].log2_stride, pools[1].log2_stride, flex.window.log_sigma]
    gradients = torch.autograd.grad(getattr(rows[1], quantity) + getattr(rows[3], quantity), free)

    def relaxed():
        first = pools[0].relaxed_size(rows[0].input_shape[2:])
        second = pools[1].relaxed_size(rows[2].input_shape[2:])
        return first.prod(), second.prod(), flex.window.relaxed_size().double().prod()

    def total():
        first, second, taps = (a / b for a, b in zip(relaxed(), start, strict=True))
        kernel = 2 * taps_now * taps
        moved = [
            4 * (maps[1] * first + kernel + 2 * maps[1] * first),
            4 * (2 * maps[3] * first * second + 36 + 2 * maps[3] * first * second),
        ]
        computed = [macs[1] * first * taps, macs[3] * first * second]
        if quantity == "bytes":
            return sum(moved).item()
        assert computed[0] / 6 > moved[0]
        assert computed[1] / 6 < moved[1]
        return (computed[0] / 6 + moved[1]).item()

    taps_now = math.prod(flex.size)
    start = relaxed()
    for parameter, gradient in zip(free, gradients, strict=True):
        step = 1e-2 if parameter.dtype == torch.float32 else 1e-5
        for axis in range(2):
            with torch.no_grad():
                parameter[axis] += step
                ahead = total()
                parameter[axis] -= 2 * step
                behind = total()
                parameter[axis] += step
            assert gradient[axis].item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-3)


def test_each_quantity_has_a_graph_of_its_own():
    model = nn.Sequential(exact1d(2.0), FlexConv1d(1, 1, 9, init_size=5))
    result = cost(model, torch.zeros(1, 1, 64))
    for value in (result.macs, result.bytes, result.latency):
        value.backward()


def test_a_machine_has_rates():
    machine = Machine.measure("cpu")
    assert machine.macs_per_second > 0
    assert machine.bytes_per_second > 0
    assert Machine.measure("cpu", torch.float64).macs_per_second > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "macs_per_second must be a finite number above 0, got 0"),
        ((1, math.inf), ValueError, "bytes_per_second must be a finite number above 0, got inf"),
        (("fast",), TypeError, "macs_per_second must be a number, got 'fast'"),
    ],
)
def test_a_machine_without_rates_is_an_error(arguments, error, message):
    with pytest.raises(error) as caught:
        Machine(*arguments)
    assert str(caught.value) == message


def test_a_machine_must_be_one():
    with pytest.raises(TypeError) as caught:
        cost(nn.Linear(1, 1), torch.zeros(1, 1), machine="cpu")
    assert str(caught.value) == "machine must be a sizeless.Machine or None, got 'cpu'"
    with pytest.raises(TypeError, match=r"dtype must be .* floating-point .*, got torch.int8"):
        Machine.measure(dtype=torch.int8)
