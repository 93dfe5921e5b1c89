"""Where one operation of torch and its own derivative take the place of three products."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sizeless.functional import convolve, direct, naive, plan, shortcuts, tuning
from sizeless.functional.geometry import Geometry, geometry_of
from sizeless.functional.one_layout import layout_of_few, one_layout

LONG, NARROW = (1, 8, 65536), (8, 8, 3)
"""A shape for which torch is faster with channels last."""


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    shortcuts.forget()
    yield
    shortcuts.forget()


def setting(
    shape: tuple[int, ...], weight: tuple[int, ...], groups: int = 1
) -> tuple[Tensor, Tensor, Geometry]:
    ndim = len(shape) - 2
    amounts = tuple((k // 2, k // 2) for k in weight[2:])
    geometry = geometry_of(shape, weight, (1,) * ndim, (1,) * ndim, amounts, groups)
    return torch.empty(shape, requires_grad=True), torch.empty(weight), geometry


@pytest.mark.parametrize(
    ("shape", "weight", "groups", "expected"),
    [
        ((4, 32, 56, 56), (32, 32, 7, 7), 1, "direct"),
        ((4, 8, 16, 16, 16), (8, 8, 3, 3, 3), 1, "channels_last"),
        ((4, 16, 16, 16, 16), (16, 4, 3, 3, 3), 4, "channels_last"),
        ((1, 8, 112, 112), (8, 8, 7, 7), 1, None),
        ((1, 8, 32, 32, 32), (8, 8, 3, 3, 3), 1, None),
        ((8, 64, 56, 56), (64, 1, 7, 7), 64, None),
        ((8, 64, 56, 56), (64, 1, 31, 31), 64, None),
        ((2, 16, 32, 32, 32), (16, 1, 3, 3, 3), 16, None),
    ],
)
def test_one_layout_serves_where_no_product_needs_its_own(
    shape: tuple[int, ...], weight: tuple[int, ...], groups: int, expected: str | None
) -> None:
    assert one_layout(*setting(shape, weight, groups), "auto") == expected
    if expected is not None:
        shown = plan(shape, weight, groups=groups, padding="same")
        assert {step.method for step in shown} == {expected}


def test_one_layout_is_for_gradients_outside_of_transformations_and_measurements(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("SIZELESS_CACHE", str(tmp_path))
    arguments = *setting((4, 8, 16, 16, 16), (8, 8, 3, 3, 3)), "auto"
    assert one_layout(*arguments) == "channels_last"
    with torch.no_grad():
        assert one_layout(*arguments) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert one_layout(*arguments) is None
    with tuning():
        assert one_layout(*arguments) is None
    seen = []
    input, *rest = arguments
    torch.func.vmap(lambda x: [seen.append(one_layout(x, *rest)), x][1])(input.detach()[None])
    assert seen == [None]


def test_few_taps_choose_their_layout_by_what_is_computed() -> None:
    input, _, geometry = setting(LONG, NARROW)
    assert layout_of_few(geometry, "cpu", input) == "channels_last"
    assert layout_of_few(geometry, "cpu", None) == "channels_last"
    assert layout_of_few(geometry, "cuda", None) == "direct"
    for other in (input.detach(), input.double(), input.bfloat16()):
        assert layout_of_few(geometry, "cpu", other) == "direct"
    with torch.no_grad():
        assert layout_of_few(geometry, "cpu", input) == "direct"
        uneven, _, geometry = setting((8, 20, 32, 32), (20, 20, 3, 3))
        assert layout_of_few(geometry, "cpu", uneven) == "channels_last"
    last = uneven.contiguous(memory_format=torch.channels_last)
    assert layout_of_few(geometry, "cpu", last) == "direct"


@pytest.mark.parametrize(
    ("shape", "weight"),
    [((4, 3, 112, 112), (64, 3, 3, 3)), ((4, 32, 56, 56), (32, 32, 3, 3)), (LONG, (1, 8, 3))],
)
def test_images_and_full_vectors_stay_as_they_are(
    shape: tuple[int, ...], weight: tuple[int, ...]
) -> None:
    input, _, geometry = setting(shape, weight)
    assert layout_of_few(geometry, "cpu", input) == "direct"


def test_the_plan_of_a_few_taps_shows_the_layout() -> None:
    assert {step.method for step in plan(LONG, NARROW, padding="same")} == {"channels_last"}
    alone = plan(torch.empty(LONG), torch.empty(NARROW), padding="same")
    assert {step.method for step in alone} == {"direct"}


CASES = [
    ((2, 4, 40), (6, 4, 3), {"padding": "same"}),
    ((2, 4, 41), (4, 4, 12), {"padding": "same", "dilation": 2}),
    ((2, 4, 9, 7), (6, 2, 3, 4), {"padding": "same", "groups": 2}),
    ((1, 3, 9, 8), (5, 3, 5, 3), {"padding": (2, 0), "stride": (2, 1)}),
    ((0, 4, 6, 5), (2, 4, 3, 3), {"padding": 1}),
    ((2, 4, 1, 8), (4, 1, 3, 3), {"padding": "same", "groups": 4}),
    ((2, 4, 5, 6, 4), (3, 4, 3, 2, 3), {"padding": "same"}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["direct", "channels_last"])
@pytest.mark.parametrize(("shape", "kernel", "options"), CASES)
def test_output_and_gradients(
    shape: Any, kernel: Any, options: Any, method: str, dtype: torch.dtype
) -> None:
    tensors = [torch.randn(each, dtype=dtype) for each in (shape, kernel, kernel[:1])]
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    spread = torch.randn(*shape[:-1], 2 * shape[-1], dtype=dtype)[..., ::2]
    inputs = [tensors[0], spread]
    if len(shape) > 3:
        inputs.append(tensors[0].contiguous(memory_format=direct.FORMATS[len(shape) - 2]))
    for input in inputs:
        parts = [part.detach().requires_grad_() for part in (input, *tensors[1:])]
        for _ in range(2):
            mine = convolve(*parts, **options, method=method)
            theirs = naive.convolve(*parts, **options)
            torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
            grad = torch.randn_like(theirs)
            for one, other in zip(
                torch.autograd.grad(mine, parts, grad),
                torch.autograd.grad(theirs, parts, grad),
                strict=True,
            ):
                torch.testing.assert_close(one, other, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("shape", "kernel", "options"), [CASES[0], CASES[2], CASES[6]])
def test_second_derivatives(shape: Any, kernel: Any, options: Any) -> None:
    parts = [
        torch.randn(each, dtype=torch.double, requires_grad=True)
        for each in ((1, *shape[1:-1], 3), kernel, kernel[:1])
    ]

    def function(*tensors: Tensor) -> Tensor:
        return convolve(*tensors, **options, method="channels_last")

    assert gradcheck(function, parts)
    assert gradgradcheck(function, parts)


@pytest.mark.parametrize(
    ("shape", "kernel", "options"), [case for case in CASES if "stride" not in case[2]]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_gradient_of_the_input_either_way(
    shape: Any, kernel: Any, options: Any, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    input, weight = (torch.randn(each, dtype=torch.double) for each in (shape, kernel))
    input.requires_grad_()
    output = naive.convolve(input, weight, **options)
    grad = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, input, grad)
    ndim, step = len(shape) - 2, options.get("dilation", 1)
    reach = [step * (k - 1) for k in kernel[2:]]
    amounts = tuple((r // 2, r - r // 2) for r in reach)
    groups = options.get("groups", 1)
    geometry = geometry_of(shape, kernel, (1,) * ndim, (step,) * ndim, amounts, groups)
    for flipped in (True, False):
        monkeypatch.setattr(direct, "flips", lambda *_a, _f=flipped, **_o: _f)
        mine = direct.input_gradient(grad, weight, geometry, channels_last=channels_last)
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


def test_one_layout_takes_no_function_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("three products were computed")

    monkeypatch.setattr("sizeless.functional.convolution.correlate", refuse)
    for shape, kernel in (
        ((4, 8, 16, 16, 16), (8, 8, 3, 3, 3)),
        ((1, 16, 64, 64), (16, 16, 7, 7)),
        ((1, 8, 16384), NARROW),
    ):
        parts = torch.randn(shape, requires_grad=True), torch.randn(kernel, requires_grad=True)
        for _ in range(2):
            output = convolve(*parts, padding="same")
            assert output.is_contiguous()
            gradients = torch.autograd.grad(output.sum(), parts)
            assert [each.shape for each in gradients] == [shape, kernel]
    with pytest.raises(AssertionError, match="three products"):
        convolve(torch.randn(8, 64, 28, 28), torch.randn(64, 1, 7, 7), padding="same", groups=64)


def test_transformations_of_a_few_taps_that_are_turned_otherwise() -> None:
    weight = torch.randn(8, 8, 3)
    one = torch.randn(1, 8, 16384, requires_grad=True)

    def function(input: Tensor) -> Tensor:
        return convolve(input, weight, padding="same")

    expected = function(one)
    assert len(shortcuts._known) == 1
    many = torch.func.vmap(function)(torch.stack([one, 2 * one]))
    torch.testing.assert_close(many, torch.stack([expected, 2 * expected]), rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        # Torch loads rules for this that it makes with what it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        value, tangent = torch.func.jvp(function, (one.detach(),), (one.detach(),))
    torch.testing.assert_close(tangent, value)
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(one), expected, rtol=1e-4, atol=1e-4)
