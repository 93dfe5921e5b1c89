"""A network for spectrograms, with learned or fixed strides, for one task or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sizeless._validate import (
    feature_map,
    ints,
    is_int,
    number,
    one_of,
    positive_int,
)
from sizeless.models.parts import Pooling, check_strides, pooling_layer

POOLINGS = ("diffstride", "spectral", "strided", "max")


class AudioBlock(nn.Module):
    """A convolution along time and one along frequency, each with ReLU and normalisation; a pool.

    Args:
        in_channels: Channels of the input.
        width: Channels of the output.
        dropout: Dropout rate before the pool.
        pool: The pooling module.
        strides: Strides of the convolution along time and of that along frequency.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        dropout: float,
        pool: nn.Module,
        strides: tuple[Any, ...] = (1, 1),
    ) -> None:
        super().__init__()
        self.time = nn.Conv2d(in_channels, width, (3, 1), (strides[0], 1), padding=(1, 0))
        self.norm1 = nn.BatchNorm2d(width)
        self.frequency = nn.Conv2d(width, width, (1, 3), (1, strides[1]), padding=(0, 1))
        self.norm2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.pool = pool

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, T, F)`` to ``(N, width, T', F')``."""
        hidden = self.norm1(self.time(input).relu())
        hidden = self.norm2(self.frequency(hidden).relu())
        output: Tensor = self.pool(self.dropout(hidden))
        return output


class AudioNet(nn.Module):
    r"""Network for log-mel spectrograms that pools time and frequency by learned strides.

    Blocks of a convolution along time (3x1) and one along frequency (1x3), each with ReLU and
    batch normalisation; dropout and a pooling at the end of every block; the maximum over time and
    frequency; one linear classifier for each task. The encoder has 3,537,216 parameters, and 12
    more as strides.

    The fixed twins pool where the strides are above 1: by spectral pooling, by the strides of the
    block's two convolutions, or by the maximum of ``stride`` neighbours. All maps have the same
    sizes, the input's over the strides, rounded up, unless ``size_rule="paper"``.

    Args:
        in_channels: Channels of the spectrogram.
        num_classes: Number of outputs; a sequence of them for several tasks.
        strides: Initial strides of every block, one number or (time, frequency). Ints of at least
            1 for ``"strided"`` and ``"max"``, any number for the others.
        widths: Channels of every block.
        dropout: Dropout rate in every block.
        pooling: ``"diffstride"``, ``"spectral"``, ``"strided"`` or ``"max"``.
        size_rule: ``"exact"`` or ``"paper"``: what the sizes of maps are after ``"diffstride"``
            and ``"spectral"``; see ``DiffStrideResNet``.
        **options: Further keyword arguments of the pooling layer, ``DiffStride2d`` or
            ``SpectralPool2d``.

    Shape:
        ``(N, in_channels, T, F)`` to ``(N, num_classes)``; for several tasks, to a tuple of these.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If a count is below 1, or strides are out of range or too few.

    Source: Riad et al. 2022, arXiv 2202.01653. Their audio network is in no public program;
    channels, kernels, dropout and the pooling ``"max"`` are those of the same group's ``ConvNet``
    in google-research/leaf-audio. Learned strides at every block, and the exact size rule, are
    choices made here.

    Examples:
        >>> import torch
        >>> spectrogram = torch.randn(2, 1, 50, 40)
        >>> small = {"strides": (2, 2), "widths": (8, 16)}
        >>> AudioNet(num_classes=35, **small)(spectrogram).shape
        torch.Size([2, 35])
        >>> [logits.shape[1] for logits in AudioNet(num_classes=(35, 2), **small)(spectrogram)]
        [35, 2]
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int | Sequence[int] = 10,
        strides: Sequence[float | Sequence[float]] = (2, 2, 1, 2, 1, 2),
        widths: Sequence[int] = (64, 128, 256, 256, 512, 512),
        dropout: float = 0.1,
        pooling: str = "diffstride",
        size_rule: str = "exact",
        **options: Any,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels)
        self.is_single = is_int(num_classes)
        classes = (
            (positive_int("num_classes", num_classes),)
            if self.is_single
            else ints("num_classes", num_classes)
        )
        widths = ints("widths", widths)
        number("dropout", dropout, minimum=0, maximum=1)
        one_of("pooling", pooling, POOLINGS)
        make_pool = pooling_layer("AudioNet", pooling, size_rule, **options)
        pairs = check_strides(strides, len(widths), pooling)
        self.blocks = nn.Sequential(
            *(
                _block(n, m, dropout, pooling, stride, make_pool)
                for n, m, stride in zip((in_channels, *widths[:-1]), widths, pairs, strict=True)
            )
        )
        self.heads = nn.ModuleList(nn.Linear(widths[-1], count) for count in classes)

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map ``(N, in_channels, T, F)`` to class scores ``(N, num_classes)``, one per task."""
        feature_map("input", input, 2, self.in_channels)
        hidden = self.blocks(input).amax(dim=(2, 3))
        scores = tuple(head(hidden) for head in self.heads)
        return scores[0] if self.is_single else scores


def _block(
    in_channels: int,
    width: int,
    dropout: float,
    pooling: str,
    stride: tuple[Any, ...],
    make_pool: Pooling,
) -> AudioBlock:
    if pooling in {"diffstride", "spectral"}:
        return AudioBlock(in_channels, width, dropout, make_pool(stride))
    if pooling == "strided":
        return AudioBlock(in_channels, width, dropout, nn.Identity(), stride)
    return AudioBlock(in_channels, width, dropout, nn.MaxPool2d(stride, ceil_mode=True))
