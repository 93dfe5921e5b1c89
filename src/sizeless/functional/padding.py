"""Padding: from arguments to amounts, and from amounts to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless._validate import boolean, int_tuple, one_of
from sizeless.functional.operands import keep_layout

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
_TORCH_NAMES = {"zeros": "constant"}

Amounts = tuple[tuple[int, int], ...]


def padding_amounts(
    padding: int | str | Sequence[int], reach: Sequence[int], causal: bool = False
) -> Amounts:
    """Return how far to pad each axis, as (before, after).

    Args:
        padding: an int, one int per axis, ``"valid"`` (nothing) or ``"same"``, which pads by the
            kernel's reach in all, the odd sample after the end, as ``torch`` does.
        reach: per axis, how many samples the kernel reaches over beyond its first:
            ``dilation * (kernel_size - 1)``.
        causal: pad by the whole reach before the start; needs one axis and no other padding.

    Returns:
        One pair of ints per axis.

    Raises:
        TypeError: if ``padding`` holds no ints, or ``causal`` is no bool.
        ValueError: for a padding that is unknown or negative, or that contradicts ``causal``.
    """
    amounts: Amounts
    if isinstance(padding, str):
        one_of("padding", padding, ("same", "valid"))
        same = padding == "same"
        amounts = tuple((r // 2, r - r // 2) if same else (0, 0) for r in reach)
    else:
        amounts = tuple((p, p) for p in int_tuple("padding", padding, len(reach), minimum=0))
    if not boolean("causal", causal):
        return amounts
    if len(reach) != 1:
        raise ValueError(f"causal=True needs 1 spatial axis, got {len(reach)}; use causal=False")
    if padding == "valid" or (padding != "same" and amounts != ((0, 0),)):
        raise ValueError(
            "causal=True pads by itself, before the start alone: padding must be 0 or 'same', "
            f"got {padding!r}"
        )
    return ((reach[0], 0),)


def pad(input: Tensor, amounts: Amounts, mode: str) -> Tensor:
    """Pad the spatial axes of ``(N, C, *spatial)``, by any amount, also beyond the input's size.

    ``"circular"`` wraps and ``"reflect"`` bounces (without repeating the edge) as often as it
    takes; an axis of size 1 has nothing to reflect and repeats its one sample.

    Args:
        input: feature map of shape ``(N, C, *spatial)``.
        amounts: (before, after) for each spatial axis, not negative.
        mode: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``.

    Returns:
        The padded feature map, in the memory layout of ``input``.
    """
    near = tuple(
        pair if _within_torch(size, pair, mode) else (0, 0)
        for size, pair in zip(input.shape[2:], amounts, strict=True)
    )
    padded = input
    for axis, (pair, done) in enumerate(zip(amounts, near, strict=True), start=2):
        if pair != done:
            padded = _pad_far(padded, axis, pair, mode)
    if any(map(any, near)):
        flat = [amount for pair in reversed(near) for amount in pair]
        padded = F.pad(padded, flat, mode=_TORCH_NAMES.get(mode, mode))
    return padded if padded is input else keep_layout(padded, input)


def _within_torch(size: int, pair: tuple[int, int], mode: str) -> bool:
    """Return whether ``torch.nn.functional.pad`` can pad this axis."""
    limits = {"circular": size, "reflect": size - 1}
    return max(pair) <= limits.get(mode, max(pair))


def _pad_far(input: Tensor, axis: int, pair: tuple[int, int], mode: str) -> Tensor:
    """Pad one axis in mode circular or reflect by gathering samples."""
    size = input.shape[axis]
    position = torch.arange(-pair[0], size + pair[1], device=input.device)
    if mode == "circular":
        index = position % size
    else:
        period = max(2 * (size - 1), 1)
        index = torch.minimum(position % period, period - position % period)
    return input.index_select(axis, index)
