"""Convolutions that come to one call of torch's own, remembered with all that leads to it.

To check and to plan a convolution takes longer than a small one itself, above all where the
processor's caches hold other things.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sizeless.functional import direct
from sizeless.functional.fft import result_dtype
from sizeless.functional.geometry import Geometry

Key = tuple[Any, ...]

MOST = 4096
"""Combinations that are remembered; then all are forgotten."""

_TENSORS = (Tensor, torch.nn.Parameter)

_known: dict[Key | None, Shortcut] = {}


class Shortcut(NamedTuple):
    """The arguments of torch's operation beside its tensors."""

    operation: Callable[..., Tensor]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def run(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve."""
        operation, *options = self
        result: Tensor = operation(input, weight, bias, *options)
        return result


def key_of(
    input: Tensor, weight: Tensor, bias: Tensor | None, forced: str, *arguments: Any
) -> Key | None:
    """Return all that decides what a call comes to, or None where that is not known beforehand."""
    if torch.compiler.is_compiling() or type(input) is not Tensor:
        return None
    # Types, since `True` and `1.0` are equal to `1` and not allowed in its place.
    types = tuple(map(type, arguments))
    if list in types or (tuple in types and not _hold_ints(arguments)):
        return None
    if type(weight) not in _TENSORS:
        return None
    third = None
    if bias is not None:
        if type(bias) not in _TENSORS:
            return None
        third = bias.shape, bias.dtype, bias.device
    # Of the input and of autocast; threads and switches decide between operations.
    first = input.shape, input.stride(), input.dtype, result_dtype(input), input.device
    here = torch.get_num_threads(), torch._C._get_mkldnn_enabled(), torch.is_grad_enabled()
    second = weight.shape, weight.dtype, weight.device
    return first, second, third, here, forced, arguments, types


def _hold_ints(arguments: tuple[Any, ...]) -> bool:
    tuples = [part for part in arguments if type(part) is tuple]
    return all(type(number) is int for part in tuples for number in part)


def shortcut(key: Key | None) -> Shortcut | None:
    """Return what a call with this key came to before."""
    try:
        return _known.get(key)
    except TypeError:  # An argument that is no key, and is refused later.
        return None


def find(
    key: Key, input: Tensor, weight: Tensor, geometry: Geometry, *, channels_last: bool
) -> Shortcut | None:
    """Return what a call comes to if that is one call of torch's own, and remember it."""
    padding = direct.padding_of_one_call(input, geometry, channels_last=channels_last)
    if padding is None or input.dtype != weight.dtype:
        return None
    if len(_known) >= MOST:
        forget()
    operation = direct.CONVOLUTIONS[geometry.ndim]
    found = Shortcut(operation, geometry.stride, padding, geometry.dilation, geometry.groups)
    _known[key] = found
    return found


def forget() -> None:
    """Forget all: plans have changed."""
    _known.clear()
