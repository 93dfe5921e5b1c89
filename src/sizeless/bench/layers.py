"""The suite ``layers``: every layer against what its paper's program does, and against torch."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sizeless
from sizeless.bench import convolution, literal
from sizeless.bench.builds import against, flexconv1d, flexconv2d, layer_case, niffconv2d
from sizeless.bench.case import (
    MODES,
    OURS,
    Case,
    Contender,
    Step,
    Transforms,
    Work,
    make_module_run,
)
from sizeless.bench.grid import Point
from sizeless.bench.in_use import cached_cases, compiled_cases
from sizeless.bench.rows import by
from sizeless.functional import good_length, resample
from sizeless.models import niff_backbone

BASIS = 33
"""Functions of space that all kernels of a FlexConv share: 32 of its network, and a constant."""

SPEED_UPS = {5: 1.2, 13: 4.0, 25: 30.0, 33: 50.0}
"""For FlexConv2d: at least so many times faster than render-then-convolve, by learned size."""


def depthwise_cases(quick: bool, device: str) -> Iterator[Case]:
    """Depthwise convolution against ``nn.Conv2d``."""
    for kernel, speed_up in ((15, 8.0), (31, 20.0)):
        point = Point(2, "depthwise", 1 if quick else 8, 16 if quick else 64, 56, kernel)
        names = (OURS, "torch", convolution.KEPT, convolution.LIMIT)
        case = convolution.case_of(point, "training", device, names)
        ours, torch_direct, *others = case.contenders
        torch_direct = replace(torch_direct, bar=None if quick else 1 / speed_up)
        yield replace(
            case,
            suite="layers",
            kind="depthwise",
            name=f"depthwise {by(point.input_shape)} k{kernel}",
            contenders=(ours, torch_direct, *others),
        )


def flexconv_cases(quick: bool, device: str) -> Iterator[Case]:
    """FlexConv2d against rendering the kernel and convolving with it."""
    shape = (4, 24, 32, 32) if quick else (64, 24, 32, 32)
    for size, speed_up in SPEED_UPS.items():
        name = f"FlexConv2d {by(shape)} size {size} of 33"
        for mode in MODES:
            bar = None if quick or mode == "forward" else 1 / speed_up
            builds = [partial(flexconv2d, size, textbook, shape, 33) for textbook in (False, True)]
            contenders = against(builds[0], {"render, conv2d": builds[1]}, mode, device, bar=bar)
            contenders.append(_flexconv_limit(shape, (size,) * 2, mode, device))
            work = Point(2, "dense", shape[0], shape[1], shape[2], size).work(mode)
            yield layer_case("FlexConv", name, mode, shape, *contenders, kernel=size, work=work)


def causal_flexconv_cases(quick: bool, device: str) -> Iterator[Case]:
    """Causal FlexConv against the FFT of all rendered kernels."""
    batch, channels, length = (2, 30, 1000) if quick else (8, 30, 16000)
    shape = (batch, channels, length)
    for size in (round(0.08 * length), length):
        name = f"FlexConv1d causal {by(shape)} size {size} of {length}"
        builds = [partial(flexconv1d, size, textbook, shape) for textbook in (False, True)]
        for mode in MODES:
            wanted = size == length and mode == "training" and not quick
            contenders = against(
                builds[0],
                {"render, FFT of all kernels": builds[1]},
                mode,
                device,
                bar=1 / 3 if wanted else None,
                memory_bar=0.5 if wanted else None,
            )
            contenders.append(_flexconv_limit(shape, (size,), mode, device))
            work = Point(1, "dense", batch, channels, length, size).work(mode)
            taps = sum(min(position + 1, size) for position in range(length))
            times = 3 if mode == "training" else 1
            work = replace(work, flops=2.0 * times * batch * channels**2 * taps)
            yield layer_case("FlexConv", name, mode, shape, *contenders, kernel=size, work=work)


def _flexconv_limit(
    shape: tuple[int, ...], size: tuple[int, ...], mode: str, device: str
) -> Contender:
    """Transforms of input and output and of the basis functions, not of all kernels.

    Evaluation needs none of the basis: the kernels are the same in every run.
    """
    reach = [k - 1 if len(size) == 1 else k // 2 for k in size]
    lengths = tuple(good_length(n + r) for n, r in zip(shape[2:], reach, strict=True))
    signals, spectra = [shape], [shape]
    if mode == "training":
        basis = (1, BASIS, *size)
        signals, spectra = [shape, basis, shape], [shape, shape, basis]
    make = partial(Transforms, signals, spectra, lengths, device)
    return Contender(convolution.LIMIT, "limit", make, in_fork=False)


def niff_cases(quick: bool, device: str) -> Iterator[Case]:
    """NIFF against full complex transforms."""
    shape = (2, 16, 56, 56) if quick else (8, 64, 56, 56)
    builds = [partial(niffconv2d, textbook, shape) for textbook in (False, True)]
    for mode in MODES:
        bar = None if quick or mode == "forward" else 1 / 3
        others = {"full complex spectra": builds[1]}
        contenders = against(builds[0], others, mode, device, bar=bar)
        maps = [shape] * (2 if mode == "training" else 1)
        make = partial(Transforms, maps, maps, shape[2:], device)
        contenders.append(Contender(convolution.LIMIT, "limit", make, in_fork=False))
        work = Work(4.0 * math.prod(shape) * (5 if mode == "training" else 2), math.inf)
        name = f"NIFFConv2d depthwise {by(shape)}"
        yield layer_case("NIFF", name, mode, shape, *contenders, kernel=shape[2], work=work)


def pooled_niffconv2d(in_turn: bool, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """Build a depthwise NIFFConv2d with a DiffStride2d of stride 2 behind it, and an input."""
    layer = sizeless.PooledNIFFConv2d(shape[1], shape[1], groups=shape[1])
    return (nn.Sequential(layer.conv, layer.pool) if in_turn else layer), torch.randn(shape)


def pooled_niff_cases(quick: bool, device: str) -> Iterator[Case]:
    """NIFF and a stride in one step against one after the other."""
    for channels, side in ((128, 28), (64, 32), (64, 56)):
        shape = (2, 8, side, side) if quick else (8, channels, side, side)
        half = (*shape[:2], side // 2, side // 2)
        builds = [partial(pooled_niffconv2d, in_turn, shape) for in_turn in (False, True)]
        for mode in MODES:
            others = {"one after the other": builds[1]}
            contenders = against(builds[0], others, mode, device)
            # Of the map, and back to its gradient; those of the output are smaller.
            back = [shape] if mode == "training" else []
            make = partial(Transforms, [shape], back, shape[2:], device)
            contenders.append(Contender(convolution.LIMIT, "limit", make, in_fork=False))
            moved = 4.0 * (math.prod(shape) + math.prod(half))
            work = Work(moved * (2.5 if mode == "training" else 1), math.inf)
            name = f"NIFFConv2d then DiffStride2d {by(shape)} to {by(half[2:])}"
            yield layer_case("NIFF", name, mode, shape, *contenders, kernel=side, work=work)


def torchvision_network(
    name: str, with_niff: bool, shape: tuple[int, ...]
) -> tuple[nn.Module, Tensor]:
    """Build a network of torchvision, or the paper's version of it with NIFF, and an input."""
    if with_niff:
        return niff_backbone(name), torch.randn(shape)
    models: Any = importlib.import_module("torchvision.models")
    return getattr(models, name)(), torch.randn(shape)


