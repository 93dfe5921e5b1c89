"""What the papers' networks are put together from, besides the layers of ``sizeless.nn``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizeless._validate import float_tuple, int_tuple, one_of
from sizeless._validate import options as check_options
from sizeless.nn import (
    DiffStride2d,
    FlexConv1d,
    FlexConv2d,
    FlexConvNd,
    GaussianWindow,
    Size,
    SpectralPool2d,
)
from sizeless.nn._flexconv_arguments import KernelFactory, check_kernel_size
from sizeless.nn.crop import Place
from sizeless.nn.diffstride import SIZE_RULES
from sizeless.nn.sized import size_dtype
from sizeless.nn.spectral_pool import ROUNDING

FIXED = ("stride", "padding", "causal", "device", "dtype")
"""Options that a network does not pass on: its blocks keep the map's size, it moves as a whole."""

OPEN = 1e9
"""Width of a window that is 1 on all taps, in any precision, in units of half the axis."""

Convolution = Callable[[int, int], nn.Module]
"""Makes a convolution from its channels in and out."""

Pooling = Callable[[Sequence[float]], nn.Module]
"""Makes a pooling layer from its strides."""


class OpenWindow(GaussianWindow):
    """Window that lets every tap pass, and has nothing to learn; arguments as its parent's."""

    def __init__(
        self,
        taps: Sequence[int],
        *,
        causal: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            taps,
            taps,
            causal=causal,
            learn_center=False,
            min_sizes=taps,
            device=device,
            dtype=dtype,
        )
        width = self.log_sigma.detach()
        del self.log_sigma
        self.register_buffer("log_sigma", width, persistent=False)
        self.widest = OPEN

    def reset_parameters(self) -> None:
        """Open the window, in place."""
        with torch.no_grad():
            self.log_sigma.fill_(math.log(OPEN))
            self.raw_center.fill_(self._first_center)

    def resize_(self, taps: Sequence[int]) -> None:
        """Open the window on other numbers of taps."""
        self.taps = self.init_sizes = self.min_sizes = tuple(taps)

    def read(self) -> list[Place]:
        """Width and centre of each axis."""
        return [(OPEN, self._first_center)] * self.ndim

    def relaxed_size(self) -> Tensor:
        """Size of each axis in taps, ``(ndim,)``."""
        return self.log_sigma.new_tensor(self.taps)


class CKConvNd(FlexConvNd):
    """Convolution with a continuous kernel of fixed size; see ``CKConv2d``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: KernelFactory | None = None,
        causal: bool = False,
        init: str = "variance",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
            kernel=kernel,
            causal=causal,
            init=init,
        )
        self.window = self._open_window(device, size_dtype(dtype))
        self.register_load_state_dict_post_hook(_open_after_loading)
        self.reset_parameters()

    def _open_window(
        self, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> OpenWindow:
        return OpenWindow(self.kernel_size, causal=self.causal, device=device, dtype=dtype)

    def _place_kernel(self) -> None:
        """Leave the network's units where it draws them: all over the kernel."""

    def describe_size(self) -> Size:
        """Return the size, which is fixed; see ``sizeless.sizes``."""
        return dataclasses.replace(super().describe_size(), window=None, center=None)


def _open_after_loading(layer: CKConvNd, _incompatible_keys: object) -> None:
    """Make the window, which is in no state dict, anew beside what was loaded."""
    like = layer.kernel.output.weight
    layer.window = layer._open_window(like.device, size_dtype(like.dtype))


class CKConv2d(CKConvNd):
    """2-D convolution whose kernel a network renders on all of its taps, with no window.

    The predecessor of ``FlexConv2d`` and its ablation: the kernel keeps the size that it is given.
    Arguments as there, without those of window and stride.

    Source: Romero et al. 2022, "CKConv", arXiv 2102.02611.

    Examples:
        >>> import torch
        >>> layer = CKConv2d(3, 4, kernel_size=9)
        >>> layer(torch.randn(2, 3, 8, 8)).shape, layer.size
        (torch.Size([2, 4, 8, 8]), (9, 9))
    """

    ndim = 2


class CKConv1d(CKConvNd):
    """1-D convolution with a continuous kernel of fixed length; as ``CKConv2d``.

    Examples:
        >>> import torch
        >>> layer = CKConv1d(1, 4, kernel_size=20, causal=True)
        >>> layer(torch.randn(2, 1, 20)).shape, layer.size
        (torch.Size([2, 4, 20]), (20,))
    """

    ndim = 1


class CausalConv1d(nn.Conv1d):
    """``torch.nn.Conv1d`` that pads the past only, so that no output sees a later input.

    Examples:
        >>> import torch
        >>> CausalConv1d(1, 4, kernel_size=3)(torch.randn(2, 1, 20)).shape
        torch.Size([2, 4, 20])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, L)`` to ``(N, out_channels, L)``."""
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(input, (reach, 0), mode=mode)
        return F.conv1d(padded, self.weight, self.bias, dilation=self.dilation, groups=self.groups)


IMAGE_CONVOLUTIONS = {"flex": FlexConv2d, "ckconv": CKConv2d, "plain": nn.Conv2d}
CAUSAL_CONVOLUTIONS = {"flex": FlexConv1d, "ckconv": CKConv1d, "plain": CausalConv1d}


