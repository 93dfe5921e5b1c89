"""What the cases of layers are put together from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

import sizeless
from sizeless.bench import literal
from sizeless.bench.case import OURS, Build, Case, Contender, Work, make_module_run


def layer_case(
    kind: str,
    name: str,
    mode: str,
    shape: tuple[int, ...],
    *contenders: Contender,
    kernel: int | None = None,
    work: Work | None = None,
    counted: str = "",
) -> Case:
    """Return a case of the suite ``layers``."""
    return Case("layers", kind, name, mode, shape, contenders, kernel, work, counted=counted)


def against(
    ours: Build,
    theirs: Mapping[str, Build],
    mode: str,
    device: str,
    bar: float | None = None,
    memory_bar: float | None = None,
) -> list[Contender]:
    """Our module, and others of role ``"baseline"`` with the same bars."""
    return [
        Contender(OURS, "ours", partial(make_module_run, ours, mode, device)),
        *(
            Contender(
                name, "baseline", partial(make_module_run, build, mode, device), bar, memory_bar
            )
            for name, build in theirs.items()
        ),
    ]


def flexconv2d(
    size: int, textbook: bool, shape: tuple[int, ...], maximum: int
) -> tuple[nn.Module, Tensor]:
    """Build a FlexConv2d of a learned size and an input for it."""
    layer = sizeless.FlexConv2d(shape[1], shape[1], maximum, init_size=size)
    return (literal.LiteralFlexConv(layer) if textbook else layer), torch.randn(shape)


def flexconv1d(size: int, textbook: bool, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """Build a causal FlexConv1d, at most as long as its input, and the input."""
    layer = sizeless.FlexConv1d(shape[1], shape[1], shape[2], init_size=size, causal=True)
    return (literal.LiteralFlexConv(layer) if textbook else layer), torch.randn(shape)


def niffconv2d(textbook: bool, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """Build a depthwise NIFFConv2d and an input for it."""
    layer = sizeless.NIFFConv2d(shape[1], shape[1], groups=shape[1])
    return (literal.LiteralNIFFConv2d(layer) if textbook else layer), torch.randn(shape)
