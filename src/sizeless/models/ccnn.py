"""CCNN: one network of separable FlexConvs for sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sizeless._validate import boolean, feature_map, number, one_of, positive_int
from sizeless._validate import options as check_options
from sizeless.kernels import MAGNet
from sizeless.models.parts import FIXED
from sizeless.nn import (
    FlexConvNd,
    SeparableFlexConv1d,
    SeparableFlexConv2d,
    SeparableFlexConv3d,
)
from sizeless.nn._flexconv_arguments import KernelFactory
from sizeless.nn.residual import NORMALISATIONS
from sizeless.nn.separable import POINTWISE, SeparableFlexConvNd
from sizeless.sizes import change_resolution_

CONVOLUTIONS: dict[int, type[SeparableFlexConvNd]] = {
    1: SeparableFlexConv1d,
    2: SeparableFlexConv2d,
    3: SeparableFlexConv3d,
}
DROPOUTS = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position: no batch, no neighbours, no future.

    Examples:
        >>> import torch
        >>> ChannelNorm(4)(torch.randn(2, 4, 8)).mean(dim=1).abs().max() < 1e-6
        tensor(True)
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``(N, C, *spatial)``."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def _norm(norm: str, ndim: int, width: int) -> nn.Module:
    return ChannelNorm(width) if norm == "layer" else NORMALISATIONS[ndim](width)


class CCNNBlock(nn.Module):
    """Normalisation, separable FlexConv, GELU, dropout of channels, 1x1, GELU, and a shortcut."""

    def __init__(
        self, ndim: int, width: int, kernel_size: int, dropout: float, norm: str, **options: Any
    ) -> None:
        super().__init__()
        self.norm = _norm(norm, ndim, width)
        self.conv = CONVOLUTIONS[ndim](width, width, kernel_size, **options)
        self.dropout = DROPOUTS[ndim](dropout)
        self.mix = POINTWISE[ndim](width, width, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, width, *spatial)`` to the same shape."""
        hidden = self.dropout(F.gelu(self.conv(self.norm(input))))
        output: Tensor = F.gelu(self.mix(hidden)) + input
        return output


