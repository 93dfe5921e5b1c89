"""Layers with learned sizes as modules of ``torch.nn`` that compute the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd, SpectralPoolNd
from sizeless.nn.residual import CONVOLUTIONS
from sizeless.surgery.parts import padding_layer
from sizeless.surgery.report import by
from sizeless.surgery.tracing import Call

SIZED = (FlexConvNd, NIFFConvNd, DiffStrideNd, SpectralPoolNd)


class FoldError(ValueError):
    """A layer that cannot be folded, and why."""


def plain_flexconv(layer: FlexConvNd, calls: Sequence[Call]) -> nn.Module:
    """Return the convolution that a FlexConv is at its present size.

    Raises:
        FoldError: If it was called with a map so small that its kernel goes round it twice.
    """
    weight = layer.weight.detach()
    size = tuple(weight.shape[2:])
    amounts = _amounts(layer, size)
    for call in calls if layer.padding_mode == "circular" else ():
        if any(max(pair) > n for pair, n in zip(amounts, call.input[2:], strict=True)):
            raise FoldError(
                f"its kernel of {by(size)} taps wraps around a map of {by(call.input[2:])} more "
                "than once, which no layer of torch.nn does"
            )
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
    kind: Any = CONVOLUTIONS[len(amounts)]
    conv: nn.Module = kind(
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
    arms = torch.zeros((), dtype=torch.long, device=weight.device)
    for axis, middle in enumerate(middles):
        places = torch.arange(weight.shape[2 + axis], device=weight.device)
        arms = torch.maximum(arms[..., None], (places - middle).abs())
    # What a window of one arm loses are the rings of taps beyond it.
    rings = weight.new_zeros(int(arms.max()) + 1, dtype=torch.float64)
    rings.index_add_(0, arms.flatten(), weight.double().square().sum(dim=(0, 1)).flatten())
    beyond = rings.flip(0).cumsum(0).flip(0)
    total = float(beyond[0])
    lost = torch.cat([beyond[1:], beyond.new_zeros(1)])
    arm = int((lost <= (1 - energy) * total).nonzero()[0])
    kept, new = weight, []
    for axis, middle in enumerate(middles):
        start = max(middle - arm, 0)
        stop = min(middle + arm + 1, weight.shape[2 + axis])
        kept = kept.narrow(2 + axis, start, stop - start)
        new.append(middle - start)
    return kept, new, math.sqrt(float(lost[arm]) / total) if total else 0.0


def plain_pool(layer: DiffStrideNd | SpectralPoolNd, calls: Sequence[Call]) -> nn.Module:
    """Return one matrix product for each axis of maps of one size.

    An axis is made the channels of a 1x1 convolution, and the last one is that of an
    ``nn.Linear``. Where the layer sees different numbers of channels, it is a graph of products.

    Raises:
        FoldError: If it was called with maps of several sizes.
    """
    like = torch.empty((1, 1, *_one_size(calls)), dtype=calls[0].dtype, device=calls[0].device)
    matrices = _matrices(layer, like)
    counts = {call.input[1] for call in calls}
    if len(counts) > 1:
        return _graph(matrices)
    return _modules(matrices, (counts.pop(), *calls[0].output[2:]))


def _matrices(layer: DiffStrideNd | SpectralPoolNd, like: Tensor) -> list[Tensor | None]:
    """Matrix of each axis for maps that are as one is, ``None`` where nothing happens."""
    with torch.no_grad():
        return layer.resampling(like).matrices(like.dtype)


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _modules(matrices: Sequence[Tensor | None], sizes: Sequence[int]) -> nn.Module:
    """Products as modules, for maps that become of ``sizes``, channels and axes."""
    ndim = len(matrices)
    steps: list[nn.Module] = []
    for axis, matrix in enumerate(matrices[:-1]):
        if matrix is None:
            continue
        after = ndim - 1 - axis
        conv = CONVOLUTIONS[after](matrix.shape[1], matrix.shape[0], 1, bias=False, device="meta")
        conv.weight = _frozen(matrix.reshape(*matrix.shape, *[1] * after))
        # All axes before this one go into the batch.
        steps += [nn.Flatten(0, axis + 1), conv, nn.Unflatten(0, (-1, *sizes[: axis + 1]))]
    last = matrices[-1]
    if last is not None:
        linear = nn.Linear(last.shape[1], last.shape[0], bias=False, device="meta")
        linear.weight = _frozen(last)
        steps.append(linear)
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
        raise FoldError(
            "it is not called for the example input, so the size of its maps is not known; take it "
            "out, or give an input for which it is called"
        )
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
    for kind in SIZED:
        if isinstance(layer, kind) and type(layer).forward is not kind.forward:
            raise FoldError("it has a forward of its own, which may compute something else")
    if isinstance(layer, FlexConvNd):
        return plain_flexconv(layer, calls), 0.0
    if isinstance(layer, NIFFConvNd):
        return plain_niff(layer, calls, energy)
    if isinstance(layer, (DiffStrideNd, SpectralPoolNd)):
        return plain_pool(layer, calls), None
    raise FoldError(f"{type(layer).__name__} has no plain form")


def plain_at(
    path: str,
    layer: nn.Module,
    calls: Sequence[Call],
    energy: float | None,
    refusal: str = "fold cannot replace",
) -> tuple[nn.Module, float | None]:
    """``plain``, with an error that says which layer it is.

    Raises:
        ValueError: If it cannot be told from its calls.
    """
    try:
        return plain(layer, calls, energy)
    except FoldError as failure:
        raise ValueError(
            f"{refusal} the {type(layer).__name__} at {path or 'the top'!r}: {failure}"
        ) from None
