"""A call whose like has been made before takes the short way, and gives the same."""

from __future__ import annotations

import pytest
import torch

from sizeless.functional import convolve, naive, shortcuts, tuning, use_method


@pytest.fixture(autouse=True)
def _nothing_known():
    shortcuts.forget()
    yield
    shortcuts.forget()


def operands(shape=(2, 4, 9, 8), kernel=(3, 3), groups=4, **options):
    weight = torch.randn(shape[1], shape[1] // groups, *kernel, **options)
    return torch.randn(shape, **options), weight, torch.randn(shape[1], **options)


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((2, 4, 9), (3,), {"padding": "same", "causal": True}),
        ((2, 4, 9, 8), (3, 3), {"padding": "same"}),
        ((2, 4, 9, 8), (3, 2), {"padding": (1, 0), "stride": (2, 1)}),
        ((2, 4, 9, 8), (5, 5), {"padding": 2, "dilation": 2}),
        ((2, 4, 5, 6, 4), (3, 1, 3), {"padding": "same"}),
        ((1, 4, 5, 6, 4), (3, 3, 3), {"padding": "same", "groups": 1}),
    ],
)
@pytest.mark.parametrize("with_gradients", [True, False])
def test_the_second_call_equals_the_first(shape, kernel, options, with_gradients):
    options = {"groups": 4} | options
    tensors = operands(shape, kernel, options["groups"])
    tensors = [part.requires_grad_(with_gradients) for part in tensors]
    with torch.set_grad_enabled(with_gradients):
        first, second = (convolve(*tensors, **options) for _ in range(2))
        expected = naive.convolve(*tensors, **options)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-5)
    if with_gradients:
        probe = torch.randn_like(first)
        gradients = [torch.autograd.grad(value, tensors, probe) for value in (second, expected)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_small_kernels_take_the_short_way_and_large_ones_only_without_gradients():
    input, weight, bias = operands()
    convolve(input, weight, bias, padding=1, groups=4)
    assert len(shortcuts._known) == 1
    large = operands((8, 16, 56, 56), (7, 7), 16)
    convolve(*large, padding="same", groups=16)
    assert len(shortcuts._known) == 1
    with torch.no_grad():
        convolve(*large, padding="same", groups=16)
    assert len(shortcuts._known) == 2


@pytest.mark.parametrize(
    "wrong",
    [{"stride": True}, {"stride": 1.0}, {"stride": (1.0, 1)}, {"groups": 4.0}, {"causal": 0}],
)
def test_what_is_equal_but_not_allowed_is_still_refused(wrong):
    input, weight, _ = operands()
    right = {"stride": 1, "padding": 0, "groups": 4, "causal": False}
    convolve(input, weight, **right)
    convolve(input, weight, **right | {"stride": (1, 1)})
    with pytest.raises(TypeError, match=next(iter(wrong))):
        convolve(input, weight, **right | wrong)


def test_other_tensors_are_checked_anew():
    input, weight, bias = operands()
    convolve(input, weight, bias, groups=4)
    with pytest.raises(TypeError, match="bias must have the dtype of input"):
        convolve(input, weight, bias.double(), groups=4)
    with pytest.raises(TypeError, match=r"weight must be a torch\.Tensor"):
        convolve(input, weight.numpy(), bias, groups=4)
    with pytest.raises(ValueError, match="weight must have in_channels"):
        convolve(input, weight.expand(4, 2, 3, 3), bias, groups=4)


def test_lists_are_taken_as_before():
    input, weight, bias = operands()
    expected = convolve(input, weight, bias, stride=(2, 1), groups=4)
    again = convolve(input, weight, bias, stride=[2, 1], groups=4)
    assert torch.equal(again, expected)


def test_the_layout_of_the_input_is_kept():
    input, weight, bias = operands()
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = input.contiguous(memory_format=layout)
        for _ in range(2):
            output = convolve(laid, weight, bias, padding=1, groups=4)
            assert output.is_contiguous(memory_format=layout)


def test_autocast_gives_its_dtype_both_times():
    tensors = operands()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert convolve(*tensors, padding=1, groups=4).dtype == torch.bfloat16
        assert convolve(*tensors, padding=1, groups=4).dtype == torch.float32


def test_a_forced_method_and_measured_plans_come_first(monkeypatch, tmp_path):
    monkeypatch.setenv("SIZELESS_CACHE", str(tmp_path))
    input, weight, _ = operands(kernel=(7, 7), groups=1)
    with torch.no_grad():
        expected = convolve(input, weight, padding="same", method="direct")
        convolve(input, weight, padding="same")
        known = dict(shortcuts._known)
        with use_method("fft"):
            forced = convolve(input, weight, padding="same")
        assert shortcuts._known == known
        torch.testing.assert_close(forced, expected, rtol=1e-4, atol=1e-4)
        with tuning():
            assert not shortcuts._known
            convolve(input, weight, padding="same")
            assert not shortcuts._known


def test_no_more_are_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(shortcuts, "MOST", 2)
    for size in (8, 9, 10):
        convolve(*operands((1, 4, size, size)), groups=4)
    assert len(shortcuts._known) == 1
