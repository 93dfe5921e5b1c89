"""Which positions the layers and functions that look at neighbours put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sizeless.compat import OfficialDiffStride2d, OfficialFullNIFF2d, OfficialSpectralPool2d
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd, SpectralPoolNd
from sizeless.study.fields.reach import Shape, Window, covering

Windows = dict[int, Window]
"""The window of each axis of a tensor; the others are left alone."""

LEARNED_STRIDES = (DiffStrideNd, OfficialDiffStride2d)
SPECTRAL = (*LEARNED_STRIDES, SpectralPoolNd, OfficialSpectralPool2d)
GLOBAL = (NIFFConvNd, OfficialFullNIFF2d)
OPAQUE = (FlexConvNd, *GLOBAL, *SPECTRAL)
"""Layers whose windows are known from their sizes; what they compute inside is not followed."""


@dataclass(frozen=True)
class Call:
    """One call of a function.

    Attributes:
        name: Name of the function.
        args: Its arguments.
        kwargs: Those given by name.
        output: What it returned.
        shape: Shape of its first argument before the call.
        place: Where it was, in words.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    shape: Shape
    place: str

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """The argument at a place, or of a name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    @property
    def input(self) -> Any:
        """The first argument."""
        return self.get(0, "input")

    def axes(self, ndim: int) -> range:
        """The last axes of the input."""
        return range(len(self.shape) - ndim, len(self.shape))


def spread(value: Any, ndim: int) -> tuple[Any, ...]:
    """One value per axis."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * ndim if len(values) == 1 else values


def _tapped(
    axes: Sequence[int], taps: Sequence[int], stride: Any, padding: Any, dilation: Any
) -> Windows:
    """Windows of what slides over a map, with as much ``padding`` before its start."""
    values = (spread(value, len(axes)) for value in (stride, padding, dilation))
    rows = zip(axes, taps, *values, strict=True)
    return {axis: Window(s, -p, d * (k - 1) - p, k, d) for axis, k, s, p, d in rows}


