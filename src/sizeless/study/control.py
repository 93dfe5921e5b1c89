"""The same network without training: what a measurement would be if nothing had been learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._validate import module as check_module
from sizeless._validate import positive_int
from sizeless.study.bank import MOST, LayerKernels, layer_kernels

Make = Callable[[], nn.Module]


def untrained(make: Make | nn.Module, *, draws: int = 5, seed: int = 1) -> Iterator[nn.Module]:
    """Yield networks of the same architecture with fresh weights.

    The state of torch's generators is put back after each draw.

    Args:
        make: What builds the network, weights drawn; or a network, copies of which are drawn anew
            by the ``reset_parameters`` of all their modules. Such copies lack what the
            network's own constructor does to weights, so give what builds it if you can.
        draws: How many.
        seed: Seed of the first, each one has the next; 1, since a network that is itself fresh
            is most likely drawn with 0.

    Raises:
        TypeError: If ``make`` builds no module.
        ValueError: If ``draws`` is not positive.
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
    for module in copy.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return copy
