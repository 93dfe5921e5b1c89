"""A kernel network under a learned window, rendered on the taps that count."""

from __future__ import annotations

import math
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from sizeless.functional.fft import no_autocast
from sizeless.kernels import ContinuousKernel, coordinate_axis
from sizeless.nn import crop
from sizeless.nn.caching import Caching
from sizeless.nn.crop import Bounds, Place
from sizeless.nn.sized import sizes_are_readable
from sizeless.nn.window import GaussianWindow

RIM_SHARE = 0.1
"""Share of the gradient on the rim of a look-ahead that reaches the kernel network."""

KERNEL_LIMIT = 1 << 28
"""Bytes of a kernel that is kept as a whole where it does not change. A larger one stays in
factors, as in training: evaluation must not need memory that training does without."""


class WindowedKernelNd(Caching):
    """What a FlexConv convolves with; the layer adds the convolution and sets the attributes.

    An eager call reads the size of the crop off the window and renders the taps that it keeps. A
    compiled graph cannot: it renders a bucket of taps, whose size changes between calls only (see
    ``refresh_size``), and sets those outside the crop to 0.
    """

    ndim: ClassVar[int]
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: tuple[int, ...]
    causal: bool
    look_ahead: int
    window: GaussianWindow
    kernel: ContinuousKernel

    _kept: tuple[int, ...]
    _bucket: tuple[int, ...]

    def refresh_size(self) -> tuple[int, ...]:
        """Read the integer size off the window, move the bucket if it is time, and return the size.

        Every eager forward reads the size itself. A compiled forward renders the taps of the
        bucket, and of these the crop is 0: it equals an eager forward as long as the crop fits
        into the bucket, and cuts the kernel at the bucket where it does not. So call this between
        steps, outside the graph, or ``sizeless.refresh_sizes`` for all layers of a model.

        Buckets are 1, 2, 3, 4, 6, 8, 12, 16, ... taps on each side of the middle one (causally:
        in all). A bucket grows before a window that becomes larger meets its end, and shrinks
        only when one of 1.25 times the window would fit into a smaller: windows that move to and
        fro at its edge do not make it flap. A new bucket is a new graph, compiled once.
        """
        if sizes_are_readable(self.window.log_sigma):
            places = self._read_size()
            self._bucket = self._next_bucket(places, self._bucket)
        return self._taps_of(self._kept)

    def renew_bucket(self, *, with_room: bool = False) -> None:
        """Choose the bucket whatever it was before, with some room if its graph is lost anyway."""
        if sizes_are_readable(self.window.log_sigma):
            nothing = (None,) * self.ndim
            self._bucket = self._next_bucket(self._read_size(), nothing, with_room=with_room)

    def _next_bucket(
        self, places: list[Place], now: tuple[int | None, ...], *, with_room: bool = False
    ) -> tuple[int, ...]:
        return tuple(
            crop.next_bucket(size, *place, n, self.causal, with_room=with_room)
            for size, place, n in zip(now, places, self.kernel_size, strict=True)
        )

    def _read_size(self) -> list[Place]:
        """Read width and centre of each axis off the window, and the size of the crop."""
        places = self.window.read()
        self._kept = tuple(
            crop.kept(*place, n, self.causal)
            for place, n in zip(places, self.kernel_size, strict=True)
        )
        return places

    def _kept_now(self) -> tuple[int, ...]:
        if sizes_are_readable(self.window.log_sigma):
            self._read_size()
        return self._kept

    def _taps_of(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in self._bounds_of(sizes))

    def _bounds_of(self, sizes: tuple[int, ...], beyond: int = 0) -> Bounds:
        """First tap, and one past the last, of each axis, for its size and some taps more."""
        return tuple(
            crop.bounds(min(size + beyond, crop.largest(n, self.causal)), n, self.causal)
            for size, n in zip(sizes, self.kernel_size, strict=True)
        )

    @property
    def size(self) -> tuple[int, ...]:
        """Size of the kernel in taps, after the crop."""
        return self._taps_of(self._kept_now())

    @property
    def bucket(self) -> tuple[int, ...]:
        """Size in taps on which a compiled forward renders the kernel; see ``refresh_size``."""
        return self._taps_of(self._bucket)

    @property
    def weight(self) -> Tensor:
        """The rendered kernel, ``(out_channels, in_channels / groups, *size)``, differentiable.

        In a compiled graph its size is that of the bucket, with zeros around the crop.
        """
        return self._plain()

    @torch.no_grad()
    def cropped_energy(self) -> float:
        """Share of the energy of the windowed kernel, on all its taps, that the crop cuts off."""
        coefficients = self._coefficients().flatten(0, 1).double()

        def energy(bounds: Bounds) -> Tensor:
            axes = self._axes(bounds)
            basis = self._basis(axes, self.window(axes)).flatten(1).double()
            # Products of the few basis functions with each other stand for all kernels.
            return ((coefficients @ (basis @ basis.mT)) * coefficients).sum()

        whole = energy(tuple((0, n) for n in self.kernel_size))
        share = 1 - energy(self._bounds_of(self._kept_now())) / whole
        return max(0.0, float(share)) if float(whole) > 0 else 0.0

    def _filter(self) -> tuple[Tensor, ...]:
        """What to convolve with now: a rendered kernel, or its factors if nothing is to be kept."""
        if self.training and self.look_ahead and torch.is_grad_enabled():
            kept = self._cache.fetch(self, self._looking_ahead)
            return (self._looking_ahead() if kept is None else kept,)
        kept = self._cache.fetch(self, self._plain, unless=self._is_too_large_to_keep)
        return self._factors() if kept is None else (kept,)

    def _is_too_large_to_keep(self) -> bool:
        """Whether a kernel that does not change is beyond the limit."""
        pairs = self.out_channels * self.in_channels // self.groups
        most = KERNEL_LIMIT // (pairs * self.kernel.output.weight.element_size())
        # The size is read last, since a GPU has to be waited for.
        return math.prod(self.kernel_size) > most and math.prod(self.size) > most

    def _plain(self) -> Tensor:
        return self._product(*self._factors())

    def _factors(self) -> tuple[Tensor, Tensor]:
        """The kernel as a product: coefficients of basis functions, and these, windowed.

        Returns:
            Coefficients of shape ``(out_channels, in_channels / groups, features + 1)`` and basis
            functions of shape ``(features + 1, *size)``; the last one is the window itself.
        """
        if torch.compiler.is_compiling():
            bounds = self._bounds_of(self._bucket)
            inside = self.window.inside(bounds)
        else:
            bounds, inside = self._bounds_of(self._kept_now()), None
        # Sizes and kernels are computed in full precision under autocast.
        with no_autocast(self.window.log_sigma.device.type):
            axes = self._axes(bounds)
            return self._coefficients(), self._basis(axes, self.window(axes, inside))

    def _axes(self, bounds: Bounds) -> list[Tensor]:
        like = self.window.log_sigma
        return [
            coordinate_axis(n, start, stop, like)
            for n, (start, stop) in zip(self.kernel_size, bounds, strict=True)
        ]

    def _coefficients(self) -> Tensor:
        inputs = self.in_channels // self.groups
        return self.kernel.coefficients().unflatten(0, (self.out_channels, inputs))

    def _basis(self, axes: list[Tensor], window: Tensor) -> Tensor:
        basis = self.kernel.grid_basis(axes)
        window = window.to(basis.dtype)
        return torch.cat((basis * window, window[None])).to(self.kernel.output.weight.dtype)

    def _product(self, coefficients: Tensor, basis: Tensor) -> Tensor:
        with no_autocast(basis.device.type):
            weight = coefficients.flatten(0, 1) @ basis.flatten(1)
        return weight.reshape(*coefficients.shape[:2], *basis.shape[1:])

    def _looking_ahead(self) -> Tensor:
        """The kernel with a rim of taps of value 0 through which gradients pass."""
        sizes = self._bucket if torch.compiler.is_compiling() else self._kept_now()
        bounds = self._bounds_of(sizes, self.look_ahead)
        with no_autocast(self.window.log_sigma.device.type):
            inside = self.window.inside(bounds)
            axes, coefficients = self._axes(bounds), self._coefficients()
            weight = self._product(coefficients, self._basis(axes, self.window(axes, inside)))
            ones = torch.ones((), dtype=axes[0].dtype, device=axes[0].device)
            ones = ones.expand(*map(len, axes))
            values = self._product(coefficients, self._basis(axes, ones))
            # The network hears little of the rim: nothing answers what it does there, and it
            # would build up values that make the loss jump once the window reaches them.
            heard = RIM_SHARE * values + (1 - RIM_SHARE) * values.detach()
            near = self.window.inside(bounds, self.look_ahead)
            outside = _grid(near) & ~_grid(inside)
            rim = heard * torch.where(outside, self.window.rim(axes), 0.0).to(values.dtype)
            return weight + (rim - rim.detach())


def _grid(masks: list[Tensor]) -> Tensor:
    return reduce(lambda grid, mask: grid[..., None] & mask, masks)
