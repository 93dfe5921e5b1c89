"""What the tests of learned strides share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import sizeless


def learned(
    model: nn.Module, input: Tensor, **options: Any
) -> tuple[nn.Module, sizeless.surgery.Report]:
    """A model with learned strides, and the report."""
    return sizeless.convert(model, input, downsample="diffstride", stem=True, **options)


def strides_of(model: nn.Module) -> list[sizeless.nn.DiffStrideNd]:
    """The different learned strides of a model."""
    return [module for module in model.modules() if isinstance(module, sizeless.nn.DiffStrideNd)]


def set_strides(model: nn.Module, value: float) -> None:
    """Set all learned strides of a model."""
    with torch.no_grad():
        for stride in strides_of(model):
            stride.log2_stride.fill_(math.log2(value))


def reasons(report: sizeless.surgery.Report) -> dict[str, str]:
    """Why layers were left alone, by their paths."""
    return {change.name: change.reason for change in report.left_alone}


class Residual(nn.Module):
    """A residual block whose shortcut strides, too."""

    def __init__(self, inputs, outputs, stride, shortcut=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = shortcut or nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, input):
        return self.conv2(self.conv1(input).relu()) + self.shortcut(input)


def residual_net(*shortcuts):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        Residual(4, 8, 2, *shortcuts),
        Residual(8, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
