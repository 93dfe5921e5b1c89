"""Layers in use: in evaluation with their kernels cached, and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import sizeless
from sizeless.bench.builds import against, flexconv1d, flexconv2d, layer_case, niffconv2d
from sizeless.bench.case import MODES, Build, Case, Contender, Step, make_module_run
from sizeless.bench.rows import by
from sizeless.functional import circular_convolve, convolve


def make_fixed(build: Build, device: str) -> Callable[[], object]:
    """Return the run of the convolution that a layer comes to, its weights fixed."""
    module, input = build()
    layer: Any = module.to(device).eval()
    input = input.to(device)
    with torch.no_grad():
        if isinstance(layer, sizeless.NIFFConv2d):
            half = layer.half_spectrum(input.shape[2:])
            return Step(
                lambda: circular_convolve(input, *half, layer.bias, layer.groups), (), "forward"
            )
        weight, bias, causal = layer.weight.contiguous(), layer.bias, layer.causal
    return Step(lambda: convolve(input, weight, bias, padding="same", causal=causal), (), "forward")


def cached_cases(quick: bool, device: str) -> Iterator[Case]:
    """Layers in evaluation against the same convolution with fixed weights."""
    image = (2, 24, 32, 32) if quick else (16, 24, 32, 32)
    sequence = (2, 30, 500) if quick else (4, 30, 4000)
    maps = (2, 16, 56, 56) if quick else (8, 64, 56, 56)
    part, long = sequence[2] // 4, sequence[2]
    builds: list[tuple[str, tuple[int, ...], Build]] = [
        *(
            (f"FlexConv2d size {size} of 33", image, partial(flexconv2d, size, False, image, 33))
            for size in (5, 13, 33)
        ),
        (
            f"FlexConv1d causal size {part} of {long}",
            sequence,
            partial(flexconv1d, part, False, sequence),
        ),
        ("NIFFConv2d depthwise", maps, partial(niffconv2d, False, maps)),
    ]
    for name, shape, build in builds:
        fixed = partial(make_fixed, build, device)
        contenders = [
            *against(build, {}, "forward", device),
            Contender("fixed weights", "baseline", fixed, None if quick else 1.02),
        ]
        yield layer_case("cached", f"cached {name} {by(shape)}", "forward", shape, *contenders)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "FlexConv1d": (partial(sizeless.FlexConv1d, 16, 16, 257, init_size=65), (8, 16, 1024)),
    "FlexConv2d": (partial(sizeless.FlexConv2d, 24, 24, 33, init_size=9), (8, 24, 32, 32)),
    "FlexConv3d": (partial(sizeless.FlexConv3d, 8, 8, 9, init_size=5), (2, 8, 16, 16, 16)),
    "SeparableFlexConv1d": (partial(sizeless.SeparableFlexConv1d, 32, 32, 257), (8, 32, 1024)),
    "SeparableFlexConv2d": (partial(sizeless.SeparableFlexConv2d, 32, 32, 33), (8, 32, 32, 32)),
    "SeparableFlexConv3d": (partial(sizeless.SeparableFlexConv3d, 8, 8, 9), (2, 8, 16, 16, 16)),
    "NIFFConv1d": (partial(sizeless.NIFFConv1d, 32, 32, 32), (8, 32, 1024)),
    "NIFFConv2d": (partial(sizeless.NIFFConv2d, 32, 32, 32), (8, 32, 28, 28)),
    "NIFFConv3d": (partial(sizeless.NIFFConv3d, 8, 8, 8), (2, 8, 16, 16, 16)),
    "SeparableNIFFConv1d": (partial(sizeless.SeparableNIFFConv1d, 32, 32), (8, 32, 1024)),
    "SeparableNIFFConv2d": (partial(sizeless.SeparableNIFFConv2d, 32, 32), (8, 32, 28, 28)),
    "SeparableNIFFConv3d": (partial(sizeless.SeparableNIFFConv3d, 8, 8), (2, 8, 16, 16, 16)),
    "PooledNIFFConv1d": (partial(sizeless.PooledNIFFConv1d, 32, 32, 32), (8, 32, 1024)),
    "PooledNIFFConv2d": (partial(sizeless.PooledNIFFConv2d, 32, 32, 32), (8, 32, 28, 28)),
    "PooledNIFFConv3d": (partial(sizeless.PooledNIFFConv3d, 8, 8, 8), (2, 8, 16, 16, 16)),
    "DiffStride1d": (sizeless.DiffStride1d, (16, 32, 160)),
    "DiffStride2d": (sizeless.DiffStride2d, (8, 32, 56, 56)),
    "DiffStride3d": (sizeless.DiffStride3d, (2, 16, 16, 16, 16)),
    "SpectralPool1d": (partial(sizeless.SpectralPool1d, 2.0), (16, 32, 160)),
    "SpectralPool2d": (partial(sizeless.SpectralPool2d, 2.0), (8, 32, 56, 56)),
    "SpectralPool3d": (partial(sizeless.SpectralPool3d, 2.0), (2, 16, 16, 16, 16)),
    "DiffStrideResidual1d": (partial(sizeless.DiffStrideResidual1d, 32, 64), (8, 32, 160)),
    "DiffStrideResidual2d": (partial(sizeless.DiffStrideResidual2d, 32, 64), (8, 32, 28, 28)),
    "DiffStrideResidual3d": (partial(sizeless.DiffStrideResidual3d, 8, 16), (2, 8, 16, 16, 16)),
}
"""What is compiled: every layer."""

OPERATORS = [name for name in LAYERS if "Conv" in name]
"""Layers whose compiled evaluation is one operator, which asks them for the kernels they keep."""

LIMIT = "empty graph, then eager"
"""What no such layer goes below: what the compiler itself takes, and the layer."""


def layer_and_input(name: str) -> tuple[nn.Module, Tensor]:
    """Build a layer of ``LAYERS`` and its input."""
    make, shape = LAYERS[name]
    return make(), torch.randn(shape)


class EmptyGraph(nn.Module):
    """As many parameters as a module has, and one cheap operation for all of them.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        numbers = [nn.Parameter(torch.zeros(1)) for _ in module.parameters()]
        self.numbers = nn.ParameterList(numbers)

    def forward(self, input: Tensor) -> Tensor:
        """Add all parameters to the first number of ``input``."""
        output = input.flatten()[:1]
        for number in self.numbers:
            output = output + number
        return output


