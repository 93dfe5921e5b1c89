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
from sizeless.functional.operands import has_channels_last

Key = tuple[Any, ...]

MOST = 4096
"""Combinations that are remembered; then all are forgotten."""

_TENSORS = (Tensor, torch.nn.Parameter)

_known: dict[Key, Shortcut] = {}


class Shortcut(NamedTuple):
    """The arguments of torch's operation beside its tensors, and the layout of what it returns."""

    operation: Callable[..., Tensor]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    layout: torch.memory_format

    def run(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve, and keep the layout of the input."""
        operation, stride, padding, dilation, groups, layout = self
        return operation(input, weight, bias, stride, padding, dilation, groups).contiguous(
            memory_format=layout
        )


def key_of(
    input: Tensor, weight: Tensor, bias: Tensor | None, forced: str, *arguments: Any
) -> Key | None:
    """Return all that decides what a call comes to, or None where that is not known beforehand.

    Caches are cold where it matters, so it looks at as little as it can.
    """
    if torch.compiler.is_compiling() or type(input) is not Tensor or type(weight) not in _TENSORS:
        return None
    # Types, since `True` and `1.0` are equal to `1` and not allowed in its place.
    types = tuple(map(type, arguments))
    if list in types or (tuple in types and not _hold_ints(arguments)):
        return None
    third: object = None
    if bias is not None:
        if type(bias) not in _TENSORS:
            return None
        third = bias.shape, bias.dtype, bias.device
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return None
    return (
        input.shape,
        input.stride(),
        input.dtype,
        input.requires_grad,
        weight.shape,
        weight.dtype,
        third,
        None if input.is_cpu and weight.is_cpu else (input.device, weight.device),
        result_dtype(input) if torch._C._is_any_autocast_enabled() else None,
        # Threads and switches decide between operations.
        torch.get_num_threads(),
        torch._C._get_mkldnn_enabled(),
        torch.is_grad_enabled(),
        forced,
        arguments,
        types,
    )


def _hold_ints(arguments: tuple[Any, ...]) -> bool:
    tuples = [part for part in arguments if type(part) is tuple]
    return all(type(number) is int for part in tuples for number in part)


def shortcut(key: Key | None) -> Shortcut | None:
    """Return what a call with this key came to before."""
    if key is None:
        return None
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
    operation = direct.turned_convolution if channels_last else direct.CONVOLUTIONS[geometry.ndim]
    placement = geometry.stride, padding, geometry.dilation, geometry.groups
    layout = direct.FORMATS[geometry.ndim] if has_channels_last(input) else torch.contiguous_format
    found = Shortcut(operation, *placement, layout)
    _known[key] = found
    return found


def forget() -> None:
    """Forget all: plans have changed."""
    _known.clear()
