"""NIFF and a pooling of its output, with one transform and a smaller inverse one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sizeless._validate import module
from sizeless._validate import options as check_options
from sizeless.functional.resampling import Resampling
from sizeless.nn._hooks import has_hooks
from sizeless.nn.diffstride import DiffStride1d, DiffStride2d, DiffStride3d, DiffStrideNd
from sizeless.nn.niff import NIFFConv1d, NIFFConv2d, NIFFConv3d, NIFFConvNd
from sizeless.nn.spectral_pool import SpectralPoolNd


class PooledNIFFConvNd(nn.Module):
    """NIFF and a pooling in any number of dimensions; see ``PooledNIFFConv2d``."""

    conv_class: ClassVar[type[NIFFConvNd]]
    pool_class: ClassVar[type[DiffStrideNd]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        bias: bool = False,
        *,
        pool: nn.Module | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_options(type(self).__name__, options, self.conv_class)
        self.conv: nn.Module = self.conv_class(
            in_channels, out_channels, groups, bias, device=device, dtype=dtype, **options
        )
        if pool is None:
            pool = self.pool_class(size_rule="exact", device=device, dtype=dtype)
        self.pool = self._checked(pool)

    def _checked(self, pool: nn.Module) -> nn.Module:
        wanted = self.pool_class
        if getattr(module("pool", pool), "ndim", wanted.ndim) != wanted.ndim:
            raise ValueError(
                f"pool must be None or a module such as {wanted.__name__}(2.0), got the "
                f"{pool.ndim}-D {type(pool).__name__}"
            )
        return pool

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, *spatial)`` to ``(N, out_channels, *pooled)``."""
        conv, pool = self.conv, self.pool
        if isinstance(conv, NIFFConvNd) and _may_fuse(conv, pool, input):
            resampling = _resampling(pool, input)
            if resampling is not None:
                return conv.resampled(input, resampling)
        output: Tensor = pool(conv(input))
        return output


def _may_fuse(conv: NIFFConvNd, pool: nn.Module, input: Any) -> bool:
    """Whether nothing but the output of both can be seen, or was changed by a class of its own.

    All is seen where ``torch.fx`` traces.
    """
    return (
        isinstance(input, Tensor)
        and type(conv).forward is NIFFConvNd.forward
        and not (has_hooks(conv) or has_hooks(pool))
    )


def _resampling(pool: nn.Module, input: Tensor) -> Resampling | None:
    """Return what a pool does to maps of this size, if it is known to resample them."""
    for kind in (DiffStrideNd, SpectralPoolNd):
        if isinstance(pool, kind) and type(pool).forward is kind.forward:
            return pool.resampling(input)
    return None


class PooledNIFFConv2d(PooledNIFFConvNd):
    r"""``NIFFConv2d`` followed by a pooling of learnable stride, in one step where it can be.

    $$
    y = \mathcal F_m^{-1}\big( \operatorname{crop}(m_h \otimes m_w \odot \hat W_H \odot
    \mathcal F_n(x)) \big)
    $$

    It equals ``pool(conv(input))``. Both multiply the spectrum, so one transform of the map and one
    inverse transform of the smaller output serve them, and the filter is needed at the frequencies
    of the output alone. Where the boundary is ``"zeros"``, the map grows, the pool is any other
    module, or somebody watches either of them by a hook, they are called one after the other.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: As for ``NIFFConv2d``: ``in_channels`` is depthwise, 1 is full.
        bias: Whether to add a trained bias, before the pooling.
        pool: The pooling module, such as ``DiffStride2d`` or ``SpectralPool2d``; ``None`` makes a
            ``DiffStride2d`` of stride 2 with the exact size rule.
        device: Where the parameters live.
        dtype: Their dtype.
        **options: Further keyword arguments of ``NIFFConv2d``, such as ``hidden``.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, *pool.output_size((H, W)))``.

    Raises:
        TypeError: If ``pool`` is no module, a count no int, or an option unknown.
        ValueError: If ``pool`` has other axes, or an argument of ``NIFFConv2d`` is not allowed.

    Source: Grabinski et al. 2024, arXiv 2307.10001, section 3, and Riad et al. 2022, arXiv
    2202.01653, section 2; that the two come to one pair of transforms is ours.

    Examples:
        >>> import torch
        >>> layer = PooledNIFFConv2d(4, 4, groups=4)
        >>> layer(torch.randn(2, 4, 28, 21)).shape, layer.pool.stride
        (torch.Size([2, 4, 14, 11]), (2.0, 2.0))
    """

    conv_class = NIFFConv2d
    pool_class = DiffStride2d


class PooledNIFFConv1d(PooledNIFFConvNd):
    """``NIFFConv1d`` and a pooling; formula and arguments as for ``PooledNIFFConv2d``.

    Shape:
        ``(N, in_channels, L)`` to ``(N, out_channels, *pool.output_size((L,)))``.

    Examples:
        >>> import torch
        >>> PooledNIFFConv1d(4, 4, groups=4)(torch.randn(2, 4, 161)).shape
        torch.Size([2, 4, 81])
    """

    conv_class = NIFFConv1d
    pool_class = DiffStride1d


class PooledNIFFConv3d(PooledNIFFConvNd):
    """``NIFFConv3d`` and a pooling; formula and arguments as for ``PooledNIFFConv2d``.

    Shape:
        ``(N, in_channels, D, H, W)`` to ``(N, out_channels, *pool.output_size((D, H, W)))``.

    Examples:
        >>> import torch
        >>> PooledNIFFConv3d(2, 4)(torch.randn(1, 2, 6, 7, 8)).shape
        torch.Size([1, 4, 3, 4, 4])
    """

    conv_class = NIFFConv3d
    pool_class = DiffStride3d
