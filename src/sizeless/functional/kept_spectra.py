"""Spectra of kernels that do not change, kept for as long as the kernels."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

MOST_KEPT = 1 << 26
"""Bytes of spectra that are kept for one kernel; larger ones are made anew each time."""

_KEPT = WeakTensorKeyDictionary()


def keep_spectra(kernels: Tensor) -> Tensor:
    """Return ``kernels``, whose spectra are kept from now on: they must not change any more."""
    _KEPT[kernels] = {}
    return kernels


def kept_spectra(kernels: Tensor, key: Hashable, transform: Callable[[], Tensor]) -> Tensor:
    """Return ``transform()``, or what it returned before if ``kernels`` keeps its spectra.

    Args:
        kernels: What is transformed.
        key: What else the spectra depend on.
        transform: Computes the spectra; nobody may write into them.
    """
    kept: dict[Hashable, Tensor] | None = _KEPT.get(kernels)
    if kept is None:
        return transform()
    if key not in kept:
        # A tensor made in inference mode could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            spectra = transform()
        if sum(each.nbytes for each in (spectra, *kept.values())) > MOST_KEPT:
            return spectra
        kept[key] = spectra
    return kept[key]
