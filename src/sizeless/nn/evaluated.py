"""Layers in evaluation as one operator: a compiled graph has no memory to keep kernels in.

It would render them at every call. The operator asks the layer itself, which keeps them.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._precision import autocast_is_on
from sizeless.functional.operands import keep_layout
from sizeless.functional.operators import operator

_numbers = itertools.count()
_layers: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()


def number_of(layer: nn.Module) -> Tensor:
    """Give a layer a number by which the operator finds it.

    A tensor, since graphs are made anew for another int, and not for another tensor.
    """
    number = next(_numbers)
    _layers[number] = layer
    return torch.tensor(number, device="cpu")


def is_evaluated(input: Tensor) -> bool:
    """Whether a graph is compiled in which nothing but outputs is wanted."""
    return (
        torch.compiler.is_dynamo_compiling()
        and not torch.compiler.is_exporting()
        and not torch.is_grad_enabled()
        and not autocast_is_on(input.device.type)
    )


def evaluate(layer: Any, input: Tensor, out_channels: int, stride: tuple[int, ...]) -> Tensor:
    """Return ``layer.forward(input)``, of size ``input / stride`` rounded up, as one operator."""
    result: Tensor = _evaluate(input, list(layer.parameters()), layer.number, out_channels, stride)
    return keep_layout(result, input)


class _Forward(nn.Module):
    """The forward of a layer without its hooks, which are around the operator already."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Any:
        return self.layer.forward(input)


def _parameters(module: nn.Module) -> Iterator[Tensor]:
    """Yield what ``module.parameters()`` does, shared ones again, in a tenth of the time."""
    yield from (part for part in module._parameters.values() if part is not None)
    for child in module._modules.values():
        if child is not None:
            yield from _parameters(child)


def _run(input: Tensor, parameters: list[Tensor], number: Tensor, *_: Any) -> Tensor:
    layer = _layers.get(int(number))
    if layer is None:
        raise RuntimeError("the layer that this graph was compiled for is gone; compile it again")
    with torch.no_grad():
        # Within torch.func.functional_call, a graph is given other parameters than the layer's.
        # One that several parts share is given once.
        own = zip(dict.fromkeys(_parameters(layer)), parameters, strict=True)
        if all(mine.data_ptr() == given.data_ptr() for mine, given in own):
            return layer.forward(input).contiguous()
        names = [f"layer.{name}" for name, _ in layer.named_parameters()]
        given = dict(zip(names, parameters, strict=True))
        result = torch.func.functional_call(_Forward(layer), given, (input,))
        return result.contiguous()


def _shape(
    input: Tensor, _parameters: Any, _number: Any, out_channels: int, stride: list[int]
) -> Tensor:
    size = [(n - 1) // s + 1 for n, s in zip(input.shape[2:], stride, strict=True)]
    return input.new_empty(input.shape[0], out_channels, *size)


_evaluate = operator(
    "evaluate(Tensor input, Tensor[] parameters, Tensor number, int out_channels, int[] stride) "
    "-> Tensor",
    _run,
    _shape,
)
