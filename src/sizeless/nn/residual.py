"""Residual block whose branches share one learnable stride."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sizeless._validate import (
    feature_map,
    floating_dtype,
    module,
    parameter_dtype,
    positive_int,
)
from sizeless.nn._hooks import has_hooks
from sizeless.nn.diffstride import DiffStride1d, DiffStride2d, DiffStride3d, DiffStrideNd

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATIONS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _check_pool(pool: nn.Module, wanted: type[DiffStrideNd]) -> nn.Module:
    """Return ``pool`` if it is a module, and not one for another number of axes."""
    if getattr(module("pool", pool), "ndim", wanted.ndim) != wanted.ndim:
        raise ValueError(
            f"pool must be None or a module such as {wanted.__name__}(2.0), got the "
            f"{pool.ndim}-D {type(pool).__name__}"
        )
    return pool


class DiffStrideResidualNd(nn.Module):
    """Residual block in any number of dimensions; see ``DiffStrideResidual2d``."""

    pool_class: ClassVar[type[DiffStrideNd]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pool: nn.Module | None = None,
        *,
        kernel_size: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive_int("in_channels", in_channels)
        positive_int("out_channels", out_channels)
        floating_dtype(dtype)
        if positive_int("kernel_size", kernel_size) % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the map's size, got {kernel_size}")
        ndim = self.pool_class.ndim
        convolution, normalisation = CONVOLUTIONS[ndim], NORMALISATIONS[ndim]
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        made = self.pool_class(size_rule="exact", **factory) if pool is None else pool
        self.pool = _check_pool(made, self.pool_class)
        self.norm1 = normalisation(in_channels, **factory)
        self.conv1 = convolution(
            in_channels, out_channels, kernel_size, padding="same", bias=False, **factory
        )
        self.norm2 = normalisation(out_channels, **factory)
        self.conv2 = convolution(
            out_channels, out_channels, kernel_size, padding="same", bias=False, **factory
        )
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else convolution(in_channels, out_channels, 1, bias=False, **factory)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, *spatial)`` to ``(N, out_channels, *pooled)``."""
        feature_map("input", input, self.pool_class.ndim, self.conv1.in_channels)
        parameter_dtype("input", input, self.conv1.weight)
        hidden = self.norm1(input).relu()
        if isinstance(self.pool, DiffStrideNd) and self._may_fuse(input):
            resampling = self.pool.resampling(input)
            hidden = resampling.after_convolution(hidden, self.conv1.weight)
            pooled = resampling(input)
        else:
            hidden, pooled = self.pool(self.conv1(hidden)), self.pool(input)
        hidden = self.conv2(self.norm2(hidden).relu())
        # Pooling commutes with the 1x1 convolution; first, it leaves that less to do.
        output: Tensor = hidden + self.shortcut(pooled)
        return output

    def _may_fuse(self, input: Tensor) -> bool:
        """Whether nothing but the output of pool and convolution can be seen or was changed.

        All is seen where ``torch.fx`` traces.
        """
        if not isinstance(input, Tensor):
            return False
        convolution = self.conv1
        as_made = (
            type(convolution) is CONVOLUTIONS[self.pool_class.ndim]
            and convolution.padding == "same"
            and convolution.padding_mode == "zeros"
            and convolution.bias is None
            and convolution.groups == 1
            and {*convolution.stride, *convolution.dilation} == {1}
        )
        return as_made and not (has_hooks(convolution) or has_hooks(self.pool))


class DiffStrideResidual2d(DiffStrideResidualNd):
    r"""2-D pre-activation residual block whose two branches share one learnable stride.

    $$
    y = C_2\, \sigma\, B_2\, P\, C_1\, \sigma\, B_1\, x + C_s\, P\, x
    $$

    with convolutions $C$, batch normalisation $B$, ReLU $\sigma$ and one pooling
    module $P$ that both branches call, so their sizes always agree and both gradients reach
    its stride. The shortcut pools before its 1x1 convolution: the two commute.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; if equal, the shortcut has no convolution.
        pool: The pooling module; ``None`` makes a ``DiffStride2d`` of stride 2 with the exact
            size rule.
        kernel_size: Odd size of the two convolutions.
        device: Where the parameters live.
        dtype: Their dtype.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, *pool.output_size((H, W)))``.

    Raises:
        TypeError: If a count is no int or ``pool`` no module.
        ValueError: If ``kernel_size`` is even, a count is below 1 or ``pool`` has other axes.

    Source: Riad et al. 2022, arXiv 2202.01653, figure 2b, in pre-activation form.

    Examples:
        >>> import torch
        >>> DiffStrideResidual2d(4, 8)(torch.randn(2, 4, 32, 32)).shape
        torch.Size([2, 8, 16, 16])
    """

    pool_class = DiffStride2d


class DiffStrideResidual1d(DiffStrideResidualNd):
    """1-D residual block with a shared stride; as ``DiffStrideResidual2d``.

    Examples:
        >>> import torch
        >>> DiffStrideResidual1d(4, 8)(torch.randn(2, 4, 100)).shape
        torch.Size([2, 8, 50])
    """

    pool_class = DiffStride1d


class DiffStrideResidual3d(DiffStrideResidualNd):
    """3-D residual block with a shared stride; as ``DiffStrideResidual2d``.

    Examples:
        >>> import torch
        >>> DiffStrideResidual3d(2, 4)(torch.randn(2, 2, 8, 8, 8)).shape
        torch.Size([2, 4, 4, 4, 4])
    """

    pool_class = DiffStride3d
