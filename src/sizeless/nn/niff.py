"""NIFF: convolution whose filter is a function of frequency, as large as the map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sizeless._validate import (
    boolean,
    channels,
    feature_map,
    int_tuple,
    one_of,
    parameter_dtype,
)
from sizeless.functional.circular import centred_kernel
from sizeless.functional.circular_products import circular_flops, convolve_spectra
from sizeless.functional.circular_spectra import half_of
from sizeless.functional.constants import constant
from sizeless.functional.convolution import convolve
from sizeless.functional.fft import no_autocast, result_dtype
from sizeless.kernels import MLP, coordinate_grid
from sizeless.kernels.base import linears
from sizeless.nn.caching import Caching
from sizeless.nn.evaluated import evaluate, is_evaluated
from sizeless.nn.sized import Size

BOUNDARIES = ("circular", "zeros")
FREQUENCY_UNITS = ("cycles/map", "cycles/pixel")


class NIFFConvNd(Caching):
    r"""Frequency filter in any number of dimensions; see ``NIFFConv2d`` for the arguments.

    Without gradients, the filters of the last few map sizes are kept while no parameter changes.
    """

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
        sizes = int_tuple("map_size", map_size, self.ndim)
        return coordinate_grid(_axes(sizes, [torch.arange(n) for n in sizes], *self._grid()))

    def _grid(self) -> tuple[bool, bool, torch.dtype, torch.device]:
        """What frequencies depend on beside the size of the map."""
        per_pixel, like = self.frequency_unit == "cycles/pixel", self.real.output.weight
        return per_pixel, self.half_sample_grid, self.real.basis_dtype, like.device

    def half_spectrum(self, map_size: int | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of the filters' Hermitian half spectrum for a map.

        Args:
            map_size: Spatial size of the map; one int serves every axis.

        Returns:
            Two real tensors ``(out, in / groups, *map_size[:-1], map_size[-1] // 2 + 1)`` in the
            layout of ``torch.fft.rfftn``.
        """
        spectrum = self._spectrum(int_tuple("map_size", map_size, self.ndim))
        real, imag = spectrum.to(self.real.output.weight.dtype)
        return real, imag

    def _spectrum(self, sizes: tuple[int, ...]) -> Tensor:
        """Both parts, ``(2, out, in / groups, *half)``, in float32 or better.

        The last layers are linear: folding the few functions that they combine folds the filters.
        """
        points = constant(_points, sizes, *self._grid())
        inputs, frequencies = self.in_channels // self.groups, points.shape[1:-1]
        # Filters are made in full precision under autocast.
        with no_autocast(points.device.type):
            networks = ((self.real, 1.0), (self.imag, -1.0))
            basis = torch.stack([_folded(network, points, sign) for network, sign in networks])
            basis = basis.flatten(1, -2)
            coefficients = torch.stack([network.coefficients() for network, _ in networks])
            coefficients = coefficients.to(basis.dtype)
            if inputs == 1:
                values = coefficients @ basis.mT
                return values.view(2, self.out_channels, 1, *frequencies)
            # With the frequencies first in memory, as products of several channels want them.
            values = (basis @ coefficients.mT).view(2, *frequencies, self.out_channels, inputs)
            return values.movedim((-2, -1), (1, 2))

    def spatial_kernel(self, map_size: int | Sequence[int]) -> Tensor:
        """The real kernel of the convolution for a map, centred at ``map_size // 2``.

        It is a kernel of true convolution: correlation layers have it flipped.

        Args:
            map_size: Spatial size of the map; one int serves every axis.

        Returns:
            Tensor of shape ``(out_channels, in_channels / groups, *map_size)``.
        """
        sizes = int_tuple("map_size", map_size, self.ndim)
        kernel = centred_kernel(torch.complex(*self._spectrum(sizes)), sizes)
        return kernel.to(self.real.output.weight.dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Filter ``(N, in_channels, *spatial)`` into ``(N, out_channels, *spatial)``."""
        feature_map("input", input, self.ndim, self.in_channels)
        parameter_dtype("input", input, self.real.output.weight)
        if is_evaluated(input):
            return evaluate(self, input, self.out_channels, (1,) * self.ndim)
        size = tuple(input.shape[2:])
        # An exported graph, whose map may have any size, has nothing to remember it in.
        if not torch.compiler.is_exporting():
            self.map_size = size
        filter = self._filter(size)
        if self.boundary == "zeros":
            return convolve(input, filter, self.bias, padding="same", groups=self.groups)
        bias = None if self.bias is None else self.bias.to(filter.dtype)
        output = convolve_spectra(input, filter, bias, self.groups)
        return output.to(result_dtype(input))

    def _filter(self, size: tuple[int, ...]) -> Tensor:
        """What to convolve with, kept while nothing changes: spectra, or flipped kernels."""

        def render() -> Tensor:
            if self.boundary == "circular":
                return self._spectrum(size)
            return self.spatial_kernel(size).flip(tuple(range(2, 2 + self.ndim)))

        kept = self._cache.fetch(self, render, size)
        return render() if kept is None else kept

    def describe_size(self) -> Size:
        """Return the extent of the filter: the map that was seen last."""
        size = self.map_size or ()
        flops = circular_flops(1, self.in_channels, self.out_channels, self.groups, size)
        return Size(
            kind="filter extent",
            size=size,
            window=None,
            center=None,
            limits=((1, math.inf),) * self.ndim,
            cost=flops / 2 / math.prod(size),
        )

    def extra_repr(self) -> str:
        """Show the channels and what is not the default."""
        text = f"{self.in_channels}, {self.out_channels}, groups={self.groups}"
        text += f", boundary={self.boundary!r}, frequency_unit={self.frequency_unit!r}"
        return text if self.bias is not None else text + ", bias=False"


def _folded(network: MLP, points: Tensor, sign: float) -> Tensor:
    """Even or odd part of a network's functions, and of the constant: ``(*half, features + 1)``."""
    there, back = F.pad(network.basis(points), (0, 1), value=1.0)
    return 0.5 * torch.add(there, back, alpha=sign)


def _points(
    sizes: tuple[int, ...],
    per_pixel: bool,
    half_sample: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Frequencies at the indices of a half spectrum, and at their negatives."""
    indices = [torch.arange(n, device=device) for n in half_of(sizes)]
    grids = []
    for sign in (1, -1):
        turned = [(sign * index) % n for index, n in zip(indices, sizes, strict=True)]
        axes = _axes(sizes, turned, per_pixel, half_sample, dtype, device)
        grids.append(coordinate_grid(axes))
    return torch.stack(grids)


def _axes(
    sizes: tuple[int, ...],
    indices: Sequence[Tensor],
    per_pixel: bool,
    half_sample: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Tensor]:
    """Signed frequencies at the indices of each axis."""
    axes = []
    for n, index in zip(sizes, indices, strict=True):
        k = torch.where(index < (n + 1) // 2, index, index - n).to(device, dtype)
        if half_sample:
            k = k - 0.5 * (n % 2)
        axes.append(k / n if per_pixel else k)
    return axes


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