def make_limit(build: Build, device: str) -> Callable[[], object]:
    """Return the run of an empty compiled graph and then of the eager layer, for evaluation.

    A layer that is one operator in its graph cannot be faster. Alone, the empty graph would
    find itself in the processor's caches each time, and take a third.
    """
    module, input = build()
    layer, input = module.to(device).eval(), input.to(device)
    empty = torch.compile(EmptyGraph(layer).to(device), fullgraph=True)

    def forward() -> Tensor:
        empty(input)
        output: Tensor = layer(input)
        return output

    step = Step(forward, (), "forward")
    step()
    return step


def compiled_cases(quick: bool, device: str) -> Iterator[Case]:
    """Every layer compiled against the same layer run eagerly."""
    for name in ["DiffStride2d"] if quick else LAYERS:
        build = partial(layer_and_input, name)
        for mode in MODES:
            compiled = partial(make_module_run, build, mode, device, compiled=True)
            eager = partial(make_module_run, build, mode, device)
            contenders = [
                Contender("compiled", "ours", compiled, in_fork=False),
                Contender("eager", "baseline", eager, None if quick else 1.0, in_fork=False),
            ]
            if mode == "forward" and name in OPERATORS:
                limit = partial(make_limit, build, device)
                contenders.append(Contender(LIMIT, "limit", limit, in_fork=False))
            shape = LAYERS[name][1]
            yield layer_case("compiled", f"compiled {name} {by(shape)}", mode, shape, *contenders)
