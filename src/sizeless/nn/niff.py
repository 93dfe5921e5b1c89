"""NIFF: convolution whose filter is a function of frequency, as large as the map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from sizeless._validate import (
    boolean,
    channels,
    feature_map,
    int_tuple,
    one_of,
    parameter_dtype,
)
from sizeless.functional.circular import circular_convolve, hermitian_half, spatial_kernel
from sizeless.functional.convolution import convolve
from sizeless.functional.fft import no_autocast
from sizeless.kernels import MLP, coordinate_grid
from sizeless.kernels.base import linears
from sizeless.nn.sized import Size

BOUNDARIES = ("circular", "zeros")
FREQUENCY_UNITS = ("cycles/map", "cycles/pixel")


class NIFFConvNd(nn.Module):
    r"""Frequency filter in any number of dimensions; see ``NIFFConv2d`` for the arguments."""

    ndim: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        bias: bool = False,
        *,
        hidden: Sequence[int] = (8, 4),
        boundary: str = "circular",
        frequency_unit: str = "cycles/map",
        half_sample_grid: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        counts = channels(in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = counts
        self.boundary = one_of("boundary", boundary, BOUNDARIES)
        self.frequency_unit = one_of("frequency_unit", frequency_unit, FREQUENCY_UNITS)
        self.half_sample_grid = boolean("half_sample_grid", half_sample_grid)
        features = out_channels * in_channels // groups
        self.real, self.imag = (
            MLP(self.ndim, features, hidden=hidden, activation=nn.SiLU, device=device, dtype=dtype)
            for _ in range(2)
        )
        self.bias = (
            nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
            if boolean("bias", bias)
            else None
        )
        self.map_size: tuple[int, ...] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both networks anew, as the authors' ResNets do (Kaiming normal, fan-out)."""
        for network in (self.real, self.imag):
            network.reset_parameters()
            for linear in [*linears(network.linears), network.output]:
                nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def frequencies(self, map_size: int | Sequence[int]) -> Tensor:
        """Signed frequencies of a map, ``(*map_size, ndim)``, in the order and unit of the layer.

        Args:
            map_size: Spatial size of the map; one int serves every axis.

        Returns:
            Tensor of frequencies in FFT order, in ``frequency_unit``.
        """
        device, dtype = self.real.output.weight.device, self.real.basis_dtype
        axes = []
        for n in int_tuple("map_size", map_size, self.ndim):
            k = torch.arange(n, device=device)
            k = torch.where(k < (n + 1) // 2, k, k - n).to(dtype)
            if self.half_sample_grid and n % 2:
                k = k - 0.5
            axes.append(k / n if self.frequency_unit == "cycles/pixel" else k)
        return coordinate_grid(axes)

    def half_spectrum(self, map_size: int | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of the filters' Hermitian half spectrum for a map.

        Args:
            map_size: Spatial size of the map; one int serves every axis.

        Returns:
            Two real tensors ``(out, in / groups, *map_size[:-1], map_size[-1] // 2 + 1)`` in the
            layout of ``torch.fft.rfftn``.
        """
        frequencies = self.frequencies(map_size)
        # Filters are made in full precision under autocast.
        with no_autocast(frequencies.device.type):
            shape = (self.out_channels, self.in_channels // self.groups, *frequencies.shape[:-1])
            real, imag = (
                network(frequencies).movedim(-1, 0).reshape(shape)
                for network in (self.real, self.imag)
            )
            return hermitian_half(real, imag, self.ndim)

    def spatial_kernel(self, map_size: int | Sequence[int]) -> Tensor:
        """The real kernel of the convolution for a map, centred at ``map_size // 2``.

        It is a kernel of true convolution: correlation layers have it flipped.

        Args:
            map_size: Spatial size of the map; one int serves every axis.

        Returns:
            Tensor of shape ``(out_channels, in_channels / groups, *map_size)``.
        """
        sizes = int_tuple("map_size", map_size, self.ndim)
        return spatial_kernel(*self.half_spectrum(sizes), sizes)

    def forward(self, input: Tensor) -> Tensor:
        """Filter ``(N, in_channels, *spatial)`` into ``(N, out_channels, *spatial)``."""
        feature_map("input", input, self.ndim, self.in_channels)
        parameter_dtype("input", input, self.real.output.weight)
        size = tuple(input.shape[2:])
        self.map_size = size
        if self.boundary == "circular":
            return circular_convolve(input, *self.half_spectrum(size), self.bias, self.groups)
        axes = tuple(range(2, 2 + self.ndim))
        weight = self.spatial_kernel(size).flip(axes)
        return convolve(input, weight, self.bias, padding="same", groups=self.groups)

    def describe_size(self) -> Size:
        """Return the extent of the filter: the map that was seen last."""
        size = self.map_size or ()
        pairs = self.out_channels * self.in_channels // self.groups
        transforms = 1.25 * (self.in_channels + self.out_channels) * math.log2(math.prod(size))
        return Size(
            kind="filter extent",
            size=size,
            window=None,
            center=None,
            limits=((1, math.inf),) * self.ndim,
            cost=transforms + 2 * pairs,
        )

    def extra_repr(self) -> str:
        """Show the channels and what is not the default."""
        text = f"{self.in_channels}, {self.out_channels}, groups={self.groups}"
        text += f", boundary={self.boundary!r}, frequency_unit={self.frequency_unit!r}"
        return text if self.bias is not None else text + ", bias=False"


class NIFFConv2d(NIFFConvNd):
    r"""2-D convolution with a filter that two small networks give at every frequency.

    $$
    Y = \mathcal F^{-1}\big( \hat W_H \odot \mathcal F(X) \big), \qquad
    \hat W(\omega) = f_R(\omega) + i f_I(\omega), \qquad
    \hat W_H[k] = \tfrac12 \big( \hat W[k] + \overline{\hat W[-k \bmod N]} \big)
    $$

    The kernel is as large as the map, whatever its size: even, odd, rectangular, another at each
    call. Only the Hermitian part $\hat W_H$ of what the networks generate can act on a real
    map, so it is taken first, and one pair of real half-spectrum transforms does the rest.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: ``in_channels`` is the paper's depthwise layer, 1 its "full" layer.
        bias: Whether to add a trained bias; the paper's layers have none.
        hidden: Widths of the hidden layers of both networks (SiLU between layers): ``(8, 4)`` in
            the paper's ResNets, ``(16, 128, 32)`` in its ConvNeXts, ``(8,)`` in its full layers.
        boundary: ``"circular"`` wraps around the map's edges, as the paper does; ``"zeros"`` pads
            with zeros instead (a linear convolution with the same kernel).
        frequency_unit: Unit of the networks' input. ``"cycles/map"``, the paper's: kernels keep
            their size relative to the map. ``"cycles/pixel"``: they keep it in pixels.
        half_sample_grid: Shift the frequencies of odd-sized axes by half a cycle per map, as the
            authors' program does. Only for its checkpoints.
        device: Where the parameters live.
        dtype: Their dtype.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.

    Raises:
        TypeError: If a count is no int.
        ValueError: If ``groups`` does not divide the channels, or a name or width is not allowed.

    Source: Grabinski et al. 2024, "As large as it gets", TMLR, arXiv 2307.10001, section 3.

    Examples:
        >>> import torch
        >>> layer = NIFFConv2d(8, 8, groups=8)
        >>> layer(torch.randn(2, 8, 28, 21)).shape, layer.spatial_kernel((28, 21)).shape
        (torch.Size([2, 8, 28, 21]), torch.Size([8, 1, 28, 21]))
    """

    ndim = 2


class NIFFConv1d(NIFFConvNd):
    """1-D frequency filter; formula and arguments as in ``NIFFConv2d``.

    Shape:
        ``(N, in_channels, L)`` to ``(N, out_channels, L)``.

    Examples:
        >>> import torch
        >>> NIFFConv1d(4, 4, groups=4)(torch.randn(2, 4, 161)).shape
        torch.Size([2, 4, 161])
    """

    ndim = 1


class NIFFConv3d(NIFFConvNd):
    """3-D frequency filter; formula and arguments as in ``NIFFConv2d``.

    Shape:
        ``(N, in_channels, D, H, W)`` to ``(N, out_channels, D, H, W)``.

    Examples:
        >>> import torch
        >>> NIFFConv3d(2, 4)(torch.randn(1, 2, 5, 6, 7)).shape
        torch.Size([1, 4, 5, 6, 7])
    """

    ndim = 3
