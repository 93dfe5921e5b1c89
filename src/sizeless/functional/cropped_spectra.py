r"""Half spectra of maps at their lowest frequencies alone, and maps of such spectra.

Of an axis, ``waves`` are kept: the constant, a cosine and a sine of each further frequency, and of
an even axis that is kept whole the one wave at its Nyquist frequency. So spectra lie as those of a
map with ``waves`` samples do. Where that is one more than an even axis has, both signs of its
Nyquist frequency are told apart, as on a larger map that this one is a crop of.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sizeless.functional.fft import irfftn, rfftn
from sizeless.functional.low_pass import count_waves

Size = tuple[int, ...]


def half_of(size: Size) -> Size:
    """Return the size of a half spectrum."""
    return (*size[:-1], size[-1] // 2 + 1)


def waves_of(size: Size, target: Size) -> Size:
    """Return how many waves of each axis maps of ``size`` keep that become of ``target``."""
    # Equal sizes, which a compiler may know as symbols alone, must not be compared any further.
    pairs = zip(size, target, strict=True)
    return tuple(n if n == m else count_waves(n, m) for n, m in pairs)


def to_spectra(maps: Tensor, waves: Size) -> Tensor:
    """Transform ``(..., *size)`` to half spectra, new ones."""
    axes = tuple(range(-len(waves), 0))
    size = tuple(maps.shape[-len(waves) :])
    if size == waves:
        return rfftn(maps.contiguous(), size, axes)
    spectra = torch.fft.rfft(maps.contiguous()).narrow(-1, 0, waves[-1] // 2 + 1)
    for axis in reversed(axes[:-1]):
        spectra = _taken(torch.fft.fft(spectra, dim=axis), waves[axis], axis)
    return spectra


def to_maps(spectra: Tensor, waves: Size, size: Size) -> Tensor:
    """Transform Hermitian half spectra, which may be overwritten, to maps ``(..., *size)``."""
    axes = tuple(range(-len(waves), 0))
    if size == waves:
        return irfftn(spectra, size, axes)
    if waves[-1] > size[-1]:
        _add_opposite_(spectra[..., -1:], axes[:-1])
    for axis in axes[:-1]:
        spectra = torch.fft.ifft(_placed(spectra, size[axis], axis), dim=axis)
    return torch.fft.irfft(spectra, n=size[-1])


def fold_(spectrum: Tensor, waves: Size) -> Tensor:
    """Make half spectra Hermitian in place, where the last axis is its own negative."""
    others = tuple(range(-len(waves), -1))
    ends = _ends(spectrum, waves)
    if others:
        opposite = ends.flip(others).roll((1,) * len(others), others)
        ends.add_(opposite.conj_physical_()).mul_(0.5)
    else:
        torch.view_as_real(ends)[..., 1] = 0
    return spectrum


def weigh_(spectrum: Tensor, waves: Size, points: int, axis: int = -1) -> Tensor:
    """Multiply half spectra in place by how often a frequency counts, over the map's points."""
    spectrum.mul_(2 / points)
    _ends(spectrum.movedim(axis, -1), waves).mul_(0.5)
    return spectrum


def _ends(spectrum: Tensor, waves: Size) -> Tensor:
    """Return a view of half spectra where the last axis is its own negative."""
    return spectrum[..., :: waves[-1] // (2 - waves[-1] % 2)]


def _taken(spectra: Tensor, count: int, axis: int) -> Tensor:
    """The lowest ``count`` frequencies of an axis of any number."""
    whole, highest = spectra.shape[axis], count // 2
    if whole == count:
        return spectra
    ends = spectra.narrow(axis, 0, highest + 1), spectra.narrow(axis, whole - highest, highest)
    return torch.cat(ends, axis)


def _placed(spectra: Tensor, whole: int, axis: int) -> Tensor:
    """The adjoint: frequencies put where they belong among ``whole``."""
    count = spectra.shape[axis]
    if whole == count:
        return spectra
    highest, shape = count // 2, list(spectra.shape)
    shape[axis] = whole
    placed = spectra.new_zeros(shape)
    placed.narrow(axis, 0, highest + 1).copy_(spectra.narrow(axis, 0, highest + 1))
    # Where both signs of the Nyquist frequency were told apart, they fall on one.
    placed.narrow(axis, whole - highest, highest).add_(spectra.narrow(axis, highest + 1, highest))
    return placed


def _add_opposite_(column: Tensor, others: Size) -> None:
    """Add, in place, what lies at the negative frequencies."""
    opposite = column.flip(others).roll((1,) * len(others), others) if others else column.clone()
    column.add_(opposite.conj_physical_())