class CCNN(nn.Module):
    r"""Residual network of separable FlexConvs for data on any number of axes.

    The network to begin with: it needs to know neither scale nor length of what matters. A stem of
    a separable FlexConv, normalisation and GELU; residual blocks

    $$
    y = x + \sigma\, P\, D\, \sigma\, C\, N\, x
    $$

    with normalisation $N$, separable FlexConv $C$, GELU $\sigma$, dropout of whole channels $D$
    and a 1x1 convolution $P$; normalisation, the mean over all positions, a linear classifier.
    Kernels are depthwise, so one network generates ``width`` of them and not their square.

    The layers are those of this library, and with the defaults they have the parameters of the
    authors' program. Two things differ: kernels start with the frequencies of ``MAGNet``, where
    the authors tune a scale for every data set (set it with
    ``kernel=partial(MAGNet, input_scale=...)``), and at the variance of white input.

    Args:
        in_channels: Channels of the input.
        num_classes: Number of outputs.
        kernel_size: Largest kernel (the horizon): odd, or any length when causal; the side of the
            image plus 1 and the length of the sequence in the authors' settings.
        blocks: Number of residual blocks.
        width: Channels of every block.
        dropout: Rate of dropout of channels in every block.
        ndim: Number of axes: 1 for sequences, 2 for images, 3 for volumes.
        causal: Whether no position sees a later one; sequences only.
        norm: ``"batch"``, or ``"layer"`` over the channels of each position, for small batches.
        dropout_in: Dropout rate of the input.
        init_size: Size of the kernels at the start; see ``FlexConv2d``.
        learn_center: Whether the centres of the windows are learned too; the authors keep them.
        kernel: Class or function that makes the kernel networks; see ``FlexConv2d``.
        **options: Further keyword arguments of ``FlexConv2d`` for every layer, such as
            ``padding_mode``; not those that change the map's size.

    Shape:
        ``(N, in_channels, *spatial)`` to ``(N, num_classes)``.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If a count or rate is out of range, or ``causal`` has no time axis.

    Source: Knigge et al. 2023, "Modelling Long Range Dependencies in ND", arXiv 2301.10540; the
    block is that of Gu et al. 2022, arXiv 2111.00396.

    Examples:
        >>> import torch
        >>> CCNN(1, 10, kernel_size=9, blocks=2, width=8)(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> series = torch.randn(2, 3, 50)
        >>> CCNN(3, 5, kernel_size=50, blocks=1, width=8, ndim=1, causal=True)(series).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        kernel_size: int,
        blocks: int = 4,
        width: int = 140,
        dropout: float = 0.1,
        ndim: int = 2,
        *,
        causal: bool = False,
        norm: str = "batch",
        dropout_in: float = 0.0,
        init_size: float | Sequence[float] | None = None,
        learn_center: bool = False,
        kernel: KernelFactory | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if positive_int("ndim", ndim) > 3:
            raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")
        positive_int("in_channels", in_channels)
        positive_int("num_classes", num_classes)
        positive_int("width", width)
        number("dropout", dropout, minimum=0, maximum=1)
        number("dropout_in", dropout_in, minimum=0, maximum=1)
        if boolean("causal", causal) and ndim != 1:
            raise ValueError(f"causal=True needs ndim=1, the axis of time, got ndim={ndim}")
        one_of("norm", norm, ("batch", "layer"))
        check_options("CCNN", options, FlexConvNd, fixed=(*FIXED, "groups"))
        options |= {
            "causal": causal,
            "init_size": init_size,
            "learn_center": learn_center,
            "kernel": kernel,
        }
        self.ndim = ndim
        self.dropout_in = nn.Dropout(dropout_in)
        self.stem = CONVOLUTIONS[ndim](in_channels, width, kernel_size, **options)
        self.stem_norm = _norm(norm, ndim, width)
        self.blocks = nn.Sequential(
            *(
                CCNNBlock(ndim, width, kernel_size, dropout, norm, **options)
                for _ in range(positive_int("blocks", blocks))
            )
        )
        self.norm = _norm(norm, ndim, width)
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, *spatial)`` to class scores ``(N, num_classes)``."""
        feature_map("input", input, self.ndim)
        hidden = F.gelu(self.stem_norm(self.stem(self.dropout_in(input))))
        hidden = self.norm(self.blocks(hidden))
        scores: Tensor = self.head(hidden.flatten(2).mean(dim=2))
        return scores

    def change_resolution_(self, factor: float) -> None:
        """Adapt all kernels to data sampled ``factor`` times as finely, in place."""
        change_resolution_(self, factor)


def ccnn4_140(
    in_channels: int = 3, num_classes: int = 10, *, kernel_size: int = 33, **options: Any
) -> CCNN:
    """CCNN with 4 blocks of 140 channels, 201,042 parameters for CIFAR-10; see ``CCNN``.

    Examples:
        >>> sum(p.numel() for p in ccnn4_140().parameters())
        201042
        >>> sequential = ccnn4_140(1, 10, kernel_size=784, ndim=1, causal=True)
        >>> sum(p.numel() for p in sequential.parameters())
        198769
    """
    return CCNN(in_channels, num_classes, kernel_size, blocks=4, width=140, **options)


def ccnn6_380(
    in_channels: int = 3, num_classes: int = 10, *, kernel_size: int = 33, **options: Any
) -> CCNN:
    """CCNN with 6 blocks of 380 channels and kernel networks of 64 units; see ``CCNN``.

    It has 1,993,091 parameters for sequences of one channel.
    """
    options.setdefault("kernel", partial(MAGNet, hidden=64))
    return CCNN(in_channels, num_classes, kernel_size, blocks=6, width=380, **options)
