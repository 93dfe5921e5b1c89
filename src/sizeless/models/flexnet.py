"""FlexNet: the image networks of the FlexConv paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sizeless._validate import feature_map, ints, number, positive_int
from sizeless.models.parts import Convolution, image_convolution
from sizeless.sizes import change_resolution_


class FlexNetBlock(nn.Module):
    """Two FlexConvs with normalisation around a shortcut; dropout after the first ReLU."""

    def __init__(
        self, in_channels: int, width: int, dropout: float, convolution: Convolution
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width)
        self.norm1 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(width, width)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if in_channels == width else nn.Conv2d(in_channels, width, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, width, H, W)``."""
        hidden = self.dropout(self.norm1(self.conv1(input)).relu())
        output: Tensor = (self.norm2(self.conv2(hidden)) + self.shortcut(input)).relu()
        return output


class FlexNet(nn.Module):
    r"""Residual network for images whose kernels learn their size; no pooling, no stride.

    A FlexConv stem, residual blocks of two FlexConvs, global average pooling, a linear classifier.
    FlexNet-n has n blocks and 2n + 1 FlexConvs.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of outputs.
        kernel_size: Largest kernel in pixels, odd (the horizon); the paper takes the image side
            plus 1.
        widths: Channels of every block; the stem has the first.
        dropout: Dropout rate in every block.
        conv: ``"flex"``; or, to compare, ``"ckconv"``: kernels of all of ``kernel_size``, with no
            window, or ``"plain"``: ``torch.nn.Conv2d`` of ``kernel_size``.
        dropout_in: Dropout rate of the image.
        **options: Keyword arguments of every convolution, for ``"flex"`` of ``FlexConv2d``, such
            as ``kernel``, ``init_size`` or ``init``; not those that change the map's size.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If ``kernel_size`` is even, a count is below 1 or an option is not allowed.

    Source: Romero et al. 2022, arXiv 2110.08059, section 4.2 and appendix.

    Examples:
        >>> import torch
        >>> FlexNet(1, 10, kernel_size=9, widths=(8, 12))(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        kernel_size: int,
        widths: Sequence[int] = (24, 36, 48),
        dropout: float = 0.2,
        *,
        conv: str = "flex",
        dropout_in: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels)
        positive_int("num_classes", num_classes)
        number("dropout", dropout, minimum=0, maximum=1)
        number("dropout_in", dropout_in, minimum=0, maximum=1)
        convolution = image_convolution("FlexNet", conv, kernel_size, **options)
        widths = ints("widths", widths)
        self.dropout_in = nn.Dropout(dropout_in)
        self.stem = convolution(in_channels, widths[0])
        self.norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.Sequential(
            *(
                FlexNetBlock(n, m, dropout, convolution)
                for n, m in zip((widths[0], *widths[:-1]), widths, strict=True)
            )
        )
        self.head = nn.Linear(widths[-1], num_classes)
        nn.init.kaiming_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to class scores ``(N, num_classes)``."""
        feature_map("input", input, 2, self.in_channels)
        hidden = self.blocks(self.norm(self.stem(self.dropout_in(input))).relu())
        scores: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return scores

    def change_resolution_(self, factor: float) -> None:
        """Adapt all kernels to images sampled ``factor`` times as finely, in place.

        Plain convolutions have no kernel that could follow: with ``conv="plain"`` this raises.
        """
        change_resolution_(self, factor)


def _widths(width: int, *repeats: int) -> tuple[int, ...]:
    """Widths of three stages, at 1, 1.5 and 2 times ``width``, rounded down."""
    positive_int("width", width)
    stages = (width, width * 3 // 2, width * 2)
    return tuple(w for w, repeat in zip(stages, repeats, strict=True) for _ in range(repeat))


def flexnet3(
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    kernel_size: int = 33,
    width: int = 24,
    **options: Any,
) -> FlexNet:
    """FlexNet with 3 blocks, 277,090 parameters for CIFAR-10; see ``FlexNet``.

    Examples:
        >>> sum(p.numel() for p in flexnet3().parameters())
        277090
    """
    widths = _widths(width, 1, 1, 1)
    return FlexNet(in_channels, num_classes, kernel_size, widths, **options)


def flexnet5(
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    kernel_size: int = 33,
    width: int = 22,
    **options: Any,
) -> FlexNet:
    """FlexNet with 5 blocks, 454,046 parameters for CIFAR-10; see ``FlexNet``."""
    widths = _widths(width, 1, 2, 2)
    return FlexNet(in_channels, num_classes, kernel_size, widths, **options)


def flexnet7(
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    kernel_size: int = 33,
    width: int = 24,
    **options: Any,
) -> FlexNet:
    """FlexNet with 7 blocks, 671,650 parameters for CIFAR-10; see ``FlexNet``."""
    widths = _widths(width, 2, 3, 2)
    return FlexNet(in_channels, num_classes, kernel_size, widths, **options)
