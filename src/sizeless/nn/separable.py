"""Depthwise layers with a learned size, followed by a pointwise convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sizeless._validate import boolean, positive_int
from sizeless._validate import options as check_options
from sizeless.nn.flexconv import FlexConv1d, FlexConv2d, FlexConv3d, FlexConvNd
from sizeless.nn.niff import NIFFConv1d, NIFFConv2d, NIFFConv3d, NIFFConvNd

POINTWISE = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def _check(
    layer: SeparableFlexConvNd | SeparableNIFFConvNd,
    out_channels: int,
    bias: bool,
    options: dict[str, Any],
) -> None:
    """Raise for what the depthwise layer does not see or must not be given."""
    positive_int("out_channels", out_channels)
    boolean("bias", bias)
    if "groups" in options:
        raise TypeError(
            f"groups is in_channels in a separable layer, got groups={options['groups']!r}; "
            f"use {layer.depthwise_class.__name__} for other groups"
        )
    check_options(type(layer).__name__, options, layer.depthwise_class, fixed=("groups",))


class _Separable(nn.Module):
    """A depthwise layer and a 1x1 convolution."""

    depthwise: nn.Module
    pointwise: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)``."""
        output: Tensor = self.pointwise(self.depthwise(input))
        return output


class SeparableFlexConvNd(_Separable):
    """Depthwise FlexConv, then 1x1; see ``SeparableFlexConv2d``."""

    depthwise_class: type[FlexConvNd]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        _check(self, out_channels, bias, options)
        depthwise = self.depthwise_class(
            in_channels,
            in_channels,
            kernel_size,
            groups=in_channels,
            bias=bias,
            device=device,
            dtype=dtype,
            **options,
        )
        super().__init__()
        self.depthwise = depthwise
        self.pointwise = POINTWISE[depthwise.ndim](
            in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype
        )

    @property
    def size(self) -> tuple[int, ...]:
        """Size of the depthwise kernel in taps."""
        return cast(FlexConvNd, self.depthwise).size


class SeparableFlexConv2d(SeparableFlexConvNd):
    """Depthwise ``FlexConv2d`` followed by a 1x1 convolution.

    It generates ``in_channels`` kernels, not ``in_channels * out_channels``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Largest size of the kernel in taps.
        bias: Whether both convolutions have a bias.
        device: Where the parameters live.
        dtype: Their dtype.
        **options: Further keyword arguments of ``FlexConv2d``, such as ``init_size``.

    Source: Knigge et al. 2023, "CCNN", arXiv 2301.10540, section 4.

    Examples:
        >>> import torch
        >>> SeparableFlexConv2d(4, 6, 17)(torch.randn(2, 4, 16, 16)).shape
        torch.Size([2, 6, 16, 16])
    """

    depthwise_class = FlexConv2d


class SeparableFlexConv1d(SeparableFlexConvNd):
    """Depthwise ``FlexConv1d`` followed by a 1x1; arguments as for the 2-D layer.

    Examples:
        >>> import torch
        >>> SeparableFlexConv1d(4, 6, 100, causal=True)(torch.randn(2, 4, 100)).shape
        torch.Size([2, 6, 100])
    """

    depthwise_class = FlexConv1d


class SeparableFlexConv3d(SeparableFlexConvNd):
    """Depthwise ``FlexConv3d`` followed by a 1x1; arguments as for the 2-D layer.

    Examples:
        >>> import torch
        >>> SeparableFlexConv3d(2, 3, 5)(torch.randn(1, 2, 4, 5, 6)).shape
        torch.Size([1, 3, 4, 5, 6])
    """

    depthwise_class = FlexConv3d


class SeparableNIFFConvNd(_Separable):
    """Depthwise NIFF, then 1x1; see ``SeparableNIFFConv2d``."""

    depthwise_class: type[NIFFConvNd]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = False,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        _check(self, out_channels, bias, options)
        depthwise = self.depthwise_class(
            in_channels, in_channels, in_channels, device=device, dtype=dtype, **options
        )
        super().__init__()
        self.depthwise = depthwise
        self.pointwise = POINTWISE[depthwise.ndim](
            in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype
        )


class SeparableNIFFConv2d(SeparableNIFFConvNd):
    """Depthwise ``NIFFConv2d`` followed by a 1x1 convolution: the paper's "split" layer.

    The paper multiplies by the 1x1 matrix while still in the frequency domain; that is the same
    function, at the cost of a larger inverse transform.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether the 1x1 convolution has a bias; the paper's has none.
        device: Where the parameters live.
        dtype: Their dtype.
        **options: Further keyword arguments of ``NIFFConv2d``, such as ``hidden``.

    Source: Grabinski et al. 2024, arXiv 2307.10001, section 3.

    Examples:
        >>> import torch
        >>> SeparableNIFFConv2d(4, 6)(torch.randn(2, 4, 14, 14)).shape
        torch.Size([2, 6, 14, 14])
    """

    depthwise_class = NIFFConv2d


class SeparableNIFFConv1d(SeparableNIFFConvNd):
    """Depthwise ``NIFFConv1d`` followed by a 1x1; arguments as for the 2-D layer.

    Examples:
        >>> import torch
        >>> SeparableNIFFConv1d(4, 6)(torch.randn(2, 4, 100)).shape
        torch.Size([2, 6, 100])
    """

    depthwise_class = NIFFConv1d


class SeparableNIFFConv3d(SeparableNIFFConvNd):
    """Depthwise ``NIFFConv3d`` followed by a 1x1; arguments as for the 2-D layer.

    Examples:
        >>> import torch
        >>> SeparableNIFFConv3d(2, 3)(torch.randn(1, 2, 4, 5, 6)).shape
        torch.Size([1, 3, 4, 5, 6])
    """

    depthwise_class = NIFFConv3d
