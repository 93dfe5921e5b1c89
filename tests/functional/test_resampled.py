"""A convolution and a resampling in one step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional import resampled
from sizeless.functional.resampled import correlate_resampled, pays
from sizeless.functional.separable import Waves

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
WAVES = 5
CASES = [((9,), (4,), (5,)), ((8, 7), (5, 3), (3, 5)), ((4, 1, 6), (3, 1, 2), (3, 1, 3))]


def waves_of(
    size: tuple[int, ...], output_size: tuple[int, ...], dtype: torch.dtype
) -> list[Waves]:
    """Any waves; gains are learned from the second on."""
    return [
        Waves(
            torch.randn(WAVES, n, dtype=dtype),
            torch.randn(WAVES, m, dtype=dtype),
            torch.arange(1, WAVES),
        )
        for n, m in zip(size, output_size, strict=True)
    ]


def parts(
    size: tuple[int, ...],
    output_size: tuple[int, ...],
    kernel: tuple[int, ...],
    batch: int = 2,
    dtype: torch.dtype = torch.double,
) -> tuple[list[Tensor], list[Waves]]:
    """Input, weight and gains, and the waves of each axis."""
    input = torch.randn(batch, 3, *size, dtype=dtype)
    weight = torch.randn(2, 3, *kernel, dtype=dtype)
    gains = torch.randn(len(size), WAVES, dtype=dtype)
    tensors = [part.requires_grad_() for part in (input, weight, gains)]
    return tensors, waves_of(size, output_size, dtype)


def one_after_the_other(input: Tensor, weight: Tensor, gains: Tensor, waves: list[Waves]) -> Tensor:
    output = CONVOLUTIONS[len(waves)](input, weight, padding="same")
    for axis, (given, each) in enumerate(zip(gains, waves, strict=True), start=2):
        # The first gain of each axis is not among the learned ones.
        row = torch.cat([given[:1].detach(), given[1:]])
        output = torch.tensordot(output, each.matrix(row), dims=([axis], [1])).movedim(-1, axis)
    return output


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("chunk", [1, 1 << 30])
def test_equals_one_after_the_other(case, chunk, monkeypatch):
    monkeypatch.setattr(resampled, "CHUNK", chunk)
    inputs, waves = parts(*case, batch=3)
    output = correlate_resampled(*inputs, waves)
    expected = one_after_the_other(*inputs, waves)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(output, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_has_second_derivatives():
    inputs, waves = parts(*CASES[1])
    # Of all gains: those that are not learned have no derivative to compare with.
    waves = [each._replace(learned=torch.arange(WAVES)) for each in waves]
    assert torch.autograd.gradcheck(lambda *x: correlate_resampled(*x, waves), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: correlate_resampled(*x, waves), inputs)


@pytest.mark.parametrize("needed", range(3))
def test_only_what_is_needed_gets_a_gradient(needed):
    inputs, waves = parts(*CASES[1])
    for place, part in enumerate(inputs):
        part.requires_grad_(place == needed)
    correlate_resampled(*inputs, waves).square().sum().backward()
    expected = [part.detach().requires_grad_() for part in inputs]
    one_after_the_other(*expected, waves).square().sum().backward()
    for place, (part, other) in enumerate(zip(inputs, expected, strict=True)):
        if place == needed:
            torch.testing.assert_close(part.grad, other.grad)
        else:
            assert part.grad is None


def test_maps_over_a_batch_of_weights():
    inputs, waves = parts(*CASES[1])
    input, weight, gains = (part.detach() for part in inputs)
    weights = torch.stack([weight, 2 * weight])
    outputs = torch.func.vmap(lambda w: correlate_resampled(input, w, gains, waves))(weights)
    expected = correlate_resampled(input, weight, gains, waves)
    torch.testing.assert_close(outputs, torch.stack([expected, 2 * expected]))


def test_gradients_map_over_a_batch():
    inputs, waves = parts(*CASES[1])
    input, weight, gains = (part.detach() for part in inputs)

    def loss(sample: Tensor) -> Tensor:
        return correlate_resampled(sample[None], weight, gains, waves).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(input)
    expected = torch.func.grad(
        lambda x: correlate_resampled(x, weight, gains, waves).square().sum()
    )(input)
    torch.testing.assert_close(gradients, expected)


def test_keeps_the_layout_and_takes_no_maps_at_all():
    inputs, waves = parts(*CASES[1])
    last = inputs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    output = correlate_resampled(last, *inputs[1:], waves)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, correlate_resampled(*inputs, waves))
    output.sum().backward()
    assert last.grad.is_contiguous(memory_format=torch.channels_last)
    empty, waves = parts(*CASES[1], batch=0)
    output = correlate_resampled(*empty, waves)
    output.sum().backward()
    assert output.shape == (0, 2, 5, 3)
    assert not empty[1].grad.any()
    assert not empty[2].grad.any()


def test_no_maps_at_all_are_no_chunks_on_any_device():
    input = torch.empty(0, 3, 8, device="meta")
    grids = [torch.empty(12, 8, device="meta")]
    assert list(resampled._chunks(input, grids)) == []
    assert list(resampled._chunks(input.new_empty(2, 3, 8), grids)) == [slice(0, 2)]


def test_is_one_node_of_a_compiled_graph():
    inputs, waves = parts(*CASES[1], dtype=torch.float32)
    compiled = torch.compile(correlate_resampled, fullgraph=True, backend="aot_eager")
    output, expected = compiled(*inputs, waves), correlate_resampled(*inputs, waves)
    torch.testing.assert_close(output, expected)
    for mine, theirs in zip(
        torch.autograd.grad(output.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "output_size", "kernel", "channels", "expected"),
    [
        (32, 16, 3, (64, 128), True),
        (32, 31, 3, (64, 128), False),
        (32, 16, 1, (64, 128), True),
        (32, 16, 3, (128, 16), False),
    ],
)
def test_pays_where_outputs_are_fewer_and_channels_many(
    size, output_size, kernel, channels, expected
):
    assert pays((size,) * 2, (output_size,) * 2, (kernel,) * 2, *channels) == expected
