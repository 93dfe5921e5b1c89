"""The same network without training: what a measurement would be if nothing had been learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sizeless._validate import module as check_module
from sizeless._validate import positive_int
from sizeless.study.bank import MOST, LayerKernels, has_kernels, layer_kernels

Make = Callable[[], nn.Module]


def untrained(make: Make | nn.Module, *, draws: int = 5, seed: int = 1) -> Iterator[nn.Module]:
    """Yield networks of the same architecture with fresh weights.

    The state of torch's generators is put back after each draw.

    Args:
        make: What builds the network, weights drawn; or a network, copies of which are drawn anew
            by the ``reset_parameters`` of all their modules. Such copies lack what the
            network's own constructor does to weights, and keep those that no
            ``reset_parameters`` draws, so give what builds it if you can.
        draws: How many.
        seed: Seed of the first, each one has the next; 1, since a network that is itself fresh
            is most likely drawn with 0.

    Raises:
        TypeError: If ``make`` builds no module.
        ValueError: If ``draws`` is not positive, or a layer of a network that was given has
            kernels that its ``reset_parameters`` does not change.
    """
    for draw in range(positive_int("draws", draws)):
        with torch.random.fork_rng():
            torch.manual_seed(seed + draw)
            network = _redrawn(make) if isinstance(make, nn.Module) else make()
        yield check_module("what make() returns", network).eval()


def untrained_kernels(
    make: Make | nn.Module,
    example_input: Tensor | tuple[Any, ...],
    *,
    draws: int = 5,
    seed: int = 1,
    most: int = MOST,
) -> list[list[LayerKernels]]:
    """Return the kernels of ``untrained`` networks, one list per draw; see ``layer_kernels``."""
    return [
        layer_kernels(network, example_input, most=most)
        for network in untrained(make, draws=draws, seed=seed)
    ]


def _redrawn(network: nn.Module) -> nn.Module:
    copy = deepcopy(network)
    written = {parameter: parameter._version for parameter in copy.parameters()}
    for module in copy.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            _reset(module, reset)
    for (name, module), old in zip(copy.named_modules(), network.modules(), strict=True):
        if has_kernels(module) and not _drawn(module, old, written):
            raise ValueError(
                f"make {type(network).__name__} keeps its weights in {name or 'itself'}, a "
                f"{type(module).__name__} that reset_parameters does not draw anew; give a "
                "function that builds the network"
            )
    return copy


def _reset(module: nn.Module, reset: Callable[[], object]) -> None:
    """Draw the weights of a module, those that are computed from others too."""
    if not parametrize.is_parametrized(module):
        reset()
        return
    with parametrize.cached():
        drawn = {name: getattr(module, name) for name in _computed(module)}
        # What is computed is kept for the time being, and drawn in place.
        reset()
    for name, value in drawn.items():
        with suppress(NotImplementedError, RuntimeError):
            setattr(module, name, value.detach().clone())


def _computed(module: nn.Module) -> tuple[str, ...]:
    """Names of the tensors of a parametrized module."""
    return tuple(cast("nn.ModuleDict", module.parametrizations))


def _drawn(module: nn.Module, old: nn.Module, written: dict[nn.Parameter, int]) -> bool:
    """Whether kernels were written to, or are no parameters at all."""
    pairs = [
        pair
        for pair in zip(module.parameters(), old.parameters(), strict=True)
        if pair[0].dim() > 1
    ]
    return not pairs or any(
        new._version != written.get(new) or not torch.equal(new, before) for new, before in pairs
    )
