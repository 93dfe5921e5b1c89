"""Layers in evaluation as one operator: a compiled graph has no memory to keep kernels in.

It would render them at every call. The operator asks the layer itself, which keeps them.

What a graph is traced through, it checks again at every call: so little is traced here.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._precision import autocast_is_on
from sizeless._validate import feature_map
from sizeless.functional.operands import keep_layout
from sizeless.functional.operators import node

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
    return torch.compiler.is_dynamo_compiling() and _wants_outputs_alone(input.device.type)


@torch.compiler.assume_constant_result
def _wants_outputs_alone(device_type: str) -> bool:
    """Whether it is so in the state of torch that every graph checks anyway."""
    return not (
        torch.compiler.is_exporting() or torch.is_grad_enabled() or autocast_is_on(device_type)
    )


def evaluate(layer: Any, input: Tensor, out_channels: int, stride: tuple[int, ...]) -> Tensor:
    """Return ``layer.forward(input)``, of size ``input / stride`` rounded up, as one operator."""
    output: Tensor = _evaluate(input, _parameters(layer), layer.number, out_channels, stride)
    return output


class _Forward(nn.Module):
    """The forward of a layer without its hooks, which are around the operator already."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Any:
        return self.layer.forward(input)


def _parameters(layer: nn.Module) -> list[Tensor]:
    """List what ``layer.parameters()`` yields, shared ones again.

    Ten times as fast, and a graph has half as much to check.
    """
    parts: list[nn.Module | None] = [layer]
    found: list[Tensor | None] = []
    for part in parts:
        if part is not None:
            found += part._parameters.values()
            parts += part._modules.values()
    return [parameter for parameter in found if parameter is not None]


def _run(input: Tensor, parameters: list[Tensor], number: Tensor, *_: Any) -> Tensor:
    layer = _layers.get(int(number))
    if layer is None:
        raise RuntimeError("the layer that this graph was compiled for is gone; compile it again")
    with torch.no_grad():
        # Within torch.func.functional_call, a graph is given other parameters than the layer's.
        pairs = list(zip(_parameters(layer), parameters, strict=True))
        for mine, given in pairs:
            if mine is not given and mine.data_ptr() != given.data_ptr():
                return keep_layout(_run_with(layer, pairs, input), input)
        return keep_layout(layer.forward(input), input)


def _run_with(layer: nn.Module, pairs: list[tuple[Tensor, Tensor]], input: Tensor) -> Tensor:
    """Run a layer with other parameters in place of its own."""
    given = {id(mine): given for mine, given in pairs}
    named = {f"layer.{name}": given[id(mine)] for name, mine in layer.named_parameters()}
    output: Tensor = torch.func.functional_call(_Forward(layer), named, (input,))
    return output


def _shape(
    input: Tensor, _parameters: Any, _number: Any, out_channels: int, stride: list[int]
) -> Tensor:
    feature_map("input", input, len(stride))
    size = [(n - 1) // s + 1 for n, s in zip(input.shape[2:], stride, strict=True)]
    return keep_layout(input.new_empty(input.shape[0], out_channels, *size), input)


_evaluate = node(
    "evaluate(Tensor input, Tensor[] parameters, Tensor number, int out_channels, int[] stride) "
    "-> Tensor",
    _run,
    _shape,
)
