"""NIFF: convolution whose filter is a function of frequency, as large as the map."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Hashable, Sequence
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
from sizeless.functional.circular_operators import circular_flops
from sizeless.functional.circular_products import convolve_spectra
from sizeless.functional.circular_resampled import convolve_resampled
from sizeless.functional.constants import constant
from sizeless.functional.convolution import convolve
from sizeless.functional.cropped_spectra import half_of, waves_of
from sizeless.functional.fft import no_autocast, result_dtype
from sizeless.functional.resampling import Resampling
from sizeless.kernels import MLP, coordinate_grid
from sizeless.kernels.base import linears
from sizeless.nn._niff_grid import grid_axes, half_grid
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
        return coordinate_grid(grid_axes(sizes, [torch.arange(n) for n in sizes], *self._grid()))

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
        return self._lowest(sizes, sizes)

    def _lowest(self, sizes: tuple[int, ...], waves: tuple[int, ...]) -> Tensor:
        """The same at the lowest frequencies alone, so many waves of each axis."""
        points = constant(half_grid, sizes, waves, *self._grid())
        inputs, frequencies = self.in_channels // self.groups, half_of(waves)
        # Filters are made in full precision under autocast.
        with no_autocast(points.device.type):
            folded = self._folded(points)
            # Half of a sum or a difference: halved where there are fewer numbers.
            weight = 0.5 * _stacked(self.real.output.weight, self.imag.output.weight)
            weight = weight.to(folded.dtype)
            # The odd part of a constant is nothing.
            constants = _stacked(self.real.output.bias, 0.0 * self.imag.output.bias)
            constants = constants.to(folded.dtype)
            if inputs == 1:
                values = torch.baddbmm(constants.unsqueeze(-1), weight, folded)
                return values.view(2, self.out_channels, 1, *frequencies)
            # With the frequencies first in memory, as products of several channels want them.
            values = torch.baddbmm(constants.unsqueeze(-2), folded.mT, weight.mT)
            values = values.view(2, *frequencies, self.out_channels, inputs)
            return values.movedim((-2, -1), (1, 2))

    def _folded(self, points: Tensor) -> Tensor:
        """Twice the even part of the real and the odd part of the imaginary network's functions.

        Args:
            points: Frequencies and then their negatives, ``(ndim, 2 * frequencies)``.

        Returns:
            Tensor of shape ``(2, functions, frequencies)``.
        """
        networks = self.real, self.imag
        if all(map(_is_plain, networks)) and _widths(self.real) == _widths(self.imag):
            values = _both(*networks, points)
        else:
            values = torch.stack([network.basis(points.t()).t() for network in networks])
        there, back = values.chunk(2, dim=-1)
        return torch.addcmul(there, constant(_signs, points.dtype, points.device), back)

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
        if is_evaluated(input):
            return evaluate(self, input, self.out_channels, (1,) * self.ndim)
        feature_map("input", input, self.ndim, self.in_channels)
        parameter_dtype("input", input, self.real.output.weight)
        size = tuple(input.shape[2:])
        # An exported graph, whose map may have any size, has nothing to remember it in.
        if not torch.compiler.is_exporting():
            self.map_size = size
        if self.boundary == "zeros":
            axes = tuple(range(2, 2 + self.ndim))
            kernel = self._filter(lambda: self.spatial_kernel(size).flip(axes), size)
            return convolve(input, kernel, self.bias, padding="same", groups=self.groups)
        filter = self._filter(lambda: self._spectrum(size), size)
        output = convolve_spectra(input, filter, self._bias(filter), self.groups)
        return output.to(result_dtype(input))

    def resampled(self, input: Tensor, resampling: Resampling) -> Tensor:
        """Return ``resampling(layer(input))``, in one step where circular maps become no larger.

        One step needs the filter at the frequencies that are left alone, and one smaller inverse
        transform in place of a whole one and the resampling of its output.

        Args:
            input: ``(N, in_channels, *spatial)``.
            resampling: For maps of this size; a DiffStride sets it up with ``resampling(input)``.

        Returns:
            Tensor ``(N, out_channels, *resampling.output_sizes)``.
        """
        before, after = resampling.sizes, resampling.output_sizes
        grows = any(map(operator.gt, after, before))
        in_pieces = is_evaluated(input) or torch.compiler.is_exporting()
        if self.boundary == "zeros" or grows or in_pieces:
            return resampling(self.forward(input))
        feature_map("input", input, self.ndim, self.in_channels)
        parameter_dtype("input", input, self.real.output.weight)
        self.map_size, waves = before, waves_of(before, after)
        filter = self._filter(lambda: self._lowest(before, waves), (before, waves))
        bias, gains = self._bias(filter), resampling.gains
        output = convolve_resampled(input, filter, bias, gains, after, self.groups)
        return output.to(result_dtype(input))

    def _filter(self, render: Callable[[], Tensor], key: Hashable) -> Tensor:
        """What to convolve with, kept while nothing changes: spectra, or flipped kernels."""
        kept = self._cache.fetch(self, render, key)
        return render() if kept is None else kept

    def _bias(self, filter: Tensor) -> Tensor | None:
        return None if self.bias is None else self.bias.to(filter.dtype)

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


def _is_plain(network: MLP) -> bool:
    """Whether a network does what its weights say, and nobody has changed or watches its parts."""
    return (
        type(network) is MLP
        and type(network.activation) is nn.SiLU
        and all(
            type(each) is nn.Linear and not each._forward_pre_hooks and not each._forward_hooks
            for each in network.linears
        )
    )


def _widths(network: MLP) -> list[int]:
    return [each.out_features for each in linears(network.linears)]


def _both(real: MLP, imag: MLP, points: Tensor) -> Tensor:
    """Functions of two plain networks of the same widths, ``(2, functions, points)``.

    In one call for both, as networks this small take little longer than the calls themselves.
    """
    values = points.expand(2, -1, -1)
    for one, other in zip(linears(real.linears), linears(imag.linears), strict=True):
        weight, bias = _stacked(one.weight, other.weight), _stacked(one.bias, other.bias)
        values = F.silu(torch.baddbmm(bias.unsqueeze(-1), weight, values))
    return values


def _stacked(real: Tensor, imag: Tensor) -> Tensor:
    return torch.stack((real, imag))


def _signs(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([[[1.0]], [[-1.0]]], dtype=dtype, device=device)


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
