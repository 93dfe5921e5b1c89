"""Learned strides in the place of fixed ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from sizeless._example import evaluating, tensors_in
from sizeless._validate import one_of
from sizeless.nn import DiffStride1d, DiffStride2d, DiffStride3d, DiffStrideNd
from sizeless.surgery.flow import meetings
from sizeless.surgery.parts import (
    COMPUTED,
    MAX_POOLS,
    NOT_CALLED,
    SUBCLASS,
    UNBATCHED,
    int_axes,
    macs_of,
    padding_layer,
    parameters_of,
    plain_convolution,
    put,
    take_hooks,
)
from sizeless.surgery.report import Change, listed
from sizeless.surgery.tracing import Call, Trace

STRIDES: dict[int, type[DiffStrideNd]] = {1: DiffStride1d, 2: DiffStride2d, 3: DiffStride3d}
CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
AVERAGE_POOLS: dict[type[nn.Module], int] = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
BLUR_POOLS = {"BlurPool": 2, "BlurPool1D": 1, "BlurPool2D": 2, "BlurPool2d": 2, "BlurPool3D": 3}
"""Names of the classes in timm, kornia and antialiased-cnns that blur and stride."""

ORDERS = ("conv", "pool")
"""What comes first in the place of a strided convolution."""

TRIED = (1.0, 0.8, 1.25, 1.6)
"""Factors of a stride at which a network is run, to see whether it bears other sizes of maps."""


def stride_of(layer: nn.Module) -> tuple[int, ...]:
    """The stride of a layer that shrinks maps, ``()`` for one that does not."""
    ndim = BLUR_POOLS.get(type(layer).__name__)
    for kind, dimensions in {**CONVOLUTIONS, **MAX_POOLS, **AVERAGE_POOLS}.items():
        if isinstance(layer, kind):
            ndim = dimensions
    stride = getattr(layer, "stride", None)
    if ndim is None or stride is None:
        return ()
    strides = int_axes(stride, ndim)
    return strides if max(strides) > 1 else ()


def why_not(layer: Any, calls: Sequence[Call]) -> str:
    """Return why a layer's stride cannot be learned, or ``""``.

    Args:
        layer: A layer that shrinks maps.
        calls: Its calls.
    """
    kind, ndim = type(layer), len(stride_of(layer))
    known = {**CONVOLUTIONS, **MAX_POOLS, **AVERAGE_POOLS}
    if kind not in known and kind.__name__ not in BLUR_POOLS:
        return SUBCLASS.format(kind.__name__)
    if kind in CONVOLUTIONS and layer._parameters.get("weight") is None:
        return COMPUTED
    if kind in MAX_POOLS and (layer.return_indices or max(int_axes(layer.dilation, ndim)) > 1):
        return "it returns indices or is dilated"
    if not calls:
        return NOT_CALLED
    return UNBATCHED if any(len(call.input) != ndim + 2 for call in calls) else ""


class Strides:
    """Replaces strides in a model by learned ones, group by group.

    Args:
        model: The model, which is changed in place.
        arguments: Its positional arguments.
        wanted: The layers whose strides are to be learned, with the options of each.
        reasons: Other layers that shrink maps, and why they keep their strides.

    Attributes:
        new: What is in the place of each layer.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: tuple[Any, ...],
        wanted: Mapping[nn.Module, Any],
        reasons: Mapping[nn.Module, str],
    ) -> None:
        self.model, self.arguments, self.wanted = model, arguments, wanted
        self.paths: dict[nn.Module, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(module, []).append(path)
        self.reasons = dict(reasons)
        self.new: dict[nn.Module, nn.Module] = {}

    def replace(self) -> nn.Module:
        """Replace what can be, and return the model."""
        neutral = {
            module
            for module in self.model.modules()
            if type(module) in CONVOLUTIONS and not stride_of(module)
        }
        found = meetings(self.model, self.arguments, set(self.wanted), neutral)
        groups = found.groups()
        self.reasons.update(found.kept)
        shapes = self._output_shapes()
        # The last first: layers that round sizes as they like stand none but those they know.
        for group in reversed(groups):
            stride = self._make(group)
            if stride is None:
                continue
            self._put(group)
            error = self._fails(stride, shapes)
            for layer in group if error else ():
                self.reasons[layer] = f"the network does not take other strides there: {error}"
                self._set(layer, layer)
                del self.new[layer]
        return self.model

    def known_as(self) -> dict[nn.Module, str]:
        """Paths that the modules in the place of layers had in the model before."""
        return {
            part: self.paths[layer][0] for layer, new in self.new.items() for part in new.modules()
        }

    def _make(self, group: Sequence[nn.Module]) -> DiffStrideNd | None:
        """One stride for a group of layers, and what it makes of each."""
        strides = {stride_of(layer) for layer in group}
        if len(strides) > 1:
            for layer in group:
                self.reasons[layer] = f"branches that meet have different strides {sorted(strides)}"
            return None
        axes = strides.pop()
        options = self._options_of(group)
        first = one_of("first", options.pop("first", ORDERS[0]), ORDERS)
        near = next(chain(group[0].parameters(), self.model.parameters()), torch.empty(0))
        stride = STRIDES[len(axes)](
            tuple(map(float, axes)),
            device=near.device,
            dtype=near.dtype if near.is_floating_point() else None,
            **{"size_rule": "exact", **options},
        )
        for layer in group:
            self.new[layer] = _with_stride(layer, stride, first)
        return stride

    def _options_of(self, group: Sequence[nn.Module]) -> dict[str, Any]:
        """What is said about any layer of a group."""
        said: dict[str, Any] = {}
        for layer in group:
            for name, value in self.wanted[layer].items():
                if said.setdefault(name, value) != value:
                    paths = ", ".join(self.paths[member][0] for member in group)
                    raise ValueError(
                        f"rules must agree about {paths}, which share one stride: got "
                        f"{name}={said[name]!r} and {name}={value!r}"
                    )
        return said

    def _put(self, group: Sequence[nn.Module]) -> None:
        for layer in group:
            take_hooks(self.new[layer], layer)
            self._set(layer, self.new[layer].train(layer.training))

    def _set(self, layer: nn.Module, new: nn.Module) -> None:
        for path in self.paths[layer]:
            self.model = put(self.model, path, new)

    def _output_shapes(self) -> list[tuple[int, ...]]:
        """Number of axes, samples and channels of all that the model returns."""
        with evaluating(self.model), torch.no_grad():
            output = self.model(*self.arguments)
        return [(tensor.dim(), *tensor.shape[:2]) for tensor in tensors_in(output)]

    def _fails(self, stride: DiffStrideNd, shapes: list[tuple[int, ...]]) -> str:
        """What goes wrong when a stride is another; ``""`` if nothing does."""
        for factor in TRIED:
            with _scaled(stride, factor):
                try:
                    now = self._output_shapes()
                except Exception as error:
                    said = " ".join(str(error).split())[:120]
                    return f"{type(error).__name__}: {said}" if said else type(error).__name__
            if now != shapes:
                return "the output would have another number of axes, samples or channels"
        return ""


def changes(strides: Strides, before: Trace, after: Trace) -> Iterator[Change]:
    """What became of the layers whose strides were to be learned."""
    for layer in strides.paths:
        if layer not in strides.wanted and layer not in strides.reasons:
            continue
        size, macs = stride_of(layer), macs_of(layer, before.calls.get(layer, []))
        change = Change(
            name=strides.paths[layer][0],
            before=type(layer).__name__,
            size_before=size,
            size_after=size,
            parameters_before=parameters_of(layer),
            parameters_after=parameters_of(layer),
            macs_before=macs,
            macs_after=macs,
            reason=strides.reasons.get(layer, ""),
        )
        if layer in strides.new:
            change = _changed(change, strides, layer, after)
        yield change


def _changed(change: Change, strides: Strides, layer: nn.Module, after: Trace) -> Change:
    new = strides.new[layer]
    stride = _stride_in(new)
    together = [
        strides.paths[other][0]
        for other, its in strides.new.items()
        if other is not layer and _stride_in(its) is stride
    ]
    return replace(
        change,
        after=" + ".join(type(part).__name__ for part in new.children()),
        size_after=stride.stride,
        parameters_after=parameters_of(new),
        macs_after=sum(macs_of(part, after.calls.get(part, [])) for part in new.children()),
        reason=f"one stride with {listed(together, most=1)}" if together else "",
    )


def _stride_in(new: nn.Module) -> DiffStrideNd:
    return next(part for part in new.modules() if isinstance(part, DiffStrideNd))


@contextmanager
def _scaled(stride: DiffStrideNd, factor: float) -> Iterator[None]:
    kept = stride.log2_stride.detach().clone()
    with torch.no_grad():
        stride.log2_stride.add_(math.log2(factor))
    try:
        yield
    finally:
        with torch.no_grad():
            stride.log2_stride.copy_(kept)
        stride.refresh_size()


def _with_stride(layer: Any, stride: DiffStrideNd, first: str) -> nn.Module:
    """A layer at every position, and the learned stride after it; or a convolution after it.

    Every map keeps its size up to the stride, so that branches that meet agree at any stride.
    """
    kind = type(layer)
    if kind in AVERAGE_POOLS or kind.__name__ in BLUR_POOLS:
        # The stride has a low-pass filter of its own.
        return nn.Sequential(stride)
    ndim, is_conv = stride.ndim, kind in CONVOLUTIONS
    taps = int_axes(layer.kernel_size, ndim)
    if is_conv and max(taps) == 1:
        return nn.Sequential(stride, plain_convolution(layer, stride=1, padding=0))
    spacing = layer.dilation if is_conv else (1,) * ndim
    own = (0,) * ndim if isinstance(layer.padding, str) else int_axes(layer.padding, ndim)
    reach = [d * (k - 1) for d, k in zip(spacing, taps, strict=True)]
    amounts = [(min(p, r), r - min(p, r)) for p, r in zip(own, reach, strict=True)]
    steps: list[nn.Module] = []
    sides, mode = tuple(before for before, _ in amounts), layer.padding_mode if is_conv else "zeros"
    if any(before != after for before, after in amounts):
        # No layer of torch pads its two sides differently.
        steps.append(padding_layer(amounts, mode, 0.0 if is_conv else -math.inf))
        sides, mode = (0,) * ndim, "zeros"
    if is_conv:
        steps.append(plain_convolution(layer, stride=1, padding=sides, padding_mode=mode))
    else:
        steps.append(kind(layer.kernel_size, 1, sides))
    pool_first = first == "pool" and is_conv
    return nn.Sequential(stride, *steps) if pool_first else nn.Sequential(*steps, stride)
