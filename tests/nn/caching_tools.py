"""What the tests of kept kernels look at them with."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sizeless import FlexConv1d
from sizeless.kernels import MAGNet, MultiplicativeNetwork

SMALL = partial(MAGNet, hidden=4, layers=1, input_scale=6.0)
DOUBLE = torch.float64


def make(**options: Any) -> FlexConv1d:
    """Return a small layer of two channels and a learned size of 5."""
    return FlexConv1d(2, 2, 9, **{"init_size": 5, "kernel": SMALL, "dtype": DOUBLE, **options})


def maps(dtype: torch.dtype = DOUBLE) -> Tensor:
    """Return random maps for ``make``'s layer."""
    return torch.randn(2, 2, 9, dtype=dtype)


def silent(layer: nn.Module, input: Tensor) -> Tensor:
    """Output without a graph."""
    with torch.no_grad():
        return layer(input)


def fresh(layer: nn.Module, input: Tensor) -> Tensor:
    """Output of a layer that has kept nothing."""
    return silent(copy.deepcopy(layer), input)


def change_in_place(layer: nn.Module, name: str) -> None:
    """Write other values into a parameter or buffer."""
    tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    with torch.no_grad():
        tensors[name].add_(0.1)


class Renderings:
    """Counter of evaluations of kernel networks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = MultiplicativeNetwork.grid_basis

        def counted(network: MultiplicativeNetwork, axes: Any) -> Tensor:
            self.count += 1
            return original(network, axes)

        monkeypatch.setattr(MultiplicativeNetwork, "grid_basis", counted)

    def since(self) -> int:
        """Renderings since the last question."""
        count, self.count = self.count, 0
        return count
