"""Gradients of single positions of a network's maps with respect to its input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sizeless._example import evaluating
from sizeless.study.fields.following import input_map


@dataclass(frozen=True)
class Pick:
    """One position of the output of a module.

    Attributes:
        name: Path of the module.
        call: Which of its calls, the first being 0.
        dims: Axes of its output that run along the axes of the input.
        position: Index along each of them.
    """

    name: str
    call: int
    dims: tuple[int, ...]
    position: tuple[int, ...]

    def of(self, output: Tensor) -> Tensor:
        """All channels at the position, as a tensor that no later work in place changes."""
        index: list[Any] = [slice(None)] * output.dim()
        for dim, position in zip(self.dims, self.position, strict=True):
            index[dim] = position
        return output[tuple(index)].clone()


def gradient_maps(
    model: nn.Module,
    arguments: tuple[Any, ...],
    picks: Sequence[Pick],
    samples: int,
    seed: int,
    power: int,
) -> tuple[list[np.ndarray], int]:
    """Return the mean gradient, to a power, of random projections of what was picked.

    Nothing of the model is changed: gradients are those of the input alone.

    Args:
        model: The network.
        arguments: Its positional arguments.
        picks: What to project on random signs.
        samples: Pairs of an input and a projection, rounded up to whole batches.
        seed: Seed of the signs.
        power: 1 for the absolute gradient, 2 for its square.

    Returns:
        One array of the input's size, float64, for each of ``picks``, and the pairs averaged.
    """
    given = input_map(arguments)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = given.detach().clone().requires_grad_()
        # A first layer that works in place must not meet a leaf.
        replaced = _replaced(arguments, given, leaf.clone())
        with evaluating(model), _frozen(model), _catching(model, picks) as caught:
            model(*replaced)
        draws = math.ceil(samples / len(given))
        generator = torch.Generator().manual_seed(seed)
        maps = [
            _mean(caught[i], leaf, draws, generator, power)
            if i in caught
            else torch.zeros(given.shape[2:], dtype=torch.float64)
            for i in range(len(picks))
        ]
    return [found.cpu().numpy() for found in maps], draws * len(given)


def _mean(
    values: Tensor, leaf: Tensor, draws: int, generator: torch.Generator, power: int
) -> Tensor:
    """Mean over projections, inputs and channels."""
    total = torch.zeros(leaf.shape[2:], dtype=torch.float64, device=leaf.device)
    for _ in range(draws if values.requires_grad else 0):
        signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
        projected = (values * signs.to(values)).sum()
        (gradient,) = torch.autograd.grad(projected, leaf, retain_graph=True, allow_unused=True)
        if gradient is not None:
            total += gradient.double().abs().pow(power).mean((0, 1))
    return total / draws


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter need a gradient, for a while."""
    needing = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in needing:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in needing:
            parameter.requires_grad_()


@contextmanager
def _catching(model: nn.Module, picks: Sequence[Pick]) -> Iterator[dict[int, Tensor]]:
    """Collect what is picked of the outputs in a forward pass."""
    caught: dict[int, Tensor] = {}
    calls: dict[str, int] = {}

    def catch(path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            call = calls[path] = calls.get(path, -1) + 1
            for i, pick in enumerate(picks):
                if (pick.name, pick.call) == (path, call):
                    caught[i] = pick.of(output)

        return hook

    modules = dict(model.named_modules())
    handles = [
        modules[path].register_forward_hook(catch(path))
        for path in dict.fromkeys(pick.name for pick in picks)
    ]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield caught
    finally:
        for handle in handles:
            handle.remove()


def _replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    """Nested arguments with another tensor in the place of one."""
    if value is old:
        return new
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replaced(item, old, new) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_replaced(item, old, new) for item in value)
    return value
