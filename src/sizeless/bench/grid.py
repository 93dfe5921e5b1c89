"""The convolutions of the suite ``convolve``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sizeless.bench.case import Work
from sizeless.bench.rows import by
from sizeless.functional import good_length

MEMORY_FORMATS = {
    **{("contiguous", ndim): torch.contiguous_format for ndim in (1, 2, 3)},
    ("channels_last", 2): torch.channels_last,
    ("channels_last", 3): torch.channels_last_3d,
}

GROUPS = 4
"""Groups of the kind ``"grouped"``."""


class Line(NamedTuple):
    """Kernels of growing size on one kind of map."""

    ndim: int
    kind: str
    batch: int
    channels: int
    side: int
    kernels: tuple[int, ...]
    layout: str = "contiguous"

    def points(self) -> list[Point]:
        """The convolutions, from small kernels to large ones."""
        line = self.ndim, self.kind, self.batch, self.channels, self.side
        return [Point(*line, kernel, self.layout) for kernel in self.kernels]


GRID = (
    Line(1, "dense", 64, 32, 256, (3, 15, 63, 255)),
    Line(1, "dense", 16, 32, 1024, (3, 31, 255, 1023)),
    Line(1, "dense", 8, 16, 4096, (3, 31, 255, 1023, 4095)),
    Line(1, "dense", 2, 16, 16384, (3, 63, 1023, 16383)),
    Line(1, "dense", 1, 8, 65536, (3, 127, 4095, 65535)),
    Line(1, "grouped", 16, 32, 1024, (3, 31, 255, 1023)),
    Line(1, "grouped", 2, 16, 16384, (31, 1023)),
    Line(1, "depthwise", 64, 64, 256, (3, 15, 63, 255)),
    Line(1, "depthwise", 32, 64, 1024, (3, 31, 255, 1023)),
    Line(1, "depthwise", 8, 64, 4096, (3, 31, 255, 1023, 4095)),
    Line(1, "depthwise", 2, 64, 16384, (3, 63, 1023, 16383)),
    Line(1, "depthwise", 1, 32, 65536, (3, 127, 4095, 65535)),
    Line(2, "dense", 32, 32, 14, (3, 7, 13)),
    Line(2, "dense", 16, 32, 28, (3, 7, 15, 27)),
    Line(2, "dense", 4, 32, 56, (3, 7, 15, 31)),
    Line(2, "dense", 1, 16, 112, (3, 7, 15, 31)),
    Line(2, "dense", 1, 8, 224, (3, 15, 63)),
    Line(2, "grouped", 16, 32, 28, (3, 15)),
    Line(2, "grouped", 4, 32, 56, (7, 31)),
    Line(2, "depthwise", 64, 64, 14, (3, 7, 13)),
    Line(2, "depthwise", 32, 64, 28, (3, 7, 15, 27)),
    Line(2, "depthwise", 8, 64, 56, (3, 7, 15, 31, 55)),
    Line(2, "depthwise", 2, 64, 112, (3, 7, 15, 31, 63)),
    Line(2, "depthwise", 1, 32, 224, (3, 7, 15, 31, 63)),
    Line(3, "dense", 4, 8, 16, (3, 7, 15)),
    Line(3, "dense", 1, 8, 32, (3, 7, 15, 21)),
    Line(3, "dense", 1, 4, 48, (3, 9, 21)),
    Line(3, "grouped", 4, 16, 16, (3, 9)),
    Line(3, "depthwise", 8, 32, 16, (3, 7, 15)),
    Line(3, "depthwise", 2, 16, 32, (3, 7, 15, 21)),
    Line(3, "depthwise", 1, 8, 48, (3, 9, 21)),
    Line(2, "dense", 16, 32, 28, (3, 15), "channels_last"),
    Line(2, "dense", 4, 32, 56, (7, 31), "channels_last"),
    Line(2, "depthwise", 32, 64, 28, (3, 15), "channels_last"),
    Line(2, "depthwise", 8, 64, 56, (7, 15, 31), "channels_last"),
    Line(3, "depthwise", 2, 16, 32, (3, 7), "channels_last"),
)

QUICK = (
    Line(1, "dense", 4, 16, 4096, (3, 255)),
    Line(1, "depthwise", 8, 64, 4096, (31, 1023)),
    Line(2, "dense", 16, 32, 28, (3, 15)),
    Line(2, "grouped", 16, 32, 28, (7,)),
    Line(2, "depthwise", 16, 64, 28, (3, 15, 27)),
    Line(2, "depthwise", 16, 64, 28, (7,), "channels_last"),
    Line(3, "depthwise", 4, 16, 16, (3, 9)),
)


@dataclass(frozen=True)
class Point:
    """One convolution of stride 1, padded with zeros so that the map keeps its size.

    Attributes:
        ndim: Number of spatial axes.
        kind: ``"dense"``, ``"grouped"`` (4 groups) or ``"depthwise"``.
        batch: Number of maps.
        channels: Channels of input and output.
        side: Samples per axis.
        kernel: Taps per axis, odd.
        layout: Memory layout of the input: ``"contiguous"`` or ``"channels_last"``.
    """

    ndim: int
    kind: str
    batch: int
    channels: int
    side: int
    kernel: int
    layout: str = "contiguous"

    @property
    def groups(self) -> int:
        """Channel groups."""
        return {"dense": 1, "grouped": GROUPS, "depthwise": self.channels}[self.kind]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(N, C, *spatial)``."""
        return (self.batch, self.channels, *[self.side] * self.ndim)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``(C, C / groups, *kernel)``."""
        return (self.channels, self.channels // self.groups, *[self.kernel] * self.ndim)

    @property
    def name(self) -> str:
        """Name of the case."""
        layout = "" if self.layout == "contiguous" else f" {self.layout}"
        return f"{self.ndim}-D {self.kind} {by(self.input_shape)}{layout} k{self.kernel}"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch names it."""
        return MEMORY_FORMATS[self.layout, self.ndim]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Fast transform lengths that hold the padded map."""
        return (good_length(max(self.side + self.kernel // 2, self.kernel)),) * self.ndim

    def work(self, mode: str) -> Work:
        """What has to be done at least; taps that fall outside the map are not counted."""
        outputs, pairs = self.batch * self.channels, math.prod(self.weight_shape[:2])
        inside = sum(
            min(position, self.kernel // 2) + 1 + min(self.side - 1 - position, self.kernel // 2)
            for position in range(self.side)
        )
        map_bytes, weight_bytes = math.prod(self.input_shape), math.prod(self.weight_shape)
        half = math.prod(self.lengths[:-1]) * (self.lengths[-1] // 2 + 1)
        times = 3 if mode == "training" else 1
        # Training reads input and weight again, and the gradient; and writes both gradients.
        maps, weights = (5, 3) if mode == "training" else (2, 1)
        return Work(
            bytes=4.0 * (maps * map_bytes + weights * weight_bytes),
            flops=2.0 * times * self.batch * pairs * inside**self.ndim,
            # Three real products for a complex one.
            mixing=6.0 * times * outputs * self.weight_shape[1] * half,
        )
