"""What the tests of a layer look at it with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sizeless.kernels import ContinuousKernel
from sizeless.nn import SizeParameters


class Token:
    """Something that an autograd graph holds."""


class Probe(torch.autograd.Function):
    """Identity whose node holds a token for as long as the graph lives."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, token: Token) -> Tensor:
        ctx.token = token
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output, None


def gradients(output: Tensor, leaves: dict[str, Tensor], cotangent: Tensor) -> dict[str, Tensor]:
    """Gradient of every leaf, 0 where the output does not depend on it."""
    values = torch.autograd.grad(
        output, list(leaves.values()), cotangent, allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, values, strict=True))


def reset(module: nn.Module) -> None:
    """Call ``reset_parameters`` where it exists."""
    method: Callable[[], None] | None = getattr(module, "reset_parameters", None)
    if method is not None:
        method()


def size_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a layer that are sizes, by name."""
    sizes = {
        id(parameter)
        for module in layer.modules()
        if isinstance(module, SizeParameters)
        for parameter in module.size_parameters()
    }
    return {n: p for n, p in layer.named_parameters() if id(p) in sizes}


def precise_parameters(layer: nn.Module) -> set[str]:
    """Names of the parameters that stay in float32: sizes, and the bases of kernel networks."""
    outputs = {
        id(parameter)
        for module in layer.modules()
        if isinstance(module, ContinuousKernel)
        for parameter in module.output.parameters()
    }
    bases = {
        id(parameter)
        for module in layer.modules()
        if isinstance(module, ContinuousKernel)
        for parameter in module.parameters()
    }
    kept = {n for n, p in layer.named_parameters() if id(p) in bases - outputs}
    return kept | set(size_parameters(layer))
