"""Torch's own convolutions where they need care: half precision, and single volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sizeless.functional import convolve, direct, shortcuts
from sizeless.functional.fft import result_dtype
from sizeless.functional.operands import has_channels_last

VOLUME, FLAT = (1, 4, 48, 48, 48), (4, 4, 1, 3, 3)


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    shortcuts.forget()
    yield
    shortcuts.forget()


@pytest.mark.parametrize("padding", [0, "same"])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_depthwise_autocast_with_channels_last_reaches_torch_in_its_usual_layout(
    with_gradients: bool, padding: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(input: Tensor, *arguments: Any) -> Tensor:
        # Torch might never return.
        assert not (result_dtype(input) == torch.bfloat16 and has_channels_last(input))
        return F.conv2d(input, *arguments)

    monkeypatch.setitem(direct.CONVOLUTIONS, 2, watched)
    last, options = torch.channels_last, {"padding": padding, "groups": 8, "method": "direct"}
    input = torch.randn(2, 8, 20, 20).contiguous(memory_format=last)
    tensors = [part.requires_grad_(with_gradients) for part in (input, torch.randn(8, 1, 15, 15))]
    full = convolve(*tensors, **options)
    assert len(shortcuts._known) == (padding == 0)
    with torch.autocast("cpu", torch.bfloat16):
        half = convolve(*tensors, **options)
    assert half.dtype == torch.bfloat16
    assert half.is_contiguous(memory_format=last)
    torch.testing.assert_close(half.float(), full, rtol=0.01, atol=0.2)
    if with_gradients:
        grad = torch.ones_like(full)
        mine = torch.autograd.grad(half, tensors, grad.bfloat16())
        for one, other in zip(mine, torch.autograd.grad(full, tensors, grad), strict=True):
            torch.testing.assert_close(one, other, rtol=0.01, atol=0.5)


def test_a_single_volume_has_the_dtype_of_autocast() -> None:
    input, weight = torch.randn(VOLUME), torch.randn(FLAT)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mine = [convolve(input, weight, padding="same") for _ in range(2)]
        theirs = F.conv3d(input, weight, padding="same")
    assert theirs.dtype == torch.bfloat16
    for output in mine:
        torch.testing.assert_close(output, theirs)


def test_a_single_volume_is_left_to_torch_where_its_library_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    original = torch.mkldnn_convolution

    def watched(*arguments: Any) -> Tensor:
        called.append(True)
        return original(*arguments)

    monkeypatch.setattr(torch, "mkldnn_convolution", watched)
    input, weight = torch.randn(1, 4, 20, 20, 20), torch.randn(FLAT)
    with torch.no_grad():
        for is_on in (True, False, True):
            called.clear()
            with torch.backends.mkldnn.flags(enabled=is_on, allow_tf32=None):
                outputs = [convolve(input, weight, padding="same") for _ in range(2)]
                assert len(called) == (2 if is_on else 0)
                expected = F.conv3d(input, weight, padding="same")
            for output in outputs:
                torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
