"""Small image networks: with learned strides, with frequency filters, and an ordinary one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sizeless._validate import feature_map, ints, positive_int
from sizeless._validate import options as check_options
from sizeless.nn import DiffStride2d, DiffStrideResidual2d, NIFFConv2d, SeparableNIFFConv2d


class DiffStrideNet(nn.Module):
    r"""Small residual network for images whose strides are learned, one per axis and block.

    A 3x3 convolution, residual blocks that each end in ``DiffStride2d``, batch
    normalisation, global average pooling and a linear classifier.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of outputs.
        widths: Channels of every block.
        stride: Initial stride of every block.
        size_rule: See ``DiffStride2d``; the scale-free rule suits small maps.
        **options: Other keyword arguments of ``DiffStride2d``, such as ``shared``.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If a count is below 1 or an option is not allowed.

    Source: blocks of Riad et al. 2022, arXiv 2202.01653, figure 2b; the network is no paper's.

    Examples:
        >>> import torch
        >>> DiffStrideNet(1, 10)(torch.randn(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (16, 32),
        stride: float = 2.0,
        size_rule: str = "exact",
        **options: Any,
    ) -> None:
        super().__init__()
        positive_int("num_classes", num_classes)
        self.in_channels = positive_int("in_channels", in_channels)
        widths = ints("widths", widths)
        check_options("DiffStrideNet", options, DiffStride2d, fixed=("device", "dtype"))
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *(
                DiffStrideResidual2d(n, m, DiffStride2d(stride, size_rule=size_rule, **options))
                for n, m in zip((widths[0], *widths[:-1]), widths, strict=True)
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to class scores ``(N, num_classes)``."""
        feature_map("input", input, 2, self.in_channels)
        hidden = self.norm(self.blocks(self.stem(input))).relu()
        scores: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return scores


class NIFFBlock(nn.Module):
    """A separable NIFF convolution with normalisation and ReLU, around a shortcut."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__()
        self.conv = SeparableNIFFConv2d(width, width, **options)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, width, H, W)`` to the same shape."""
        output: Tensor = input + self.norm(self.conv(input)).relu()
        return output


class NIFFNet(nn.Module):
    r"""Small residual network for images whose filters live in the frequency domain.

    A 3x3 convolution, residual blocks of one separable NIFF convolution each with kernels as large
    as the image, global average pooling and a linear classifier.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of outputs.
        width: Channels of every block.
        blocks: Number of blocks.
        **options: Keyword arguments of ``SeparableNIFFConv2d`` for every block,
            such as ``hidden`` or ``boundary``.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If a count is below 1 or an option is not allowed.

    Source: layers of Grabinski et al. 2024, arXiv 2307.10001; the network is no paper's.

    Examples:
        >>> import torch
        >>> NIFFNet(1, 10)(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 32,
        blocks: int = 3,
        **options: Any,
    ) -> None:
        super().__init__()
        positive_int("num_classes", num_classes)
        positive_int("width", width)
        self.in_channels = positive_int("in_channels", in_channels)
        check_options("NIFFNet", options, NIFFConv2d, fixed=("groups", "device", "dtype"))
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            *(NIFFBlock(width, **options) for _ in range(positive_int("blocks", blocks)))
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to class scores ``(N, num_classes)``."""
        feature_map("input", input, 2, self.in_channels)
        scores: Tensor = self.head(self.blocks(self.stem(input)).mean(dim=(2, 3)))
        return scores


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution, and of the shortcut.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``.

    Examples:
        >>> import torch
        >>> ResidualBlock(4, 8, 2)(torch.randn(2, 4, 7, 7)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, input: Tensor) -> Tensor:
        """Map a batch of maps."""
        hidden = self.norm1(self.conv1(input)).relu()
        output: Tensor = (self.norm2(self.conv2(hidden)) + self.shortcut(input)).relu()
        return output


class SmallResNet(nn.Module):
    """Ordinary residual network for small images: the one that others convert or compare with.

    A 3x3 convolution, max pooling, residual blocks of which all but the first halve the map,
    global average pooling and a linear classifier. Nothing in it is learned but weights.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of outputs.
        widths: Channels of every block; the stem has the first.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is below 1.

    Examples:
        >>> import torch
        >>> SmallResNet(1, 10)(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, in_channels: int, num_classes: int, widths: Sequence[int] = (32, 64, 128)
    ) -> None:
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels)
        positive_int("num_classes", num_classes)
        widths = ints("widths", widths)
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(widths[max(i - 1, 0)], width, 1 if i == 0 else 2)
                for i, width in enumerate(widths)
            )
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to class scores ``(N, num_classes)``."""
        feature_map("input", input, 2, self.in_channels)
        hidden = self.blocks(self.pool(self.norm(self.stem(input)).relu()))
        scores: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return scores
