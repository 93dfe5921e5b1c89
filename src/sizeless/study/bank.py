"""The kernels of a network, in space, with what is needed to measure them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sizeless._example import arguments_of
from sizeless._validate import module as check_module
from sizeless._validate import positive_int
from sizeless.nn import FlexConvNd, NIFFConvNd
from sizeless.surgery.tracing import trace

Kind = Literal["NIFF", "FlexConv", "convolution"]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MOST = 512
"""Kernels of a layer that are measured, unless asked for otherwise."""


@dataclass(frozen=True)
class LayerKernels:
    """Kernels of one layer, as it correlates its input with them.

    Attributes:
        name: Path of the layer in the network.
        layer: Name of its class.
        kind: ``"NIFF"``, ``"FlexConv"`` or ``"convolution"``.
        stage: Which of the map sizes of the network it sees, the first being 1.
        kernels: ``(count, *size)``, float32; taps of a dilated kernel lie apart, with zeros
            between.
        total: Kernels that the layer has; ``count`` of them were drawn, evenly.
        origin: Index of the tap that meets the present position, per axis; half-integer for
            kernels of even size.
        map_size: Spatial size of the map that the layer sees.
        stride: Stride of the layer, per axis.
        causal: Whether the origin is the newest of the taps, and all others lie in the past.
        unused: Share of the energy of what was generated that cannot act: of a NIFF, what is not
            Hermitian; of a FlexConv, what the crop cuts off. ``None`` for a plain kernel.
    """

    name: str
    layer: str
    kind: Kind
    stage: int
    kernels: np.ndarray
    total: int
    origin: tuple[float, ...]
    map_size: tuple[int, ...]
    stride: tuple[int, ...]
    causal: bool = False
    unused: float | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(self.kernels.shape[1:])

    def taps(self) -> tuple[np.ndarray, ...]:
        """Position of the taps of each axis relative to the origin, in samples."""
        axes = zip(self.size, self.origin, strict=True)
        return tuple(np.arange(n) - origin for n, origin in axes)


@torch.no_grad()
def layer_kernels(
    model: nn.Module, example_input: Tensor | tuple[Any, ...], *, most: int = MOST
) -> list[LayerKernels]:
    """Return the kernels of every layer that has any larger than one tap, in the order of modules.

    Frequency filters are rendered in space at the size of the map that they see in a forward pass,
    and turned round, as they convolve where other layers correlate. A layer that is called several
    times counts with its first call.

    Args:
        model: Any network.
        example_input: Input tensor, or a tuple of all positional arguments.
        most: Kernels per layer that are taken; of more, as many are drawn (always the same ones).

    Raises:
        TypeError: If ``model`` is no module or ``example_input`` neither tensor nor tuple.
        ValueError: If the network called no layer with a kernel, or has weights on the meta device,
            without values.

    Examples:
        >>> import sizeless, torch
        >>> bank = layer_kernels(sizeless.NIFFConv2d(4, 4, groups=4), torch.randn(1, 4, 14, 14))
        >>> bank[0].kind, bank[0].kernels.shape, bank[0].origin
        ('NIFF', (4, 14, 14), (6, 6))
    """
    check_module("model", model)
    positive_int("most", most)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(
            f"model {type(model).__name__} has weights on the meta device, which hold no values to "
            "measure: give it values with to_empty(device=...) and load_state_dict(...)"
        )
    calls = trace(model, arguments_of(example_input)).calls
    found, maps = [], list[tuple[int, ...]]()
    for name, module in model.named_modules():
        if module not in calls or not has_kernels(module):
            continue
        ndim = len(_reach(module))
        map_size = calls[module][0].input[-ndim:]
        if map_size not in maps:
            maps.append(map_size)
        found.append(_bank(name, module, map_size, maps.index(map_size) + 1, most))
    if not found:
        raise ValueError(
            f"model {type(model).__name__} called no layer with a kernel larger than one tap: "
            "convolutions, FlexConv or NIFF layers"
        )
    return found


def has_kernels(module: nn.Module) -> bool:
    """Return whether a module is a layer with a kernel of more than one tap."""
    if isinstance(module, CONVOLUTIONS):
        return math.prod(module.kernel_size) > 1
    return isinstance(module, (FlexConvNd, NIFFConvNd))


def _reach(module: Any) -> tuple[int, ...]:
    """One entry per axis of the layer."""
    if isinstance(module, NIFFConvNd):
        return (0,) * module.ndim
    sizes: tuple[int, ...] = module.kernel_size
    return sizes


def _bank(name: str, module: Any, map_size: tuple[int, ...], stage: int, most: int) -> LayerKernels:
    common: dict[str, Any] = {
        "name": name,
        "layer": type(module).__name__,
        "stage": stage,
        "map_size": map_size,
    }
    if isinstance(module, NIFFConvNd):
        kernel = module.spatial_kernel(map_size).flatten(0, 1)
        turned = kernel.flip(tuple(range(1, kernel.dim())))
        return LayerKernels(
            **common,
            kind="NIFF",
            kernels=_some(turned, most),
            total=len(kernel),
            origin=tuple(n - 1 - n // 2 for n in map_size),
            stride=(1,) * module.ndim,
            unused=_unused_by_niff(module, map_size),
        )
    if isinstance(module, FlexConvNd):
        kernel = _dilated(module.weight.flatten(0, 1), module.dilation)
        ends = kernel.shape[1:] if module.causal else [(n + 1) / 2 for n in kernel.shape[1:]]
        return LayerKernels(
            **common,
            kind="FlexConv",
            kernels=_some(kernel, most),
            total=len(kernel),
            origin=tuple(end - 1 for end in ends),
            stride=module.stride,
            causal=module.causal,
            unused=module.cropped_energy(),
        )
    kernel = _dilated(module.weight.flatten(0, 1), module.dilation)
    return LayerKernels(
        **common,
        kind="convolution",
        kernels=_some(kernel, most),
        total=len(kernel),
        origin=tuple((n - 1) / 2 for n in kernel.shape[1:]),
        stride=tuple(module.stride),
    )


def _some(kernels: Tensor, most: int) -> np.ndarray:
    """At most so many of the kernels, drawn without a rhythm that could meet that of channels."""
    if len(kernels) > most:
        drawn = np.random.default_rng(0).choice(len(kernels), most, replace=False)
        kernels = kernels[torch.from_numpy(np.sort(drawn)).to(kernels.device)]
    return kernels.detach().float().cpu().numpy()


def _dilated(kernels: Tensor, dilation: tuple[int, ...]) -> Tensor:
    if max(dilation) == 1:
        return kernels
    pairs = list(zip(kernels.shape[1:], dilation, strict=True))
    spread = kernels.new_zeros(len(kernels), *((n - 1) * step + 1 for n, step in pairs))
    spread[(slice(None), *(slice(None, None, step) for _, step in pairs))] = kernels
    return spread


def _unused_by_niff(module: NIFFConvNd, map_size: tuple[int, ...]) -> float:
    """Share of the energy of a filter's spectrum that is not Hermitian: no real map feels it."""
    points = module.frequencies(map_size)
    axes = tuple(range(len(map_size)))
    total = kept = 0.0
    for network, sign in ((module.real, 1.0), (module.imag, -1.0)):
        values = network(points).double()
        mirrored = values.flip(axes).roll((1,) * len(axes), axes)
        total += float(values.square().sum())
        kept += float((0.5 * (values + sign * mirrored)).square().sum())
    return 1.0 - kept / total if total > 0 else 0.0
