"""Spectral resizing against its naive twin and SciPy, and the laws it obeys."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from sizeless.functional import low_pass_window, naive, resample, resampling_matrix
from sizeless.functional.resampling import MATRIX_LIMIT

METHODS = ("matrix", "fft")
SIZES = (1, 2, 3, 4, 5, 6, 9)
PAIRS = list(itertools.product(SIZES, SIZES))
MAPS = [
    ((7,), (4,)),
    ((8,), (13,)),
    ((6, 5), (3, 4)),
    ((5, 8), (9, 8)),
    ((4, 1), (4, 3)),
    ((4, 5, 6), (2, 7, 3)),
    ((3, 1, 4), (1, 2, 4)),
]
WINDOWS = [None, (0.7, 1.6), (1.45, 4.0), (-0.35, 1.7)]

by_method = pytest.mark.parametrize("method", METHODS)


def random(*shape, dtype=torch.float64, requires_grad=False):
    return torch.randn(*shape, dtype=dtype, requires_grad=requires_grad)


def edges(window, ndim):
    """Cutoffs and transitions, a little different on each axis, that need a gradient."""
    shift = 0.1 * torch.arange(ndim, dtype=torch.float64)
    return [(end + shift).requires_grad_() for end in window]


def assert_same(actual, expected, tolerance=1e-12):
    assert actual.shape == expected.shape
    assert torch.allclose(actual, expected, rtol=tolerance, atol=tolerance)


@by_method
@pytest.mark.parametrize("amplitude", ["mean", "sum"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("size", "output_size"), MAPS)
def test_output_and_gradients_agree_with_the_naive_twin(
    size, output_size, window, amplitude, method
):
    x = random(2, 3, *size, requires_grad=True)
    wanted = [x] if window is None else [x, *edges(window, len(size))]
    cutoff, transition = wanted[1:] or (None, None)
    options = {"cutoff": cutoff, "transition": transition, "amplitude": amplitude}
    fast = resample(x, output_size, method=method, **options)
    slow = naive.resample(x, output_size, **options)
    assert_same(fast, slow)
    weights = random(*slow.shape)
    for mine, theirs in zip(
        *(
            torch.autograd.grad(y, wanted, weights, allow_unused=True, materialize_grads=True)
            for y in (fast, slow)
        ),
        strict=True,
    ):
        assert_same(mine, theirs)


@by_method
@pytest.mark.parametrize("window", [(0.0, 1.0), (1.0, 1.0), (2.0, 3.0), (3.0, 0.25)])
@pytest.mark.parametrize(("size", "output_size"), MAPS)
def test_edges_that_fall_on_frequencies(size, output_size, window, method):
    """The two agree in all but the slope at the edge itself, where there are two to choose from."""
    x = random(1, 2, *size)
    cutoff, transition = ([edge] * len(size) for edge in window)
    fast = resample(x, output_size, cutoff=cutoff, transition=transition, method=method)
    slow = naive.resample(x, output_size, cutoff=cutoff, transition=transition)
    assert_same(fast, slow)


@pytest.mark.parametrize(("size", "output_size"), PAIRS)
def test_every_pair_of_small_sizes(size, output_size):
    x = random(2, 2, size)
    slow = naive.resample(x, (output_size,))
    for method in METHODS:
        assert_same(resample(x, output_size, method=method), slow)
    matrix = resampling_matrix(size, output_size, like=x)
    assert matrix.shape == (output_size, size)
    assert_same(x @ matrix.T, slow)


@by_method
@pytest.mark.parametrize(("size", "output_size"), PAIRS)
def test_equals_scipy(size, output_size, method):
    signal = pytest.importorskip("scipy.signal", reason="SciPy comes with the test extra")
    x = random(3, 2, size)
    expected = torch.from_numpy(signal.resample(x.numpy(), output_size, axis=-1))
    assert_same(resample(x, output_size, method=method), expected)


@by_method
@pytest.mark.parametrize(("size", "larger"), [(s, t) for s, t in PAIRS if s <= t])
def test_enlarging_then_shrinking_is_the_identity(size, larger, method):
    x = random(1, 2, size, size)
    there = resample(x, (larger, larger + 1), method=method)
    assert_same(resample(there, size, method=method), x)


@by_method
@pytest.mark.parametrize("output_size", [(3, 10), (12, 5), (6, 7)])
def test_amplitude_keeps_the_mean_or_the_sum(output_size, method):
    x = random(2, 3, 6, 7)
    window = {"cutoff": 1.0, "transition": 1.5}
    for options in ({}, window):
        mean, total = (
            resample(x, output_size, amplitude=a, method=method, **options) for a in ("mean", "sum")
        )
        assert_same(mean.mean((2, 3)), x.mean((2, 3)))
        assert_same(total.sum((2, 3)), x.sum((2, 3)))
        assert_same(total, mean * (42 / math.prod(output_size)))


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    output_size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    window=st.none() | st.tuples(st.floats(0, 6), st.floats(0.1, 4)),
    method=st.sampled_from(METHODS),
)
def test_backward_is_the_adjoint(size, output_size, window, method):
    x = random(2, 2, *size, requires_grad=True)
    y = random(2, 2, *output_size)
    cutoff, transition = window or (None, None)
    out = resample(x, output_size, cutoff=cutoff, transition=transition, method=method)
    (back,) = torch.autograd.grad(out, x, y)
    assert_same((out * y).sum(), (x * back).sum())


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    output_size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    method=st.sampled_from(METHODS),
)
def test_axes_are_alike_and_independent(size, output_size, method):
    x = random(1, 2, *size)
    y = resample(x, output_size, method=method)
    swapped = resample(x.transpose(2, 3), output_size[::-1], method=method)
    assert_same(swapped.transpose(2, 3), y)
    rows = resample(x, (output_size[0], size[1]), method=method)
    assert_same(resample(rows, output_size, method=method), y)


def test_one_int_serves_every_axis_and_nothing_happens_at_the_same_size():
    x = random(1, 2, 4, 6)
    assert_same(resample(x, 3), resample(x, (3, 3)))
    assert resample(x, (4, 6)) is x


@pytest.mark.parametrize("form", [float, torch.tensor, lambda v: torch.tensor([v])])
def test_one_edge_serves_every_axis(form):
    x = random(1, 2, 8, 6)
    expected = resample(x, (5, 5), cutoff=(1.2, 1.2), transition=(1.5, 1.5))
    assert_same(resample(x, (5, 5), cutoff=form(1.2), transition=form(1.5)), expected, 1e-6)


def test_a_number_and_a_tensor_may_be_mixed():
    x, cutoff = random(1, 1, 9), torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    resample(x, 5, cutoff=cutoff, transition=2.0).square().sum().backward()
    assert cutoff.grad.item() != 0


def test_auto_takes_the_matrix_up_to_its_limit():
    for size in (MATRIX_LIMIT, MATRIX_LIMIT + 1):
        x = random(1, 1, size, dtype=torch.float32)
        method = "matrix" if size <= MATRIX_LIMIT else "fft"
        assert torch.equal(resample(x, 50), resample(x, 50, method=method))
    assert_same(resample(x, 50, method="matrix"), resample(x, 50, method="fft"), 1e-5)


def test_long_axes_keep_their_precision():
    """Angles are reduced to one turn before they are rounded."""
    x = torch.randn(1, 1, 1500)
    exact = resample(x.double(), 700, method="fft")
    for method in METHODS:
        assert (resample(x, 700, method=method) - exact).abs().max() < 2e-5


@by_method
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2), (torch.float32, 1e-5)]
)
def test_lower_precision(dtype, tolerance, method):
    x = torch.randn(2, 3, 12, 9).to(dtype)
    options = {"cutoff": 2.0, "transition": 1.7, "method": method}
    y = resample(x, (7, 5), **options)
    assert y.dtype == dtype
    exact = resample(x.double(), (7, 5), **options)
    assert (y.double() - exact).abs().max() < tolerance


def test_autocast_gives_the_dtype_of_a_convolution_whatever_the_method():
    x = torch.randn(1, 2, 16, 16)
    exact = resample(x.double(), 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for method in METHODS:
            y = resample(x, 9, method=method)
            assert y.dtype == torch.bfloat16
            assert (y.double() - exact).abs().max() < 3e-2
        assert resampling_matrix(16, 9).dtype == torch.float32
        assert resample(x.double(), 9).dtype == torch.float64


@by_method
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("changed", ["first", "last", "all"])
def test_memory_layout_is_kept(ndim, changed, method):
    layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
    size = (6, 5, 4)[:ndim]
    output_size = {"first": (3, *size[1:]), "last": (*size[:-1], 7), "all": (4,) * ndim}[changed]
    x = random(2, 3, *size)
    plain = resample(x, output_size, method=method)
    assert plain.is_contiguous()
    channels_last = resample(x.to(memory_format=layout), output_size, method=method)
    assert channels_last.is_contiguous(memory_format=layout)
    assert_same(channels_last, plain)


@by_method
def test_an_empty_batch(method):
    for shape in ((0, 3, 6, 5), (2, 0, 6, 5)):
        x = torch.zeros(shape, requires_grad=True)
        y = resample(x, (4, 9), cutoff=1.0, transition=1.0, method=method)
        assert y.shape == (*shape[:2], 4, 9)
        y.sum().backward()
        assert x.grad.shape == shape


@by_method
@pytest.mark.parametrize(("size", "output_size"), [((7,), (4,)), ((4,), (6,)), ((4, 3), (3, 5))])
def test_gradcheck(size, output_size, method):
    x = random(1, 2, *size, requires_grad=True)
    cutoff, transition = edges((0.55, 1.9), len(size))

    def function(x, cutoff, transition):
        return resample(x, output_size, cutoff=cutoff, transition=transition, method=method)

    assert gradcheck(function, (x, cutoff, transition))
    assert gradgradcheck(function, (x, cutoff, transition))


@by_method
def test_vmap(method):
    x, cutoffs = random(3, 1, 2, 9), torch.tensor([0.5, 1.2, 3.0], dtype=torch.float64)

    def function(x, cutoff):
        return resample(x, 5, cutoff=cutoff, transition=1.5, method=method)

    expected = torch.stack([function(*pair) for pair in zip(x, cutoffs, strict=True)])
    assert_same(torch.func.vmap(function)(x, cutoffs), expected)


def test_window_weights():
    like = torch.zeros(1)
    assert low_pass_window(5, 1.0, 2.0, like).tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]
    # The mean is never touched, whatever the cutoff.
    assert low_pass_window(3, -5.0, 1.0, like).tolist() == [1.0, 0.0, 0.0]
    assert low_pass_window(1, 0.0, 1.0, like).tolist() == [1.0]


def test_matrix_defaults():
    assert resampling_matrix(4, 3).dtype == torch.float32
    window = torch.ones(2, dtype=torch.float64)
    assert resampling_matrix(4, 3, window=window).dtype == torch.float64
    assert torch.allclose(resampling_matrix(5, 5), torch.eye(5), atol=1e-6)


MAP = torch.zeros(1, 1, 6, 6)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[1.0]], 3), {}, TypeError, "input must be a torch.Tensor"),
        ((torch.zeros(6, 6), 3), {}, ValueError, "input must have shape"),
        ((MAP.long(), 3), {}, TypeError, "floating-point"),
        ((torch.zeros(1, 1, 0), 3), {}, ValueError, "empty spatial axis"),
        ((MAP, 2.5), {}, TypeError, "output_size must be an int"),
        ((MAP, (3,)), {}, ValueError, "output_size must be an int or a tuple of 2"),
        ((MAP, 0), {}, ValueError, "output_size must be at least 1"),
        ((MAP, 3), {"amplitude": "max"}, ValueError, "amplitude must be 'mean' or 'sum'"),
        ((MAP, 3), {"method": "dct"}, ValueError, "method must be"),
        ((MAP, 3), {"cutoff": 1.0}, ValueError, "give both or neither"),
        ((MAP, 3), {"transition": 1.0}, ValueError, "give both or neither"),
        ((MAP, 3), {"cutoff": 1.0, "transition": 0.0}, ValueError, "transition must be above 0"),
        ((MAP, 3), {"cutoff": (1.0,) * 3, "transition": 1.0}, ValueError, "cutoff"),
        ((MAP, 3), {"cutoff": torch.ones(3), "transition": 1.0}, ValueError, "cutoff must hold"),
        ((MAP, 3), {"cutoff": [torch.ones(1)] * 2, "transition": 1.0}, TypeError, "numbers only"),
        ((MAP, 3), {"cutoff": math.nan, "transition": 1.0}, ValueError, "cutoff must be finite"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        resample(*arguments, **options)
