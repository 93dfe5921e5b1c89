"""The kernel networks that are compared, by name, and widths that make them equally large."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sizeless._validate import int_at_least, number, one_of, positive_int
from sizeless.kernels import MLP, NSIREN, SIREN, ContinuousKernel, Fourier, Gabor, MAGNet

WIDEST = 4096


class Contender(NamedTuple):
    """A kernel network.

    Attributes:
        make: Its class.
        label: What it is called in pictures.
        frequency: Argument that scales its first frequencies, if it has one.
        usual: Value of that argument in the library.
    """

    make: Callable[..., ContinuousKernel]
    label: str
    frequency: str | None = None
    usual: float = 0.0


NETWORKS: dict[str, Contender] = {
    "magnet": Contender(MAGNet, "MAGNet", "input_scale", 25.6),
    "gabor": Contender(Gabor, "Gabor", "input_scale", 25.6),
    "fourier": Contender(Fourier, "Fourier", "input_scale", 256.0),
    "siren": Contender(SIREN, "SIREN", "omega_0", 30.0),
    "nsiren": Contender(NSIREN, "nSIREN", "omega_0", 30.0),
    "mlp": Contender(MLP, "MLP"),
}


def make(
    name: str, ndim: int, out_features: int, *, hidden: int = 32, scale: float = 1.0, seed: int = 0
) -> ContinuousKernel:
    """Return a kernel network, drawn as the layers of the library draw it.

    Args:
        name: One of ``NETWORKS``.
        ndim: Number of coordinates.
        out_features: Number of kernels that share its basis functions.
        hidden: Units per layer.
        scale: Factor for its first frequencies; a network of no frequency scale stays as it is.
        seed: Seed of its weights; torch's global generator is put back.

    Raises:
        ValueError: If the name is unknown, a count below 1 or the scale not positive.

    Examples:
        >>> make("siren", 2, 1, hidden=16)
        SIREN(
          2, 1
          (output): Linear(in_features=16, out_features=1, bias=True)
          (sines): ModuleList(
            (0): Linear(in_features=2, out_features=16, bias=True)
            (1): Linear(in_features=16, out_features=16, bias=True)
          )
        )
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int_at_least("seed", seed, 0))
        return _build(name, ndim, out_features, hidden, scale)


def parameters(name: str, ndim: int, out_features: int, hidden: int) -> int:
    """Return how many parameters a network of this width has.

    Examples:
        >>> parameters("magnet", 2, 1, 32), parameters("siren", 2, 1, 32)
        (4097, 1185)
    """
    network = _build(name, ndim, out_features, hidden, 1.0, device="meta")
    return sum(parameter.numel() for parameter in network.parameters())


def width_for(name: str, ndim: int, out_features: int, count: int) -> int:
    """Return the width with which a network comes nearest to a number of parameters.

    Examples:
        >>> width_for("siren", 2, 1, 4097), parameters("siren", 2, 1, 62)
        (62, 4155)
    """
    positive_int("count", count)

    def size(hidden: int) -> int:
        return parameters(name, ndim, out_features, hidden)

    wider = 1 + bisect_left(range(1, WIDEST), count, key=size)
    return min((max(1, wider - 1), wider), key=lambda hidden: abs(size(hidden) - count))


def _build(
    name: str, ndim: int, out_features: int, hidden: int, scale: float, **factory: Any
) -> ContinuousKernel:
    contender = NETWORKS[one_of("network", name, tuple(NETWORKS))]
    positive_int("hidden", hidden)
    number("scale", scale, above=0)
    if contender.make is MLP:
        return MLP(ndim, out_features, hidden=(hidden, hidden), **factory)
    options = {} if contender.frequency is None else {contender.frequency: contender.usual * scale}
    return contender.make(ndim, out_features, hidden=hidden, **options, **factory)