def image_convolution(owner: str, conv: str, kernel_size: int, **options: Any) -> Convolution:
    """Return what makes the convolutions of a network for images.

    Args:
        owner: The network, for messages.
        conv: ``"flex"``, ``"ckconv"`` or ``"plain"``.
        kernel_size: Size of the kernels; for ``"flex"`` the largest.
        **options: Further keyword arguments of the convolution.

    Raises:
        TypeError: If an option is unknown to that kind of convolution.
        ValueError: If ``conv`` is unknown or ``kernel_size`` even.
    """
    kind = IMAGE_CONVOLUTIONS[one_of("conv", conv, tuple(IMAGE_CONVOLUTIONS))]
    check_options(owner, options, kind, fixed=FIXED)
    check_kernel_size(kernel_size, 2, causal=False)

    def make(in_channels: int, out_channels: int) -> nn.Module:
        if conv == "flex":
            return FlexConv2d(in_channels, out_channels, kernel_size, **options)
        if conv == "ckconv":
            return CKConv2d(in_channels, out_channels, kernel_size, **options)
        return nn.Conv2d(in_channels, out_channels, kernel_size, padding="same", **options)

    return make


def causal_convolution(owner: str, conv: str, kernel_size: int, **options: Any) -> Convolution:
    """Return what makes the convolutions of a network for sequences; as ``image_convolution``."""
    kind = CAUSAL_CONVOLUTIONS[one_of("conv", conv, tuple(CAUSAL_CONVOLUTIONS))]
    check_options(owner, options, kind, fixed=FIXED)
    check_kernel_size(kernel_size, 1, causal=True)

    def make(in_channels: int, out_channels: int) -> nn.Module:
        if conv == "flex":
            return FlexConv1d(in_channels, out_channels, kernel_size, causal=True, **options)
        if conv == "ckconv":
            return CKConv1d(in_channels, out_channels, kernel_size, causal=True, **options)
        return CausalConv1d(in_channels, out_channels, kernel_size, **options)

    return make


class PaperSpectralPool2d(SpectralPool2d):
    """Spectral pooling to the sizes of the DiffStride paper's baseline.

    Both sides are divided by the stride and rounded down, to an even number of rows, and are at
    least 2.

    Examples:
        >>> PaperSpectralPool2d(2.0).output_size((10, 10))
        (4, 5)
    """

    def output_size(self, input_size: int | Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for an input of ``input_size``."""
        sizes = int_tuple("input_size", input_size, self.ndim)
        height, width = (
            int(n / s + ROUNDING) for n, s in zip(sizes, self.stride or (1.0, 1.0), strict=True)
        )
        wanted = (height - height % 2, width)
        return tuple(min(max(m, 2), n) for m, n in zip(wanted, sizes, strict=True))


def pooling_layer(owner: str, pooling: str, size_rule: str, **options: Any) -> Pooling:
    """Return what makes the pooling layers of a network for images.

    Args:
        owner: The network, for messages.
        pooling: ``"diffstride"``, ``"spectral"``, or one that strides and needs no layer.
        size_rule: ``"paper"`` or ``"exact"``.
        **options: Further keyword arguments of the layer.

    Raises:
        TypeError: If an option is unknown to that pooling.
        ValueError: If ``size_rule`` is unknown.
    """
    one_of("size_rule", size_rule, SIZE_RULES)
    if pooling == "diffstride":
        fixed = ("stride", "size_rule", "device", "dtype")
        check_options(owner, options, DiffStride2d, fixed=fixed)
    elif pooling == "spectral":
        check_options(owner, options, SpectralPool2d, fixed=("stride", "output_size"))
    elif options:
        name, value = next(iter(options.items()))
        raise TypeError(
            f"{owner} takes no option {name}={value!r} with pooling={pooling!r}, which has none"
        )

    def make(stride: Sequence[float]) -> nn.Module:
        if pooling == "diffstride":
            return DiffStride2d(stride, size_rule=size_rule, **options)
        if size_rule == "paper":
            return PaperSpectralPool2d(stride, **options)
        return SpectralPool2d(stride, **options)

    return make


def check_strides(
    strides: Any, count: int, pooling: str
) -> list[tuple[float, ...]] | list[tuple[int, int]]:
    """Return a pair of strides for each of ``count`` places where a network pools."""
    if isinstance(strides, str) or not isinstance(strides, Sequence):
        raise TypeError(f"strides must be a tuple of numbers, got {strides!r}")
    if len(strides) != count:
        raise ValueError(f"strides must hold {count} numbers, got {strides!r}")
    pairs = [float_tuple("strides", stride, 2) for stride in strides]
    if min(map(min, pairs)) < 1:
        raise ValueError(f"strides must be at least 1, got {strides!r}")
    if pooling in {"diffstride", "spectral"}:
        return pairs
    if not all(stride.is_integer() for pair in pairs for stride in pair):
        raise ValueError(f"strides must be whole numbers with pooling={pooling!r}, got {strides!r}")
    return [(int(vertical), int(horizontal)) for vertical, horizontal in pairs]