def convolution(call: Call) -> Windows:
    """Windows of ``conv1d``, ``conv2d`` and ``conv3d``."""
    taps = tuple(call.get(1, "weight").shape[2:])
    padding, dilation = call.get(4, "padding", 0), call.get(5, "dilation", 1)
    if isinstance(padding, str):
        pairs = zip(taps, spread(dilation, len(taps)), strict=True)
        padding = tuple(d * (k - 1) // 2 if padding == "same" else 0 for k, d in pairs)
    return _tapped(call.axes(len(taps)), taps, call.get(3, "stride", 1), padding, dilation)


def transposed(call: Call) -> Windows:
    """Windows of ``conv_transpose1d`` and its kin: several for each phase of the stride."""
    taps = tuple(call.get(1, "weight").shape[2:])
    places = ((3, "stride", 1), (4, "padding", 0), (7, "dilation", 1))
    values = (spread(call.get(*place), len(taps)) for place in places)
    windows = {}
    for axis, k, s, p, d in zip(call.axes(len(taps)), taps, *values, strict=True):
        spans = [(-((d * (k - 1) - p - q) // s), (q + p) // s) for q in range(s)]
        window = covering(spans, 1 / s)
        windows[axis] = Window(window.step, window.first, window.last, k, d)
    return windows


def pool(call: Call) -> Windows:
    """Windows of ``max_pool1d``, ``avg_pool1d``, ``lp_pool1d`` and their kin."""
    ndim = _ndim(call.name)
    shift = call.name.startswith("lp_")
    taps = spread(call.get(1 + shift, "kernel_size"), ndim)
    stride = call.get(2 + shift, "stride") or taps
    padding = 0 if shift else call.get(3, "padding", 0)
    dilation = call.get(4, "dilation", 1) if call.name.startswith("max_") else 1
    return _tapped(call.axes(ndim), taps, stride, padding, dilation)


def adaptive(call: Call) -> Windows:
    """Windows of ``adaptive_avg_pool1d`` and its kin, as wide as the widest of each axis."""
    pairs = zip(*_resized(call, _ndim(call.name)), strict=True)
    return {axis: _shared(call.shape[axis], m) for axis, m in pairs}


def _ndim(name: str) -> int:
    """The number of axes in the name of a function."""
    return next(n for n in (1, 2, 3) if f"{n}d" in name)


def _resized(call: Call, ndim: int) -> tuple[range, Shape]:
    """The last axes of the input, and the sizes of the output along them."""
    output = call.output[0] if isinstance(call.output, tuple) else call.output
    return call.axes(ndim), tuple(output.shape[-ndim:])


def _shared(n: int, m: int) -> Window:
    """The window of ``m`` outputs that share ``n`` positions evenly."""
    return covering([(q * n // m, -((q + 1) * -n // m) - 1) for q in range(m)], n / m)


def interpolation(call: Call) -> Windows:
    """Windows of ``interpolate``."""
    ndim = len(call.shape) - 2
    mode, aligned = call.get(3, "mode", "nearest"), call.get(4, "align_corners")
    scales = spread(call.get(2, "scale_factor"), ndim)
    smooth = call.get(6, "antialias", False)
    if call.get(5, "recompute_scale_factor"):
        scales = (None,) * ndim
    windows = {}
    for axis, m, scale in zip(*_resized(call, ndim), scales, strict=True):
        n = call.shape[axis]
        if mode == "area":
            windows[axis] = _shared(n, m)
        elif aligned:
            step = (n - 1) / max(m - 1, 1)
            windows[axis] = _sampled(m, step, 0.0, mode, smooth)
        else:
            step = n / m if scale is None else 1 / scale
            shift = 0.0 if mode == "nearest" else 0.5 * step - 0.5
            windows[axis] = _sampled(m, step, shift, mode, smooth)
    return windows


def _sampled(m: int, step: float, shift: float, mode: str, smooth: bool) -> Window:
    """The window of ``m`` samples at ``step * p + shift``, interpolated from their neighbours."""
    places = [step * p + shift for p in range(m)]
    if mode == "nearest":
        spans = [(math.floor(x), math.floor(x)) for x in places]
    elif mode == "nearest-exact":
        spans = [(math.floor(x + 0.5), math.floor(x + 0.5)) for x in places]
    else:
        half = (2.0 if mode == "bicubic" else 1.0) * (max(step, 1.0) if smooth else 1.0)
        # At this distance a neighbour counts for nothing.
        spans = [(math.floor(x - half) + 1, math.ceil(x + half) - 1) for x in places]
    return covering(spans, step)


def shuffled(call: Call) -> Windows:
    """Windows of ``pixel_shuffle`` and ``pixel_unshuffle``."""
    if call.name == "pixel_shuffle":
        factor = call.get(1, "upscale_factor")
        window = covering([(p // factor, p // factor) for p in range(factor)], 1 / factor)
    else:
        factor = call.get(1, "downscale_factor")
        window = Window(factor, 0, factor - 1, factor)
    return dict.fromkeys(call.axes(2), window)


def padded(call: Call) -> Windows:
    """Windows of ``pad``: positions begin earlier."""
    pairs = call.get(1, "pad")
    last = len(call.shape) - 1
    before = pairs[::2]
    return {last - i: Window(1, -p, -p) for i, p in enumerate(before) if p}


WINDOWS: dict[str, tuple[str, Callable[[Call], Windows]]] = {
    "pad": ("", padded),
    "interpolate": ("resize", interpolation),
    "pixel_shuffle": ("resize", shuffled),
    "pixel_unshuffle": ("resize", shuffled),
}
"""What is said of a function, or nothing where it is no layer, and its windows."""
for _n in (1, 2, 3):
    WINDOWS[f"conv{_n}d"] = ("convolution", convolution)
    WINDOWS[f"conv_transpose{_n}d"] = ("transposed convolution", transposed)
    for _name in ("max_pool", "avg_pool", "lp_pool"):
        WINDOWS[f"{_name}{_n}d"] = ("pool", pool)
    WINDOWS[f"max_pool{_n}d_with_indices"] = ("pool", pool)
    for _name in ("avg", "max"):
        WINDOWS[f"adaptive_{_name}_pool{_n}d"] = ("pool", adaptive)
    WINDOWS[f"adaptive_max_pool{_n}d_with_indices"] = ("pool", adaptive)


def kind_of(module: nn.Module) -> str:
    """What is said of a layer of ``OPAQUE``."""
    if isinstance(module, FlexConvNd):
        return "FlexConv"
    if isinstance(module, GLOBAL):
        return "NIFF"
    return "DiffStride" if isinstance(module, LEARNED_STRIDES) else "SpectralPool"


def layer_windows(module: Any, before: Shape, after: Shape) -> tuple[Windows, str]:
    """Windows of a layer of ``OPAQUE`` at its present size, and a remark.

    A low-pass filter reaches over the whole map. What counts is the main lobe of an ideal one of
    the same cutoff: all samples nearer than half a period of the cutoff frequency.
    """
    axes = range(2, len(before))
    if isinstance(module, FlexConvNd):
        return _tapped(axes, module.size, module.stride, _before(module), module.dilation), ""
    windows, reaches = {}, []
    for axis, cutoff in zip(axes, _cutoffs(module, before, after), strict=True):
        n, m = before[axis], after[axis]
        reach = math.ceil(n / (2 * cutoff) - 1e-4) - 1
        windows[axis] = Window(n / m, -reach, reach, 2 * reach + 1)
        reaches.append(reach)
    shown = ", ".join(map(str, dict.fromkeys(reaches)))
    return windows, f"low-pass filter counted to {shown} samples on each side, its main lobe"


def _before(module: FlexConvNd) -> tuple[int, ...]:
    """Positions before the start of the map with which the first output begins."""
    axes = list(zip(module.size, module.kernel_size, module.dilation, strict=True))
    if module.causal:
        return tuple(d * (now - 1) for now, _, d in axes)
    if isinstance(module.padding, str):
        return tuple(d * (now - 1) // 2 for now, _, d in axes)
    pairs = zip(module.padding, axes, strict=True)
    return tuple(p - d * (largest - now) // 2 for p, (now, largest, d) in pairs)


def _cutoffs(module: Any, before: Shape, after: Shape) -> list[float]:
    """Where the low-pass filter of each axis lets half pass, in cycles per map."""
    pairs = list(zip(before[2:], after[2:], strict=True))
    if not isinstance(module, DiffStrideNd):
        return [min(n, m) / 2 for n, m in pairs]
    cutoffs = []
    for (n, _), stride in zip(pairs, module.stride, strict=True):
        edge = n / (2 * min(stride, max(n / 2, 1.0)))
        if module.size_rule == "paper":
            cutoff = edge + module.smoothness / 2
        else:
            cutoff = edge - max(float(module.transition or 0.0) * edge, 1.0) / 2
        cutoffs.append(min(max(cutoff, 0.5), n / 2))
    return cutoffs
