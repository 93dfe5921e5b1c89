"""Images as sequences: row by row, in a fixed random order, or as rows followed by noise."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

PERMUTATION_SEED = 92916
"""Seed of the permuted order: the one that published code for permuted MNIST has in common."""

NOISE_SEED = 2022
"""Seed of the noise that follows the rows of an image."""


def permutation(length: int) -> Tensor:
    """Return the order in which permuted sequences show their pixels, the same in every run.

    It is ``numpy.random.RandomState(92916).permutation(length)``: NumPy keeps the streams of
    ``RandomState`` as they are. FlexConv's own order followed the seed of a run.

    Args:
        length: Number of pixels.

    Examples:
        >>> permutation(784)[:5].tolist()
        [319, 576, 323, 107, 355]
    """
    order = numpy.random.RandomState(PERMUTATION_SEED).permutation(length)
    return torch.as_tensor(order, dtype=torch.long)


class Scan:
    """Makes images ``(N, C, H, W)`` sequences ``(N, C, H * W)``, row by row from the top left.

    Args:
        pixels: Number of pixels of an image.
        permuted: Whether to show the pixels in the order of ``permutation`` instead.

    Examples:
        >>> Scan(pixels=4)(torch.tensor([[[[1, 2], [3, 4]]]])).tolist()
        [[[1, 2, 3, 4]]]
    """

    def __init__(self, pixels: int, permuted: bool = False) -> None:
        self.order = permutation(pixels) if permuted else None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the sequences."""
        sequences = images.flatten(-2)
        return sequences if self.order is None else sequences[..., self.order]


class RowsThenNoise:
    """Makes images sequences of their rows, followed by noise that is the same for all of them.

    Row h is step h, with ``C * W`` features in the order of channels: feature ``c * W + w``. The
    other steps are noise from N(0, 1), made once. What the network has to say at the end it has
    seen ``length - H`` steps before.

    Args:
        channels: Channels of an image.
        side: Height and width of an image.
        length: Steps of a sequence.

    Raises:
        ValueError: If the rows do not fit in ``length``.

    Source: npCIFAR10 of Romero et al. 2022, arXiv 2110.08059, with 1,000 steps.

    Examples:
        >>> RowsThenNoise(channels=3, side=32, length=1000)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 96, 1000])
    """

    def __init__(self, channels: int, side: int, length: int) -> None:
        if length < side:
            raise ValueError(f"length must be at least {side}, the rows of an image, got {length}")
        noise = numpy.random.RandomState(NOISE_SEED).standard_normal((channels * side, length))
        self.noise = torch.as_tensor(noise[:, side:], dtype=torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the sequences."""
        rows = images.transpose(-1, -2).flatten(1, 2)
        return torch.cat([rows, self.noise.expand(len(images), -1, -1)], dim=-1)