def network_cases(quick: bool, device: str) -> Iterator[Case]:
    """Networks with NIFF against their ordinary selves."""
    shape = (2, 3, 64, 64) if quick else (2, 3, 224, 224)
    missing = importlib.util.find_spec("torchvision") is None
    for name in ("resnet50", "convnext_tiny"):
        contenders = [
            Contender(
                label,
                role,
                None
                if missing
                else partial(
                    make_module_run,
                    partial(torchvision_network, name, with_niff, shape),
                    "training",
                    device,
                ),
                None if quick or role == "ours" else 1.1,
                status="not installed" if missing else "",
                note="pip install torchvision" if missing else "",
            )
            for label, role, with_niff in (
                (OURS, "ours", True),
                ("ordinary network", "baseline", False),
            )
        ]
        title = f"{name} with NIFF {by(shape)}"
        yield layer_case("NIFF", title, "training", shape, *contenders, counted=OURS)


def diffstride2d(textbook: bool, rule: str, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """Build a DiffStride2d of stride 2 and an input for it."""
    layer = sizeless.DiffStride2d(2.0, size_rule=rule)
    return (literal.LiteralDiffStride2d(layer) if textbook else layer), torch.randn(shape)


def diffstride_cases(quick: bool, device: str) -> Iterator[Case]:
    """DiffStride against the spectrum's mask and crop."""
    for batch, side, speed_up in ((16, 32, 2.5), (8, 56, 2.0), (8, 112, 1.3)):
        shape = (1, 8, side, side) if quick else (batch, 64, side, side)
        for rule in ("paper", "exact"):
            builds = [partial(diffstride2d, textbook, rule, shape) for textbook in (False, True)]
            out = sizeless.DiffStride2d(2.0, size_rule=rule).output_size((side, side))
            for mode in MODES:
                bar = None if quick or mode == "forward" else 1 / speed_up
                others = {"rfft2, mask, crop, irfft2": builds[1]}
                contenders = against(builds[0], others, mode, device, bar=bar)
                name = f"DiffStride2d {rule} {by(shape)} to {by(out)}"
                work = _resize_work(shape, out, mode)
                yield layer_case("DiffStride", name, mode, shape, *contenders, work=work)


def _resize_work(shape: tuple[int, ...], out: tuple[int, ...], mode: str) -> Work:
    times = 3 if mode == "training" else 1
    maps, (rows, columns) = math.prod(shape[:2]), shape[2:]
    flops = 2.0 * times * maps * (out[0] * rows * columns + out[0] * columns * out[1])
    moved = maps * (rows * columns + out[0] * out[1])
    return Work(4.0 * moved * (2.5 if mode == "training" else 1), flops)


def make_resize(
    ours: bool, shape: tuple[int, ...], out: tuple[int, ...], device: str
) -> Callable[[], object]:
    """Build the input of a resize to ``out`` and return its run."""
    input = torch.randn(shape, device=device)
    if ours:
        return Step(lambda: resample(input, out), (), "forward")
    bilinear = partial(F.interpolate, size=out, mode="bilinear", antialias=True)
    return Step(lambda: bilinear(input), (), "forward")


def resample_cases(quick: bool, device: str) -> Iterator[Case]:
    """``resample`` against antialiased bilinear interpolation."""
    for batch, side, new in ((16, 32, 16), (8, 56, 28), (8, 56, 37)):
        shape, out = ((1, 8) if quick else (batch, 64)) + (side, side), (new, new)
        contenders = [
            Contender(name, role, partial(make_resize, ours, shape, out, device), bar)
            for name, role, ours, bar in (
                (OURS, "ours", True, None),
                ("bilinear antialias", "baseline", False, None if quick else 1.0),
            )
        ]
        name = f"resample {by(shape)} to {by(out)}"
        work = _resize_work(shape, out, "forward")
        yield layer_case("DiffStride", name, "forward", shape, *contenders, work=work)


def residual_block(strided: bool, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """Build a residual block that halves the map and doubles the channels, and its input."""
    count = shape[1]
    block: nn.Module = (
        literal.StridedResidual2d(count, 2 * count)
        if strided
        else sizeless.DiffStrideResidual2d(count, 2 * count)
    )
    return block, torch.randn(shape)


def residual_cases(quick: bool, device: str) -> Iterator[Case]:
    """The residual block with a learned stride against the one with strided convolutions."""
    for side in (32, 56):
        shape = (2, 8, side, side) if quick else (8, 64, side, side)
        builds = [partial(residual_block, strided, shape) for strided in (False, True)]
        for mode in MODES:
            bar = None if quick or mode == "forward" else 1.6
            others = {"strided convolution": builds[1]}
            contenders = against(builds[0], others, mode, device, bar=bar)
            name = f"residual block {by(shape)}"
            yield layer_case("DiffStride", name, mode, shape, *contenders, counted=OURS)


GROUPS = (
    depthwise_cases,
    flexconv_cases,
    causal_flexconv_cases,
    niff_cases,
    pooled_niff_cases,
    network_cases,
    diffstride_cases,
    resample_cases,
    residual_cases,
    cached_cases,
    compiled_cases,
)


def cases(quick: bool, device: str) -> Iterator[Case]:
    """Yield the cases of the suite."""
    for group in GROUPS:
        yield from group(quick, device)
