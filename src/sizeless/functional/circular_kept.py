r"""Spectra of the input, which a circular convolution keeps in its place for its gradients.

They are kept conjugate, as the gradient of the filters wants them, and as real tensors ``(N, C,
*half, 2)``.
Derivatives take them as vectors whose products count every frequency as often as the inverse
transform does, over the points of the map. With these products the transform to spectra and the
one to maps are each other's adjoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sizeless.functional.circular_spectra import Shape, inverse, transform
from sizeless.functional.fft import no_autocast, spectral_dtype
from sizeless.functional.operators import Function
from sizeless.functional.vmapped import in_first

MOST_KEPT = 1.25
"""Bytes of the spectra that are kept, at most, for each byte of the input."""


def may_keep(input: Tensor, filter: Tensor, shape: Shape) -> bool:
    """Whether the spectra of the input are kept in its place: where they are hardly larger."""
    per_map = 2 * shape.frequencies * filter.element_size()
    map_bytes = input.element_size()
    for size in shape.size:
        map_bytes *= size
    return shape.inputs == 1 and per_map <= MOST_KEPT * map_bytes


def blank_kept(like: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Return empty spectra of maps that are as ``like`` is."""
    return like.new_empty((shape.batch, shape.groups, *shape.half, 2), dtype=dtype)


def kept_maps(spectra: Tensor, shape: Shape) -> Tensor:
    """Return the maps of kept spectra, differentiable."""
    maps: Tensor = _Maps.apply(spectra, shape)
    return maps


def kept_spectra_of(maps: Tensor, shape: Shape) -> Tensor:
    """Return the spectra of maps as they are kept, differentiable."""
    spectra: Tensor = _Spectra.apply(maps, shape)
    return spectra


class _Maps(Function):
    """Maps of kept spectra."""

    @staticmethod
    def forward(spectra: Tensor, shape: Shape) -> Tensor:
        with no_autocast(spectra.device.type):
            return inverse(torch.view_as_complex(spectra).conj_physical(), shape, shape.size)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.shape = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Spectra.apply(grad, ctx.shape), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, spectra: Tensor, shape: Shape) -> Any:
        result = _Maps.apply(in_first(spectra, in_dims[0], info.batch_size), shape)
        return result.unflatten(0, (info.batch_size, -1)), 0


class _Spectra(Function):
    """Spectra of maps, as they are kept."""

    @staticmethod
    def forward(maps: Tensor, shape: Shape) -> Tensor:
        with no_autocast(maps.device.type):
            spectra = transform(maps.to(spectral_dtype(maps)), shape)
            return torch.view_as_real(spectra.conj_physical()).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.shape = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Maps.apply(grad, ctx.shape), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, maps: Tensor, shape: Shape) -> Any:
        result = _Spectra.apply(in_first(maps, in_dims[0], info.batch_size), shape)
        return result.unflatten(0, (info.batch_size, -1)), 0
