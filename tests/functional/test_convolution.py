"""The fast convolutions against their naive twin, torch's own, and the laws they obey."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sizeless.functional import convolve, naive, plan

METHODS = ["direct", "fft"]
MODES = ["zeros", "circular", "reflect", "replicate"]
TORCH = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Case(NamedTuple):
    input: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any]

    def __repr__(self) -> str:
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.input}*{self.weight} {options}"


def case(input: tuple[int, ...], weight: tuple[int, ...], **options: Any) -> Case:
    return Case(input, weight, options)


TABLE = [
    case((2, 3, 9), (4, 3, 3)),
    case((2, 3, 9), (4, 3, 4), padding="same"),
    case((2, 3, 9), (4, 3, 4), padding="same", stride=2),
    case((2, 3, 10), (4, 3, 5), padding=2, stride=3),
    case((2, 3, 10), (4, 3, 3), padding="valid", dilation=3),
    case((1, 1, 161), (1, 1, 161), padding="same"),
    case((1, 2, 161), (2, 1, 80), padding="same", groups=2, stride=2),
    case((2, 2, 7), (2, 2, 21), padding="same"),
    case((2, 2, 7), (2, 2, 21), padding=10),
    case((2, 2, 3), (2, 2, 1), padding=5),
    case((2, 2, 3), (2, 2, 2), padding=9, stride=4),
    case((2, 4, 11), (4, 1, 5), padding="same", groups=4),
    case((2, 4, 11), (8, 1, 5), padding="same", groups=4, dilation=2),
    case((2, 4, 11), (6, 2, 5), padding="same", groups=2),
    case((2, 3, 9), (2, 3, 4), causal=True),
    case((2, 3, 9), (2, 3, 4), causal=True, stride=2, dilation=2, padding="same"),
    case((2, 3, 5), (2, 3, 20), causal=True),
    case((2, 3, 5), (2, 3, 6), causal=True, padding_mode="reflect"),
    case((2, 3, 5), (2, 3, 9), causal=True, padding_mode="circular"),
    case((2, 2, 1), (3, 2, 5), padding="same"),
    case((2, 2, 1), (3, 2, 1)),
    case((1, 2, 7, 6), (3, 2, 5, 3), padding="same"),
    case((1, 2, 7, 6), (3, 2, 2, 4), padding="same", stride=(2, 1)),
    case((1, 2, 9, 17), (2, 1, 5, 9), padding=(2, 4), groups=2),
    case((1, 2, 5, 4), (2, 1, 9, 11), padding="same", groups=2),
    case((1, 2, 7, 6), (2, 2, 3, 2), padding=(0, 3), dilation=(2, 3), stride=(1, 2)),
    case((1, 2, 1, 6), (2, 2, 3, 3), padding="same"),
    case((1, 2, 6, 1), (2, 2, 3, 1), padding="same"),
    case((1, 2, 1, 1), (2, 2, 1, 1)),
    case((1, 2, 1, 1), (2, 2, 3, 3), padding="same"),
    case((1, 2, 4, 3, 5), (2, 2, 3, 2, 3), padding="same"),
    case((1, 2, 4, 3, 5), (2, 1, 3, 3, 1), padding=(1, 2, 0), stride=(1, 2, 2), groups=2),
    case((1, 1, 2, 1, 3), (2, 1, 5, 1, 5), padding="same"),
]
BEYOND = [
    option
    for mode in MODES
    for option in (
        case((1, 2, 4), (2, 2, 4), padding="same", padding_mode=mode),
        case((1, 2, 3), (2, 2, 12), padding="same", padding_mode=mode, stride=2),
        case((1, 1, 1), (1, 1, 7), padding="same", padding_mode=mode),
        case((1, 2, 5, 3), (2, 1, 3, 9), padding=(1, 7), padding_mode=mode, groups=2),
        case((1, 1, 2, 1, 4), (1, 1, 3, 3, 3), padding=(3, 1, 2), padding_mode=mode),
    )
]


def operands(
    case: Case, dtype: torch.dtype = torch.float64, bias: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    input = torch.randn(case.input, dtype=dtype, requires_grad=True)
    weight = torch.randn(case.weight, dtype=dtype, requires_grad=True)
    return input, weight, torch.randn(case.weight[0], dtype=dtype, requires_grad=bias)


def outputs_and_gradients(
    function: Callable[..., Tensor], tensors: tuple[Tensor | None, ...], options: dict[str, Any]
) -> list[Tensor]:
    output = function(*tensors, **options)
    # A fixed, uneven weighting: every output counts, no two alike.
    ramp = torch.linspace(-1, 2, max(output.numel(), 1), dtype=output.dtype)
    loss = (output * ramp[: output.numel()].reshape(output.shape)).sum()
    leaves = [tensor for tensor in tensors if tensor is not None]
    return [output, *torch.autograd.grad(loss, leaves)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs.shape
        if theirs.numel():
            scale = max(theirs.abs().max().item(), 1e-3)
            assert (mine - theirs).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", TABLE + BEYOND, ids=repr)
def test_equals_the_naive_sum_with_all_gradients(case: Case, method: str) -> None:
    tensors = operands(case)
    expected = outputs_and_gradients(naive.convolve, tensors, case.options)
    actual = outputs_and_gradients(convolve, tensors, {**case.options, "method": method})
    assert_close(actual, expected, 1e-10)
    singles = tuple(t.detach().float().requires_grad_() for t in tensors if t is not None)
    actual = outputs_and_gradients(convolve, singles, {**case.options, "method": method})
    assert all(tensor.dtype == torch.float32 for tensor in actual)
    assert_close(actual, [tensor.float() for tensor in expected], 1e-4)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    ndim = draw(st.sampled_from([1, 1, 2, 2, 3]))
    largest = {1: 14, 2: 7, 3: 4}[ndim]

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    size, kernel = axes(1, largest), axes(1, largest)
    options: dict[str, Any] = {"stride": axes(1, 3), "dilation": axes(1, 2)}
    options["padding_mode"] = draw(st.sampled_from(MODES))
    reach = [d * (k - 1) for d, k in zip(options["dilation"], kernel, strict=True)]
    if ndim == 1 and draw(st.booleans()):
        options["causal"] = True
    elif draw(st.booleans()):
        options["padding"] = "same"
    else:
        extra = axes(0, 3)
        options["padding"] = tuple(
            max(0, -(-(r + 1 - n) // 2)) + e for r, n, e in zip(reach, size, extra, strict=True)
        )
    groups = draw(st.integers(1, 3))
    group_inputs, group_outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    options["groups"] = groups
    batch = draw(st.integers(0, 2))
    weight = (groups * group_outputs, group_inputs, *kernel)
    return Case((batch, groups * group_inputs, *size), weight, options)


@settings(max_examples=60)
@given(cases())
def test_any_geometry_equals_the_naive_sum(case: Case) -> None:
    tensors = operands(case)
    expected = outputs_and_gradients(naive.convolve, tensors, case.options)
    for method in METHODS:
        actual = outputs_and_gradients(convolve, tensors, {**case.options, "method": method})
        assert_close(actual, expected, 1e-10)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("method", [*METHODS, "naive"])
@pytest.mark.parametrize("case", [c for c in TABLE if "causal" not in c.options], ids=repr)
def test_equals_torch(case: Case, method: str) -> None:
    tensors, options = operands(case), dict(case.options)
    if method == "naive":
        actual = naive.convolve(*tensors, **options)
    else:
        actual = convolve(*tensors, **options, method=method)
    steps = (slice(None),)
    if options.get("padding") == "same" and "stride" in options:
        # What torch refuses: the outputs without a stride, every stride-th of them.
        stride = options.pop("stride")
        steps = [slice(None, None, s) for s in (stride if isinstance(stride, tuple) else (stride,))]
    expected = TORCH[len(case.input) - 2](*tensors, **options)[(..., *steps)]
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "case",
    [
        case((1, 2, 5), (2, 1, 4), padding="same", groups=2, stride=2),
        case((1, 2, 2, 3), (1, 2, 2, 2), padding=2, dilation=(1, 2), padding_mode="reflect"),
        case((1, 2, 1, 2, 2), (2, 1, 1, 3, 2), padding="same", groups=2, padding_mode="circular"),
        case((1, 1, 4), (2, 1, 6), causal=True),
    ],
    ids=repr,
)
def test_first_and_second_derivatives(case: Case, method: str) -> None:
    def function(*tensors: Tensor) -> Tensor:
        return convolve(*tensors, **case.options, method=method)

    assert gradcheck(function, operands(case))
    if method == "fft":
        assert gradgradcheck(function, operands(case), fast_mode=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch_has_empty_outputs_and_zero_weight_gradients(mode: str, method: str) -> None:
    empty = case((0, 3, 6, 5), (2, 3, 3, 9), padding="same", stride=2, padding_mode=mode)
    tensors = operands(empty)
    output, input_gradient, *gradients = outputs_and_gradients(
        convolve, tensors, {**empty.options, "method": method}
    )
    assert output.shape == (0, 2, 3, 3)
    assert input_gradient.shape == (0, 3, 6, 5)
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("method", METHODS)
def test_views_are_read_right(method: str) -> None:
    base, kernel = torch.randn(7, 12, 4, 2).double(), torch.randn(3, 5, 4, 3).double()
    input, weight = base.permute(3, 2, 1, 0)[:, :, ::2], kernel.permute(0, 2, 3, 1).flip(-1)
    assert not input.is_contiguous()
    actual = convolve(input, weight, padding="same", method=method)
    expected = naive.convolve(input.contiguous(), weight.contiguous(), padding="same")
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ndim", [2, 3])
def test_channels_last_is_kept(ndim: int, mode: str, method: str) -> None:
    layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
    input = torch.randn(2, 4, *(5, 6, 3)[:ndim], dtype=torch.float64)
    weight = torch.randn(4, 1, *(9, 3, 3)[:ndim], dtype=torch.float64)
    options: dict[str, Any] = {"padding": "same", "groups": 4, "padding_mode": mode}
    output = convolve(input.contiguous(memory_format=layout), weight, **options, method=method)
    assert output.is_contiguous(memory_format=layout)
    torch.testing.assert_close(output, convolve(input, weight, **options, method="direct"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_returns_what_torch_returns(input_dtype: torch.dtype, method: str) -> None:
    exact = torch.randn(2, 3, 33, dtype=input_dtype), torch.randn(4, 3, 9, dtype=input_dtype)
    bias = torch.randn(4, dtype=input_dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = F.conv1d(*exact, bias, padding=4)
        mine = convolve(*exact, bias, padding=4, method=method)
    assert mine.dtype == theirs.dtype
    expected = naive.convolve(*(t.double() for t in (*exact, bias)), padding=4)
    tolerance = 1e-10 if input_dtype == torch.float64 else 2e-2
    assert_close([mine.double()], [expected], tolerance)


def test_autocast_does_not_round_the_fourier_path() -> None:
    input, weight = torch.randn(2, 3, 33), torch.randn(4, 3, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = convolve(input, weight, method="fft")
    expected = convolve(input, weight, method="direct").bfloat16()
    # One rounding, at the end: all but a few values that lie between two bfloat16 agree exactly.
    assert (actual == expected).float().mean() > 0.98


def test_autocast_does_not_round_what_goes_through_transforms_alone() -> None:
    tensors = torch.randn(2, 8, 28, 28), torch.randn(8, 8, 21, 21), torch.randn(8)
    tensors = [part.requires_grad_() for part in tensors]
    assert {step.method for step in plan(*tensors[:2], padding="same")} == {"fft"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = convolve(*tensors, padding="same")
    expected = convolve(*tensors, padding="same")
    assert torch.equal(actual, expected.bfloat16())
    grad = torch.randn_like(actual)
    for mine, theirs in zip(
        torch.autograd.grad(actual, tensors, grad),
        torch.autograd.grad(expected, tensors, grad.float()),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method: str, dtype: torch.dtype) -> None:
    tensors = operands(case((2, 4, 9, 8), (4, 1, 5, 5)), dtype)
    options: dict[str, Any] = {"padding": "same", "groups": 4}
    actual = outputs_and_gradients(convolve, tensors, {**options, "method": method})
    assert all(tensor.dtype == dtype for tensor in actual)
    doubles = tuple(t.detach().double().requires_grad_() for t in tensors if t is not None)
    expected = outputs_and_gradients(naive.convolve, doubles, options)
    assert_close([tensor.double() for tensor in actual], expected, 3e-2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
def test_function_transforms(mode: str, method: str) -> None:
    options: dict[str, Any] = {
        "padding": 4,
        "dilation": 2,
        "stride": 2,
        "padding_mode": mode,
        "method": method,
    }
    inputs = torch.randn(3, 2, 2, 4, 5).double()
    weights = torch.randn(3, 3, 2, 2, 3).double()

    def loss(weight: Tensor, input: Tensor) -> Tensor:
        return convolve(input, weight, **options).square().sum()

    outputs = torch.func.vmap(lambda x, w: convolve(x, w, **options))(inputs, weights)
    gradients = torch.func.vmap(torch.func.grad(loss))(weights, inputs)
    for input, weight, output, gradient in zip(inputs, weights, outputs, gradients, strict=True):
        torch.testing.assert_close(output, convolve(input, weight, **options))
        torch.testing.assert_close(gradient, torch.func.grad(loss)(weight, input))


@pytest.mark.parametrize("method", METHODS)
def test_traces_as_one_graph(method: str) -> None:
    def function(input: Tensor, weight: Tensor) -> Tensor:
        return convolve(
            input, weight, padding="same", padding_mode="circular", stride=2, method=method
        )

    input, weight = torch.randn(1, 2, 6, 7), torch.randn(2, 2, 3, 15)
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(input, weight), function(input, weight))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_adjoint_is_the_transposed_convolution(ndim: int, method: str) -> None:
    input = torch.randn(2, 4, *(9, 7, 5)[:ndim], dtype=torch.float64)
    weight = torch.randn(6, 2, *(3, 5, 3)[:ndim], dtype=torch.float64)
    output = convolve(input, weight, padding=1, groups=2, method=method)
    probe = torch.randn_like(output)
    back = TRANSPOSED[ndim](probe, weight, padding=1, groups=2)
    torch.testing.assert_close((output * probe).sum(), (input * back).sum())


@pytest.mark.parametrize("method", METHODS)
def test_linear_in_input_and_weight(method: str) -> None:
    x, y = torch.randn(2, 1, 3, 11, dtype=torch.float64)
    v, w = torch.randn(2, 2, 3, 5, dtype=torch.float64)

    def run(input: Tensor, weight: Tensor) -> Tensor:
        return convolve(input, weight, padding="same", method=method)

    torch.testing.assert_close(run(2 * x - y, v), 2 * run(x, v) - run(y, v))
    torch.testing.assert_close(run(x, 2 * v - w), 2 * run(x, v) - run(x, w))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_causal_outputs_see_no_later_input(stride: int, method: str) -> None:
    input = torch.randn(1, 1, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, 13, dtype=torch.float64)
    output = convolve(input, weight, stride=stride, causal=True, method=method).flatten()
    assert len(output) == math.ceil(10 / stride)
    for p, value in enumerate(output):
        (gradient,) = torch.autograd.grad(value, input, retain_graph=True)
        now = p * stride
        # Tap k - 1 meets the present sample, tap k - 2 the one before, and so on.
        reversed_taps = weight.flatten().flip(0)[: now + 1].flip(0)
        torch.testing.assert_close(gradient.flatten()[: now + 1], reversed_taps)
        assert not (gradient.flatten()[now + 1 :].abs() > 1e-12).any()


@pytest.mark.parametrize("size", [30, 31])
def test_circular_padding_commutes_with_shifts(size: int) -> None:
    input, weight = torch.randn(1, 2, size, size), torch.randn(2, 2, 5, 41)
    options: dict[str, Any] = {"padding": "same", "padding_mode": "circular", "method": "fft"}
    shifted = convolve(input.roll((3, -7), (2, 3)), weight, **options)
    expected = convolve(input, weight, **options).roll((3, -7), (2, 3))
    assert_close([shifted], [expected], 1e-5)
