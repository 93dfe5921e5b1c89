"""Layers with learned sizes as modules of ``torch.nn`` that compute the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from sizeless.functional.resampling import Resampling
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd, SpectralPoolNd
from sizeless.surgery.parts import CONVOLUTIONS, padding_layer
from sizeless.surgery.tracing import Call

SIZED = (FlexConvNd, NIFFConvNd, DiffStrideNd, SpectralPoolNd)


class FoldError(ValueError):
    """A layer that cannot be folded, and why."""


def plain_flexconv(layer: FlexConvNd) -> nn.Module:
    """Return the convolution that a FlexConv is at its present size."""
    weight = layer.weight.detach()
    size = tuple(weight.shape[2:])
    amounts = _amounts(layer, size)
    return _convolution(
        weight,
        layer.bias,
        amounts,
        layer.padding_mode,
        stride=layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
    )


def _amounts(layer: FlexConvNd, size: tuple[int, ...]) -> list[tuple[int, int]]:
    """Padding before and after each axis."""
    axes = list(zip(layer.dilation, layer.kernel_size, size, strict=True))
    if layer.causal:
        return [(d * (k - 1), 0) for d, _, k in axes]
    if isinstance(layer.padding, str):
        return [(d * (k - 1) // 2,) * 2 for d, _, k in axes]
    return [(p - d * (n - k) // 2,) * 2 for p, (d, n, k) in zip(layer.padding, axes, strict=True)]


def _convolution(
    weight: Tensor,
    bias: Tensor | None,
    amounts: Sequence[tuple[int, int]],
    mode: str,
    **options: Any,
) -> nn.Module:
    """A convolution of torch, after a padding of its own where that has to be."""
    even = all(before == after >= 0 for before, after in amounts)
    padding = tuple(before for before, _ in amounts) if even else 0
    groups = options.get("groups", 1)
    conv = CONVOLUTIONS[len(amounts)](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        padding=padding,
        padding_mode=mode if even and any(map(max, amounts)) else "zeros",
        bias=bias is not None,
        device="meta",
        **options,
    )
    conv.weight = nn.Parameter(weight.contiguous().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv if even else nn.Sequential(padding_layer(amounts, _signed(amounts, mode)), conv)


def _signed(amounts: Sequence[tuple[int, int]], mode: str) -> str:
    """The mode of a padding; what only crops has none."""
    return mode if any(max(pair) > 0 for pair in amounts) else "zeros"


def plain_niff(
    layer: NIFFConvNd, calls: Sequence[Call], energy: float | None
) -> tuple[nn.Module, float]:
    """Return the convolution that a NIFF layer is on maps of one size.

    Args:
        layer: The layer.
        calls: Its calls.
        energy: Share of the kernels' energy that the kept taps must hold; ``None`` keeps all.

    Returns:
        The convolution, and the relative error of its kernels.

    Raises:
        FoldError: If it was called with maps of several sizes.
    """
    size = _one_size(calls)
    kernel = layer.spatial_kernel(size).detach()
    # Correlation has the kernel of convolution flipped; its middle is then at (n - 1) // 2.
    weight = kernel.flip(tuple(range(2, kernel.dim())))
    middles = [(n - 1) // 2 for n in size]
    error = 0.0
    if energy is not None:
        weight, middles, error = _most_of(weight, middles, energy)
    amounts = [
        (middle, taps - 1 - middle) for middle, taps in zip(middles, weight.shape[2:], strict=True)
    ]
    mode = "circular" if layer.boundary == "circular" else "zeros"
    return _convolution(weight, layer.bias, amounts, mode, groups=layer.groups), error


def _most_of(weight: Tensor, middles: list[int], energy: float) -> tuple[Tensor, list[int], float]:
    """The smallest odd window around the middle that holds a share of the energy."""
    total = float(weight.double().square().sum())
    for arm in range(max(weight.shape[2:])):
        kept, new = weight, []
        for axis, middle in enumerate(middles):
            start = max(middle - arm, 0)
            stop = min(middle + arm + 1, weight.shape[2 + axis])
            kept = kept.narrow(2 + axis, start, stop - start)
            new.append(middle - start)
        share = float(kept.double().square().sum()) / total if total else 1.0
        if share >= energy:
            return kept, new, math.sqrt(max(1 - share, 0.0))
    return weight, middles, 0.0


def plain_pool(layer: DiffStrideNd | SpectralPoolNd, calls: Sequence[Call]) -> nn.Module:
    """Return one matrix product for each axis of maps of one size.

    The last axis is that of an ``nn.Linear``; another one is made the channels of a 1x1
    convolution. Where the layer sees different numbers of channels, it is a graph of products.

    Raises:
        FoldError: If it was called with maps of several sizes.
    """
    size = _one_size(calls)
    matrices = _matrices(layer, size)
    counts = {call.input[1] for call in calls}
    if len(counts) > 1:
        return _graph(matrices)
    return _modules(matrices, counts.pop())


def _matrices(layer: DiffStrideNd | SpectralPoolNd, size: tuple[int, ...]) -> list[Tensor | None]:
    """Matrix of each axis, ``None`` where nothing happens."""
    with torch.no_grad():
        if isinstance(layer, DiffStrideNd):
            like = torch.empty((1, 1, *size), device=layer.log2_stride.device)
            resampling = layer.resampling(like)
        else:
            resampling = Resampling(
                size,
                layer.output_size(size),
                None,
                amplitude=layer.amplitude,
                method="matrix",
                dtype=torch.float32,
                device=torch.device("cpu"),
            )
        return resampling.matrices()


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _modules(matrices: Sequence[Tensor | None], channels: int) -> nn.Module:
    ndim = len(matrices)
    steps: list[nn.Module] = []
    last = matrices[-1]
    if last is not None:
        linear = nn.Linear(last.shape[1], last.shape[0], bias=False, device="meta")
        linear.weight = _frozen(last)
        steps.append(linear)
    sizes = [channels, *(0 if m is None else m.shape[1] for m in matrices)]
    for axis in reversed(range(ndim - 1)):
        matrix = matrices[axis]
        if matrix is None:
            continue
        conv = CONVOLUTIONS[ndim - 1 - axis](
            matrix.shape[1], matrix.shape[0], 1, bias=False, device="meta"
        )
        conv.weight = _frozen(matrix.reshape(*matrix.shape, *[1] * (ndim - 1 - axis)))
        # All axes before this one go into the batch.
        steps += [nn.Flatten(0, axis + 1), conv, nn.Unflatten(0, (-1, *sizes[: axis + 1]))]
    return nn.Sequential(*steps)


def _graph(matrices: Sequence[Tensor | None]) -> nn.Module:
    """Products as a graph that takes any number of channels."""
    root, graph = nn.Module(), fx.Graph()
    values = graph.placeholder("input")
    ndim = len(matrices)
    for axis, matrix in enumerate(matrices):
        if matrix is None:
            continue
        name = f"matrix{axis}"
        root.register_parameter(name, _frozen(matrix))
        weight = graph.get_attr(name)
        # The axis goes to the end and back.
        place = axis - ndim
        values = graph.call_method("transpose", (values, place, -1))
        values = graph.call_function(nn.functional.linear, (values, weight))
        values = graph.call_method("transpose", (values, place, -1))
    graph.output(values)
    return fx.GraphModule(root, graph)


def _one_size(calls: Sequence[Call]) -> tuple[int, ...]:
    sizes = {call.input[2:] for call in calls}
    if not sizes:
        raise FoldError("it is not called for the example input, so its map has no size")
    if len(sizes) > 1:
        raise FoldError(f"it is called with maps of several sizes: {sorted(sizes)}")
    return sizes.pop()


def plain(
    layer: nn.Module, calls: Sequence[Call], energy: float | None
) -> tuple[nn.Module, float | None]:
    """Return what a layer with a learned size is in ``torch.nn``, and the error of its kernel.

    Raises:
        FoldError: If it cannot be told from its calls.
    """
    if isinstance(layer, FlexConvNd):
        return plain_flexconv(layer), 0.0
    if isinstance(layer, NIFFConvNd):
        return plain_niff(layer, calls, energy)
    if isinstance(layer, (DiffStrideNd, SpectralPoolNd)):
        return plain_pool(layer, calls), None
    raise FoldError(f"{type(layer).__name__} has no plain form")
