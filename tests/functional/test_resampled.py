"""A convolution and a resampling in one step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional import resampled, resampling_matrix
from sizeless.functional.resampled import correlate_resampled, pays
from sizeless.functional.separable import along

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CASES = [((9,), (4,), (5,)), ((8, 7), (5, 3), (3, 5)), ((4, 1, 6), (3, 1, 2), (3, 1, 3))]


def parts(
    size: tuple[int, ...],
    output_size: tuple[int, ...],
    kernel: tuple[int, ...],
    batch: int = 2,
    dtype: torch.dtype = torch.double,
) -> list[Tensor]:
    input = torch.randn(batch, 3, *size, dtype=dtype)
    weight = torch.randn(2, 3, *kernel, dtype=dtype)
    matrices = [resampling_matrix(n, m, like=input) for n, m in zip(size, output_size, strict=True)]
    return [part.requires_grad_() for part in (input, weight, *matrices)]


def together(input: Tensor, weight: Tensor, *matrices: Tensor) -> Tensor:
    return correlate_resampled(input, weight, matrices)


def one_after_the_other(input: Tensor, weight: Tensor, *matrices: Tensor) -> Tensor:
    output = CONVOLUTIONS[len(matrices)](input, weight, padding="same")
    for axis, matrix in enumerate(matrices, start=-len(matrices)):
        output = along(output, matrix, axis)
    return output


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("chunk", [1, 1 << 30])
def test_equals_one_after_the_other(case, chunk, monkeypatch):
    monkeypatch.setattr(resampled, "CHUNK", chunk)
    inputs = parts(*case, batch=3)
    output, expected = together(*inputs), one_after_the_other(*inputs)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(output, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_has_second_derivatives():
    inputs = parts(*CASES[1])
    assert torch.autograd.gradcheck(together, inputs)
    assert torch.autograd.gradgradcheck(together, inputs)


def test_maps_over_a_batch_of_weights():
    input, weight, *matrices = (part.detach() for part in parts(*CASES[1]))
    weights = torch.stack([weight, 2 * weight])
    outputs = torch.func.vmap(lambda w: together(input, w, *matrices))(weights)
    expected = together(input, weight, *matrices)
    torch.testing.assert_close(outputs, torch.stack([expected, 2 * expected]))


def test_gradients_map_over_a_batch():
    input, weight, *matrices = (part.detach() for part in parts(*CASES[1]))

    def loss(sample: Tensor) -> Tensor:
        return together(sample[None], weight, *matrices).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(input)
    expected = torch.func.grad(lambda x: together(x, weight, *matrices).square().sum())(input)
    torch.testing.assert_close(gradients, expected)


def test_keeps_the_layout_and_takes_no_maps_at_all():
    inputs = parts(*CASES[1])
    last = inputs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    output = together(last, *inputs[1:])
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, together(*inputs))
    output.sum().backward()
    assert last.grad.is_contiguous(memory_format=torch.channels_last)
    empty = parts(*CASES[1], batch=0)
    output = together(*empty)
    output.sum().backward()
    assert output.shape == (0, 2, 5, 3)
    assert not empty[1].grad.any()


def test_no_maps_at_all_are_no_chunks_on_any_device():
    input = torch.empty(0, 3, 8, device="meta")
    grids = [torch.empty(12, 8, device="meta")]
    assert list(resampled._chunks(input, grids)) == []
    assert list(resampled._chunks(input.new_empty(2, 3, 8), grids)) == [slice(0, 2)]


def test_is_one_node_of_a_compiled_graph():
    inputs = parts(*CASES[1], dtype=torch.float32)
    compiled = torch.compile(together, fullgraph=True, backend="aot_eager")
    output, expected = compiled(*inputs), together(*inputs)
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
