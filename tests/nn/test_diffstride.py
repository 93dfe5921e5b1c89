"""Learnable strides: sizes, what passes and what does not, and a gradient that never dies."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.func import functional_call

from sizeless import DiffStride1d, DiffStride2d, DiffStride3d

LAYERS = {1: DiffStride1d, 2: DiffStride2d, 3: DiffStride3d}
RULES = [
    {"size_rule": "paper", "smoothness": 1.0},
    {"size_rule": "paper", "smoothness": 2.5},
    {"size_rule": "paper"},
    {"size_rule": "exact", "transition": 0.05},
    {"size_rule": "exact"},
    {"size_rule": "exact", "transition": 1.0},
]

by_rule = pytest.mark.parametrize("rule", RULES, ids=str)
strides = st.floats(1.0, 30.0)
rules = st.sampled_from(RULES)


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def layer(ndim, stride, **options):
    return LAYERS[ndim](stride, dtype=torch.float64, **options)


def band(size, stride, size_rule, smoothness=4.0, transition=0.25):
    """Ends of the pass band and of the ramp, in cycles per map, by the words of the docstring."""
    if size_rule == "paper":
        stride = max(stride, size / (size - smoothness)) if size > smoothness else math.inf
    edge = size / (2 * min(stride, max(size / 2, 1.0)))
    if size_rule == "paper":
        return edge, edge + smoothness
    return min((1 - transition) * edge, edge - 1), edge


def weight(k, low, high):
    return 1.0 if k == 0 else min(max((high - k) / (high - low), 0.0), 1.0)


def stride_gradient(module, size, x=None):
    x = random(2, 3, *size).to(module.log2_stride.dtype) if x is None else x
    y = module(x)
    (gradient,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), module.log2_stride)
    return gradient


def assert_alive(pool, size, strides):
    x = torch.randn(1, 2, size)
    for stride in strides:
        with torch.no_grad():
            pool.log2_stride.fill_(math.log2(stride))
        gradient = stride_gradient(pool, (size,), x)
        assert gradient.isfinite().all()
        assert gradient.item() != 0, (size, stride)


@pytest.mark.parametrize(
    ("stride", "sizes"),
    [
        (1.5, {24: 24, 32: 30, 56: 46, 64: 52, 112: 84, 224: 158}),
        (
            2.0,
            {16: 16, 20: 18, 24: 20, 28: 22, 32: 24, 40: 28, 48: 32, 56: 36, 64: 40, 112: 64}
            | {224: 120},
        ),
        (3.0, {16: 14, 24: 16, 32: 20, 56: 28, 64: 30, 112: 46, 224: 84}),
        (4.0, {32: 16, 56: 22, 64: 24, 112: 36, 224: 64}),
    ],
)
def test_the_papers_table_of_sizes(stride, sizes):
    pool = DiffStride2d(stride)
    assert {size: pool.output_size(size)[0] for size in sizes} == sizes
    assert pool.output_size((32, 64)) == (pool.output_size(32)[0], pool.output_size(64)[0])
    assert pool(torch.zeros(1, 1, 64, 32)).shape[2:] == pool.output_size((64, 32))


@given(size=st.integers(5, 300), stride=st.fractions(1, 40, max_denominator=12))
def test_the_papers_rule_of_sizes(size, stride):
    stride = max(stride, Fraction(size, size - 4))
    band = math.ceil(4 + max(Fraction(size) / stride, 2) / 2)
    expected = min(size, 2 * band - size % 2)
    assert DiffStride1d(float(stride)).output_size(size) == (expected,)


@given(size=st.integers(2, 2000), stride=st.fractions(1, 40, max_denominator=12))
def test_the_exact_rule_of_sizes(size, stride):
    pool = DiffStride1d(float(stride), size_rule="exact")
    expected = math.ceil(size / stride) if 2 * stride <= size else 2
    assert pool.output_size(size) == (expected,)


@by_rule
def test_stride_1_keeps_the_size(rule):
    pool = DiffStride1d(1.0, **rule)
    for size in range(1, 41):
        assert pool.output_size(size) == (size,)
        assert pool(torch.ones(1, 1, size)).shape == (1, 1, size)


@given(stride=strides, size=st.integers(1, 40), rule=rules, k=st.integers(0, 20))
def test_a_cosine_comes_out_weighted_and_sampled_anew(stride, size, rule, k):
    """Below the ramp it is unchanged, above it is gone, and nothing else appears."""
    assume(2 * k <= size)
    pool = layer(1, stride, **rule)
    phase = 0.0 if 2 * k == size else 0.7
    there, here = (
        torch.cos(2 * math.pi * k * torch.arange(n).double() / n + phase)[None, None]
        for n in (size, *pool.output_size(size))
    )
    expected = here * weight(k, *band(size, pool.stride[0], **rule))
    assert torch.allclose(
        pool(there), expected, atol=1e-4 if rule["size_rule"] == "paper" else 1e-5
    )


@given(stride=strides, size=st.integers(1, 40), rule=rules)
def test_the_mean_or_the_sum_is_kept(stride, size, rule):
    x = random(2, 3, size)
    assert torch.allclose(layer(1, stride, **rule)(x).mean(2), x.mean(2))
    assert torch.allclose(layer(1, stride, amplitude="sum", **rule)(x).sum(2), x.sum(2))


@given(stride=st.tuples(strides, strides), size=st.tuples(*[st.integers(1, 24)] * 2), rule=rules)
def test_it_is_linear_and_acts_on_maps_one_by_one(stride, size, rule):
    pool, x, y = layer(2, stride, **rule), random(2, 3, *size), random(2, 3, *size)
    assert torch.allclose(pool(2 * x - 3 * y), 2 * pool(x) - 3 * pool(y))
    assert torch.allclose(pool(x)[1:, 2:], pool(x[1:, 2:]))


@given(
    stride=st.tuples(*[strides] * 3),
    size=st.tuples(*[st.integers(1, 9)] * 3),
    order=st.permutations(range(3)),
    rule=rules,
)
def test_axes_are_treated_alike(stride, size, order, rule):
    x = random(1, 2, *size)
    axes = (0, 1, *(2 + axis for axis in order))
    permuted = layer(3, [stride[axis] for axis in order], **rule)(x.permute(axes))
    assert torch.allclose(permuted, layer(3, stride, **rule)(x).permute(axes))


@given(stride=strides, size=st.integers(1, 40), rule=rules)
def test_both_directions_are_treated_alike(stride, size, rule):
    def flip(values):
        return values.roll(-1, 2).flip(2)

    pool, x = layer(1, stride, **rule), random(2, 2, size)
    assert torch.equal(flip(x)[..., 1:], x[..., 1:].flip(2))
    assert torch.allclose(pool(flip(x)), flip(pool(x)))


@given(
    stride=st.tuples(strides, strides),
    size=st.tuples(*[st.integers(1, 33)] * 2),
    smoothness=st.floats(1.0, 8.0),
)
def test_the_papers_rule_is_a_symmetric_mask_and_a_crop(stride, size, smoothness):
    pool = layer(2, stride, smoothness=smoothness)
    x = random(1, 2, *size)
    output_size = pool.output_size(size)
    spectrum, cropped = torch.fft.fft2(x), torch.zeros(1, 2, *output_size).to(torch.complex128)
    masks, kept = [], []
    for length, length_out, s in zip(size, output_size, pool.stride, strict=True):
        half = length_out // 2
        kept.append([k for k in range(-half, half + 1) if -length < 2 * k <= length])
        masks.append([weight(abs(k), *band(length, s, "paper", smoothness)) for k in kept[-1]])
    for k, m in zip(kept[0], masks[0], strict=True):
        for j, n in zip(kept[1], masks[1], strict=True):
            cropped[..., k, j] += m * n * spectrum[..., k, j]
    expected = torch.fft.ifft2(cropped) * math.prod(output_size) / math.prod(size)
    assert expected.imag.abs().max() < 1e-3
    assert torch.allclose(pool(x), expected.real, atol=1e-3)


@by_rule
def test_the_gradient_never_dies(rule):
    """On no map, at no stride: between frequencies, on one, at a limit or far beyond it."""
    pool = DiffStride1d(2.0, **rule)
    for size in range(2, 41):
        on_a_frequency = [size / n for n in range(1, size + 1, 1 if size % 2 else 5)]
        beyond = [0.5, 1.0, size / 2 + 0.01, 2.0 * size, 1e6, 2.0**120]
        assert_alive(pool, size, [*on_a_frequency, 1.37, *beyond])


@by_rule
@pytest.mark.parametrize("limits", [(1.0, 1.0), (1.5, 3.0), (9.0, 9.5)])
def test_the_gradient_does_not_die_at_limits(rule, limits):
    low, high = limits
    pool = DiffStride1d(low, min_stride=low, max_stride=high, **rule)
    for size in (2, 3, 8, 17, 32):
        assert_alive(pool, size, [0.5, 1.0, low, (low + high) / 2, high, 20.0, 1e6])


@by_rule
def test_every_axis_has_a_gradient(rule):
    for size in [(32, 32), (7, 20), (2, 3), (33, 8)]:
        for stride in (1.0, 2.0, (1.3, 4.0), 50.0):
            assert (stride_gradient(DiffStride2d(stride, **rule), size) != 0).all()


@by_rule
def test_the_gradient_beyond_a_limit_is_that_at_the_limit(rule):
    x, loss = random(1, 2, 12), random(1, 2, 12)

    def gradient(stride, **limits):
        pool = layer(1, 2.0, **rule, **limits)
        with torch.no_grad():
            pool.log2_stride.fill_(math.log2(stride))
        y = pool(x)
        return torch.autograd.grad((y * loss[..., : y.shape[2]]).sum(), pool.log2_stride)[0]

    assert torch.allclose(gradient(1e30), gradient(6.0))
    assert torch.allclose(gradient(1e30, max_stride=4.0), gradient(4.0))
    assert torch.allclose(gradient(1.2, min_stride=1.9), gradient(1.9))


@given(
    stride=st.tuples(*[st.floats(1.1, 12.0)] * 2),
    size=st.tuples(*[st.integers(4, 30)] * 2),
    rule=rules,
)
def test_the_gradient_is_that_of_finite_differences(stride, size, rule):
    for length, s in zip(size, stride, strict=True):
        ends = band(length, s, **rule)
        # Away from kinks: from the limits of the map, of the ramp, and of its least width.
        assume(all(abs(end - round(end)) > 1e-3 for end in ends))
        assume(abs(band(length, s, **rule)[1] - band(length, s * 1.001, **rule)[1]) > 1e-6)
        assume(abs(ends[1] - ends[0] - 1) > 1e-2 or rule["size_rule"] == "paper")
        assume(band(length, s, **rule)[0] != band(length, s / 1.001, **rule)[0])
    pool, x = layer(2, stride, **rule), random(1, 2, *size)
    y = pool(x)
    loss = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * loss).sum(), pool.log2_stride)
    step, differences = 1e-6, []
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        ahead, behind = (
            functional_call(pool, {"log2_stride": pool.log2_stride.detach() + s}, x)
            for s in (shift, -shift)
        )
        differences.append(((ahead - behind) * loss).sum() / (2 * step))
    assert torch.allclose(gradient, torch.stack(differences), rtol=1e-4, atol=1e-6)


def test_a_shared_stride_gets_the_sum_of_the_gradients():
    x, loss = random(2, 3, 20, 15), random(2, 3, 20, 15)
    gradients = []
    for shared in (False, True):
        pool = layer(2, 1.7, shared=shared)
        y = pool(x)
        (y * loss[..., : y.shape[2], : y.shape[3]]).sum().backward()
        gradients.append(pool.log2_stride.grad)
        assert pool.stride == pytest.approx((1.7, 1.7))
    assert pool.log2_stride.shape == (1,)
    assert torch.allclose(gradients[0].sum(), gradients[1])


@by_rule
def test_a_map_of_one_sample_passes_unchanged(rule):
    x = torch.randn(2, 3, 1, 1, requires_grad=True)
    pool = DiffStride2d(7.0, **rule)
    y = pool(x)
    assert torch.equal(y, x)
    y.sum().backward()
    assert x.grad.tolist() == torch.ones_like(x).tolist()
    assert pool.log2_stride.grad.tolist() == [0.0, 0.0]
    assert pool(torch.randn(1, 1, 1, 9)).shape[2] == 1


@by_rule
@pytest.mark.parametrize("training", [True, False])
def test_a_forward_never_writes_to_the_stride(rule, training):
    pool = DiffStride2d((1.0, 50.0), **rule).train(training)
    before, version = pool.log2_stride.clone(), pool.log2_stride._version
    for size in (5, 32, 2):
        pool(torch.randn(1, 1, size, size)).sum().backward()
    assert torch.equal(pool.log2_stride, before)
    assert pool.log2_stride._version == version


def test_project():
    pool = DiffStride2d(2.0, min_stride=1.5, max_stride=4.0)
    with torch.no_grad():
        pool.log2_stride.copy_(torch.tensor([0.1, 9.0]))
    assert pool.stride == (1.5, 4.0)
    pool.project_()
    assert pool.log2_stride.exp2().tolist() == pytest.approx([1.5, 4.0])
    assert pool.log2_stride.requires_grad
    free = DiffStride1d(2.0)
    with torch.no_grad():
        free.log2_stride.fill_(-3.0)
    free.project_()
    assert free.log2_stride.item() == 0.0


def test_relaxed_sizes_and_the_inverse_area():
    exact, paper = (layer(2, (2.0, 3.0), size_rule=rule) for rule in ("exact", "paper"))
    assert exact.relaxed_size((30, 31)).tolist() == pytest.approx([15.0, 31 / 3])
    assert paper.relaxed_size((30, 31)).tolist() == pytest.approx([15.0 + 8, 31 / 3 + 8])
    assert exact.inverse_area().item() == pytest.approx(1 / 6)
    assert layer(3, 2.0, shared=True).inverse_area().item() == pytest.approx(1 / 8)
    exact.inverse_area().log2().backward()
    assert exact.log2_stride.grad.tolist() == pytest.approx([-1.0, -1.0])


def test_reset_returns_to_the_initial_stride():
    pool = DiffStride2d((1.5, 3.0))
    with torch.no_grad():
        pool.log2_stride.add_(1.0)
    assert pool.stride == pytest.approx((3.0, 6.0))
    pool.reset_parameters()
    assert pool.stride == (1.5, 3.0)


def test_a_stride_that_is_not_a_number_is_refused():
    pool = DiffStride1d()
    with torch.no_grad():
        pool.log2_stride.fill_(math.nan)
    with pytest.raises(ValueError, match=r"the stride is \[nan\]: a size became NaN"):
        pool(torch.zeros(1, 1, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_stride_keeps_its_precision_in_half_precision(dtype):
    pool = DiffStride2d(1.7, size_rule="exact").to(dtype)
    assert pool.log2_stride.dtype == torch.float32
    x = torch.randn(1, 2, 12, 12)
    y = pool(x.to(dtype))
    assert y.dtype == dtype
    assert (y.float() - pool(x)).abs().max() < 3e-2
    y.square().sum().backward()
    assert (pool.log2_stride.grad != 0).all()


def test_the_printed_form():
    assert repr(DiffStride1d(2.5)) == (
        "DiffStride1d(stride=(2.5,), size_rule='paper', smoothness=4.0, shared=False)"
    )
    assert repr(DiffStride2d((2, 3), size_rule="exact")) == (
        "DiffStride2d(stride=(2.0, 3.0), size_rule='exact', transition=0.25, shared=False)"
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stride": 0.9}, ValueError, "stride must be at least 1 on every axis, got 0.9"),
        ({"stride": (2.0, 0.5)}, ValueError, "stride must be at least 1"),
        ({"stride": (2.0,) * 3}, ValueError, "stride must be a number or a tuple of 2"),
        ({"stride": "2"}, TypeError, "stride must be a number"),
        ({"stride": True}, TypeError, "stride must hold numbers only"),
        ({"stride": math.inf}, ValueError, "stride must be finite"),
        ({"stride": (2.0, 3.0), "shared": True}, ValueError, "same on every axis when shared"),
        ({"size_rule": "floor"}, ValueError, "size_rule must be 'paper' or 'exact'"),
        ({"amplitude": "paper"}, ValueError, "amplitude must be 'mean' or 'sum'"),
        ({"smoothness": 0.5}, ValueError, "smoothness must be at least 1 cycle per map"),
        ({"smoothness": math.nan}, ValueError, "smoothness must be a finite number"),
        ({"smoothness": 2, "size_rule": "exact"}, ValueError, "belongs to size_rule='paper'"),
        ({"transition": 0.25}, ValueError, "belongs to size_rule='exact'"),
        ({"transition": 0.0, "size_rule": "exact"}, ValueError, "transition must be above 0"),
        ({"transition": 1.5, "size_rule": "exact"}, ValueError, "transition must be above 0"),
        ({"min_stride": 0.5}, ValueError, "min_stride must be at least 1"),
        ({"max_stride": 0.5}, ValueError, "max_stride must be at least min_stride"),
        ({"min_stride": 3.0}, ValueError, "stride must lie between"),
        ({"max_stride": 1.5}, ValueError, "stride must lie between"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        DiffStride2d(**options)


def test_errors_of_maps():
    pool = DiffStride2d()
    with pytest.raises(ValueError, match="input must have 4 dimensions"):
        pool(torch.zeros(1, 1, 8))
    with pytest.raises(TypeError, match="floating-point"):
        pool(torch.zeros(1, 1, 8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="input_size must be an int or a tuple of 2"):
        pool.output_size((8, 8, 8))
