"""Pre-activation ResNets whose strides are learned, and their twins of fixed strides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sizeless._validate import boolean, feature_map, ints, one_of, positive_int
from sizeless.models.parts import Pooling, check_strides, pooling_layer
from sizeless.nn import DiffStrideResidual2d

POOLINGS = ("diffstride", "spectral", "strided")

Stride = tuple[Any, ...]
"""One pair of strides; ints where a convolution has them."""

KEPT_SPREAD = 0.87962566103423978
"""Standard deviation of a standard normal variable that is cut off at two of them."""


class ResidualLayer(nn.Module):
    """Pre-activation residual layer of two 3x3 convolutions, the first of which may stride.

    Its twin that pools is ``DiffStrideResidual2d``; both name their parts alike.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: Stride = (1, 1), *, project: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            if project
            else nn.Identity()
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        hidden = self.conv1(self.norm1(input).relu())
        output: Tensor = self.conv2(self.norm2(hidden).relu()) + self.shortcut(input)
        return output


class DiffStrideResNet(nn.Module):
    r"""Pre-activation ResNet for images that pools by learned strides.

    A stem, stages of residual layers, batch normalisation, ReLU, the mean over the map, a linear
    classifier. Pooling sits in the stem and in the first layer of a stage, where the width changes
    too: main branch and shortcut share one pooling module, which works on the output of a
    convolution of stride 1.

    With ``pooling="strided"`` these convolutions have the strides themselves. With ``"spectral"``
    fixed spectral pooling stands where the learned one does.

    With ``size_rule="paper"`` a stride leaves larger maps than the convolution of that stride, and
    so the network costs more: at strides of 2, maps of 24, 20 and 18 pixels in place of 16, 8 and
    4, and 7.6 times the multiply-accumulates. Compare at the same cost, or use ``"exact"``.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of outputs.
        strides: Initial strides, one for the stem and one for each stage; with
            ``imagenet=True`` for the stages only. Ints of at least 1 for ``"strided"``, any
            number for the others.
        widths: Channels of every stage; the stem has the first.
        depth: Residual layers of every stage.
        pooling: ``"diffstride"``, ``"spectral"`` or ``"strided"``.
        size_rule: Sizes of the maps: ``"paper"``, those of the paper's layers, or ``"exact"``,
            a stride's share of the map, rounded up (of a learned stride, no less than 2 pixels).
            A strided convolution has these always.
        project_first: Whether the first stage begins with a layer that pools and projects, as
            the other stages do; else its stride must be 1.
        imagenet: Whether the stem is a 7x7 convolution of stride 2 and a 3x3 max-pooling of
            stride 2, both fixed; else a 3x3 convolution and the first pooling.
        **options: Further keyword arguments of the pooling layer, ``DiffStride2d`` or
            ``SpectralPool2d``, such as ``smoothness``. The authors' layers have
            ``amplitude="sum"``.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If a count is below 1, or strides are out of range or too few.

    Source: Riad et al. 2022, arXiv 2202.01653, in the pre-activation form of the authors' program
    and with its initialisation.

    Examples:
        >>> import torch
        >>> model = DiffStrideResNet(1, 10, strides=(1, 2, 2), widths=(4, 8), project_first=True)
        >>> model(torch.randn(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        strides: Sequence[float] = (1, 1, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        depth: int = 2,
        pooling: str = "diffstride",
        size_rule: str = "paper",
        *,
        project_first: bool = False,
        imagenet: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels)
        positive_int("num_classes", num_classes)
        positive_int("depth", depth)
        widths = ints("widths", widths)
        self.pooling = one_of("pooling", pooling, POOLINGS)
        make_pool = pooling_layer("DiffStrideResNet", pooling, size_rule, **options)
        pool = None if pooling == "strided" else make_pool
        count = len(widths) + (not boolean("imagenet", imagenet))
        pairs = check_strides(strides, count, pooling)
        if not boolean("project_first", project_first) and pairs[-len(widths)] != (1, 1):
            raise ValueError(
                "strides must be 1 at the first stage, which neither pools nor projects, got "
                f"{strides!r}; or set project_first=True"
            )
        self.stem = _stem(in_channels, widths[0], None if imagenet else pairs[0], pool)
        self.stages = nn.Sequential()
        before = widths[0]
        for width, stride in zip(widths, pairs[-len(widths) :], strict=True):
            projects = project_first or len(self.stages) > 0
            self.stages.append(
                nn.Sequential(
                    _first_layer(before, width, stride, pool)
                    if projects
                    else ResidualLayer(before, width),
                    *(ResidualLayer(width, width) for _ in range(depth - 1)),
                )
            )
            before = width
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, num_classes)
        self._draw_weights()

    def _draw_weights(self) -> None:
        """Draw convolutions and classifier anew, He-normal, cut off at two standard deviations."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                std = math.sqrt(2 / module.weight[0].numel()) / KEPT_SPREAD
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.head.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to class scores ``(N, num_classes)``."""
        feature_map("input", input, 2, self.in_channels)
        hidden = self.norm(self.stages(self.stem(input))).relu()
        scores: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return scores


def _stem(in_channels: int, width: int, stride: Stride | None, pool: Pooling | None) -> nn.Module:
    """Return the first convolution with its pooling; without a stride, that for large images."""
    if stride is None:
        return nn.Sequential(
            nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False),
            nn.MaxPool2d(3, 2, padding=1),
        )
    convolution = nn.Conv2d(
        in_channels, width, 3, stride if pool is None else 1, padding=1, bias=False
    )
    return nn.Sequential(convolution) if pool is None else nn.Sequential(convolution, pool(stride))


def _first_layer(
    in_channels: int, width: int, stride: Stride, pool: Pooling | None
) -> ResidualLayer | DiffStrideResidual2d:
    """Return the layer of a stage that changes width and map; without a pool, by its strides."""
    if pool is None:
        return ResidualLayer(in_channels, width, stride, project=True)
    layer = DiffStrideResidual2d(in_channels, width, pool(stride))
    if in_channels == width:
        layer.shortcut = nn.Conv2d(in_channels, width, 1, bias=False)
    return layer


def diffstride_resnet18(
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    strides: Sequence[float] = (1, 1, 2, 2, 2),
    pooling: str = "diffstride",
    size_rule: str = "paper",
    **options: Any,
) -> DiffStrideResNet:
    """ResNet-18 for small images, 11,172,178 parameters for CIFAR-10; see ``DiffStrideResNet``.

    The paper's triples of strides are the last three. The first stage neither pools nor
    projects, so the second stride is 1.

    Examples:
        >>> sum(p.numel() for p in diffstride_resnet18().parameters())
        11172178
    """
    return DiffStrideResNet(
        in_channels, num_classes, strides, pooling=pooling, size_rule=size_rule, **options
    )


def diffstride_resnet56(
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    strides: Sequence[float] = (1, 1, 2, 2),
    pooling: str = "diffstride",
    size_rule: str = "paper",
    **options: Any,
) -> DiffStrideResNet:
    """ResNet-56 for small images, 855,842 parameters for CIFAR-10; see ``DiffStrideResNet``."""
    return DiffStrideResNet(
        in_channels,
        num_classes,
        strides,
        widths=(16, 32, 64),
        depth=9,
        pooling=pooling,
        size_rule=size_rule,
        project_first=True,
        **options,
    )


def diffstride_resnet18_imagenet(
    in_channels: int = 3,
    num_classes: int = 1000,
    *,
    strides: Sequence[float] = (1, 2, 2, 2),
    pooling: str = "diffstride",
    size_rule: str = "paper",
    **options: Any,
) -> DiffStrideResNet:
    """ResNet-18 for large images, with one stride for each stage; see ``DiffStrideResNet``.

    The paper gives four strides and no more: that the stem is the usual one, with fixed strides of
    2 and 2, and that all four stages pool and project, is a choice made here.
    """
    return DiffStrideResNet(
        in_channels,
        num_classes,
        strides,
        pooling=pooling,
        size_rule=size_rule,
        project_first=True,
        imagenet=True,
        **options,
    )
