"""Spectral pooling: resizing in the frequency domain with a fixed stride."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from sizeless._validate import feature_map, float_tuple, int_tuple, one_of
from sizeless.functional.fft import spectral_dtype
from sizeless.functional.resampling import AMPLITUDES, Resampling

ROUNDING = 1e-4
"""Sizes this close above an integer are that integer: strides are float32."""


def exact_size(size: int, stride: float) -> int:
    """Smallest number of samples that holds all frequencies below ``size / (2 stride)``.

    As a strided convolution with "same" padding: ``ceil(size / stride)``.

    Examples:
        >>> exact_size(32, 2.0), exact_size(7, 2.0), exact_size(32, 3.0)
        (16, 4, 11)
    """
    return max(math.ceil(size / stride - ROUNDING), 1)


class SpectralPoolNd(nn.Module):
    """Spectral pooling in any number of dimensions; see ``SpectralPool2d``."""

    ndim: ClassVar[int]

    def __init__(
        self,
        stride: float | Sequence[float] | None = None,
        output_size: int | Sequence[int] | None = None,
        *,
        amplitude: str = "mean",
    ) -> None:
        super().__init__()
        if (stride is None) == (output_size is None):
            raise ValueError(
                "give either stride or output_size, and not both: got "
                f"stride={stride!r} and output_size={output_size!r}"
            )
        self.amplitude = one_of("amplitude", amplitude, AMPLITUDES)
        self._stride = self._fixed_size = None
        if stride is not None:
            self._stride = float_tuple("stride", stride, self.ndim)
            if any(s < 1 for s in self._stride):
                raise ValueError(f"stride must be at least 1 on every axis, got {stride!r}")
        else:
            self._fixed_size = int_tuple("output_size", output_size, self.ndim)

    @property
    def stride(self) -> tuple[float, ...] | None:
        """The stride of each axis; ``None`` if the output size is fixed instead."""
        return self._stride

    def output_size(self, input_size: int | Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for an input of ``input_size``."""
        sizes = int_tuple("input_size", input_size, self.ndim)
        if self._stride is None:
            return self._fixed_size or sizes
        return tuple(exact_size(n, s) for n, s in zip(sizes, self._stride, strict=True))

    def forward(self, input: Tensor) -> Tensor:
        """Resize ``(N, C, *spatial)`` to ``(N, C, *output_size(spatial))``."""
        return self.resampling(input)(input)

    def resampling(self, input: Tensor) -> Resampling:
        """Set up what ``forward`` does to maps of the size of ``input``."""
        feature_map("input", input, self.ndim)
        # A compiler makes one graph for each size of the maps.
        sizes = tuple(operator.index(size) for size in input.shape[2:])
        return Resampling(
            sizes,
            self.output_size(sizes),
            None,
            amplitude=self.amplitude,
            method="auto",
            dtype=spectral_dtype(input),
            device=input.device,
        )

    def extra_repr(self) -> str:
        """Show the stride or the fixed size."""
        return (
            f"output_size={self._fixed_size}" if self._stride is None else f"stride={self._stride}"
        )


class SpectralPool2d(SpectralPoolNd):
    r"""2-D spectral pooling: crop the spectrum to a smaller map, with a fixed stride.

    The baseline of DiffStride: ``sizeless.functional.resample`` to
    $\lceil D / S \rceil$ samples per axis, or to a fixed size. Fractional strides are
    allowed; nothing is learned.

    Args:
        stride: Stride of at least 1: one number or one per axis.
        output_size: Fixed size of the output instead: an int or one per axis.
        amplitude: ``"mean"`` keeps the mean of the map, ``"sum"`` its sum (the original).

    Shape:
        ``(N, C, H, W)`` to ``(N, C, *output_size((H, W)))``.

    Raises:
        ValueError: If both or neither of ``stride`` and ``output_size`` are given, or a stride is
            below 1.

    Source: Rippel et al. 2015, arXiv 1506.03767.

    Examples:
        >>> import torch
        >>> SpectralPool2d(stride=1.7)(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 3, 19, 19])
    """

    ndim = 2


class SpectralPool1d(SpectralPoolNd):
    """1-D spectral pooling; arguments as in ``SpectralPool2d``.

    Examples:
        >>> import torch
        >>> SpectralPool1d(output_size=10)(torch.randn(1, 3, 161)).shape
        torch.Size([1, 3, 10])
    """

    ndim = 1


class SpectralPool3d(SpectralPoolNd):
    """3-D spectral pooling; arguments as in ``SpectralPool2d``.

    Examples:
        >>> import torch
        >>> SpectralPool3d(2.0)(torch.randn(1, 2, 8, 9, 10)).shape
        torch.Size([1, 2, 4, 5, 5])
    """

    ndim = 3
