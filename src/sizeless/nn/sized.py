"""What every layer with a learned size has in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sizeless._precision import at_least_float32, keeping_precision
from sizeless._validate import floating_dtype


@dataclass(frozen=True)
class Size:
    """What a layer has learned about its size; one entry per axis in every tuple.

    Attributes:
        kind: ``"kernel size"`` (taps), ``"filter extent"`` (samples of the map) or ``"stride"``.
        size: Taps, samples or stride at present; empty where no map has been seen yet.
        window: Width (standard deviation) of the window in taps, or ``None``.
        center: Centre of the window in taps from the middle tap (causal: from the newest), or
            ``None``.
        limits: Smallest and largest size that training can reach, ``(low, high)`` per axis;
            ``high`` is ``inf`` where only the map limits it.
        cost: Multiply-accumulates per output position and sample (kernels), or output positions
            per input position (strides).
    """

    kind: str
    size: tuple[int, ...] | tuple[float, ...]
    window: tuple[float, ...] | None
    center: tuple[float, ...] | None
    limits: tuple[tuple[float, float], ...]
    cost: float


class SizeParameters(nn.Module):
    """Module whose own parameters are sizes.

    They stay in float32 or better when the module is cast to half precision: bfloat16 resolves
    1/256 at a size of 1, and rounding would make integer sizes jump.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SizeParameters:
        super()._apply(keeping_precision(fn), recurse)
        return self

    def size_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that are sizes."""
        yield from self.parameters(recurse=False)

    def project_(self) -> None:
        """Move every size back to its nearest limit, in place.

        A forward pass never writes to a parameter: it uses the limit and lets the gradient
        through. Call this after an optimiser step, and a size that leans against a limit does not
        drift beyond it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define project_()")


def size_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Dtype of size parameters in a layer of ``dtype``: float32 or better."""
    floating_dtype(dtype)
    return at_least_float32(dtype)


def read_floats(parameter: Tensor, name: str) -> list[float]:
    """Copy a size parameter to the host, and refuse NaN.

    Raises:
        ValueError: If a value is NaN.
    """
    return refuse_nan(parameter.detach().tolist(), name)


def refuse_nan(values: list[float], name: str) -> list[float]:
    """Return ``values`` of a size parameter if none of them is NaN.

    Raises:
        ValueError: If a value is NaN.
    """
    if any(map(math.isnan, values)):
        raise ValueError(
            f"{name} is {values}: a size became NaN, most likely because the loss did. Lower the "
            "learning rate of the sizes or clip gradients, and load an earlier checkpoint"
        )
    return values


def shown_size(read: Callable[[], tuple[float, ...]]) -> str:
    """Sizes as text, for ``repr``, which must not fail where they became NaN."""
    try:
        return str(tuple(round(size, 2) for size in read()))
    except ValueError:
        return "nan"


def sizes_are_readable(parameter: Tensor) -> bool:
    """Return whether integer sizes may be read from ``parameter`` now.

    Not while a compiler traces (sizes are constants of the graph) and not on the meta device.
    """
    return not (torch.compiler.is_compiling() or parameter.is_meta)
