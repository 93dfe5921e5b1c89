"""FlexTCN: the sequence networks of the FlexConv paper."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sizeless._validate import boolean, feature_map, number, positive_int
from sizeless.models.parts import Convolution, causal_convolution
from sizeless.sizes import change_resolution_


class FlexTCNBlock(nn.Module):
    """Two causal FlexConvs, each with normalisation, ReLU and dropout, around a shortcut."""

    def __init__(
        self, in_channels: int, width: int, dropout: float, convolution: Convolution
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = convolution(width, width)
        self.norm2 = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if in_channels == width else nn.Conv1d(in_channels, width, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, L)`` to ``(N, width, L)``."""
        hidden = self.dropout(self.norm1(self.conv1(input)).relu())
        hidden = self.dropout(self.norm2(self.conv2(hidden)).relu())
        output: Tensor = (hidden + self.shortcut(input)).relu()
        return output


class FlexTCN(nn.Module):
    r"""Causal residual network for sequences whose kernels learn their length.

    Residual blocks of two causal FlexConvs; a linear layer reads the last time step, or each of
    them. FlexTCN-n has n blocks and 2n FlexConvs.

    Args:
        in_channels: Channels of the sequence.
        num_classes: Number of outputs.
        kernel_size: Largest kernel in samples (the horizon); the paper takes the sequence length.
        blocks: Number of residual blocks; 2, 4 and 6 in the paper.
        width: Channels of every block.
        dropout: Dropout rate after every activation.
        conv: ``"flex"``; or, to compare, ``"ckconv"``: kernels of all of ``kernel_size``, with no
            window, or ``"plain"``: causal ``torch.nn.Conv1d`` of ``kernel_size``.
        dropout_in: Dropout rate of the sequence.
        per_step: Whether to answer at every step, and not after the last alone.
        **options: Keyword arguments of every convolution, for ``"flex"`` of ``FlexConv1d``, such
            as ``kernel``, ``init_size`` or ``init``; not those that change the sequence's length.

    Shape:
        ``(N, in_channels, L)`` to ``(N, num_classes)``, per step to ``(N, num_classes, L)``.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If a count is below 1 or an option is not allowed.

    Source: Romero et al. 2022, arXiv 2110.08059, section 4.1 and appendix.

    Examples:
        >>> import torch
        >>> FlexTCN(1, 10, kernel_size=40)(torch.randn(2, 1, 40)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        kernel_size: int,
        blocks: int = 2,
        width: int = 30,
        dropout: float = 0.1,
        *,
        conv: str = "flex",
        dropout_in: float = 0.0,
        per_step: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.per_step = boolean("per_step", per_step)
        self.in_channels = positive_int("in_channels", in_channels)
        positive_int("num_classes", num_classes)
        positive_int("width", width)
        number("dropout", dropout, minimum=0, maximum=1)
        number("dropout_in", dropout_in, minimum=0, maximum=1)
        convolution = causal_convolution("FlexTCN", conv, kernel_size, **options)
        self.dropout_in = nn.Dropout(dropout_in)
        widths = [in_channels] + [width] * positive_int("blocks", blocks)
        self.blocks = nn.Sequential(
            *(FlexTCNBlock(n, width, dropout, convolution) for n in widths[:-1])
        )
        self.head = nn.Linear(width, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, L)`` to class scores ``(N, num_classes)``, or at every step."""
        feature_map("input", input, 1, self.in_channels)
        steps = self.blocks(self.dropout_in(input)).transpose(1, 2)
        scores: Tensor = (
            self.head(steps).transpose(1, 2) if self.per_step else self.head(steps[:, -1])
        )
        return scores

    def change_resolution_(self, factor: float) -> None:
        """Adapt all kernels to sequences sampled ``factor`` times as finely, in place.

        Plain convolutions have no kernel that could follow: with ``conv="plain"`` this raises.
        """
        change_resolution_(self, factor)


def flextcn2(
    in_channels: int = 1, num_classes: int = 10, *, kernel_size: int, **options: Any
) -> FlexTCN:
    """FlexTCN with 2 blocks, 105,548 parameters for 1 channel; see ``FlexTCN``.

    Examples:
        >>> sum(p.numel() for p in flextcn2(kernel_size=784).parameters())
        105548
    """
    return FlexTCN(in_channels, num_classes, kernel_size, blocks=2, **options)


def flextcn4(
    in_channels: int = 1, num_classes: int = 10, *, kernel_size: int, **options: Any
) -> FlexTCN:
    """FlexTCN with 4 blocks, 239,436 parameters for 1 channel; see ``FlexTCN``."""
    return FlexTCN(in_channels, num_classes, kernel_size, blocks=4, **options)


def flextcn6(
    in_channels: int = 1, num_classes: int = 10, *, kernel_size: int, **options: Any
) -> FlexTCN:
    """FlexTCN with 6 blocks, 373,324 parameters for 1 channel; see ``FlexTCN``."""
    return FlexTCN(in_channels, num_classes, kernel_size, blocks=6, **options)
