"""Checks of arguments, shared by every layer and function.

Every message names the argument, the value it had, what is allowed, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

DIMENSION_NAMES = {1: "1-D", 2: "2-D", 3: "3-D"}


def quoted(values: Iterable[str]) -> str:
    """Return the allowed strings as readable text: ``'a', 'b' or 'c'``."""
    names = [repr(value) for value in values]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is among ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be {quoted(allowed)}, got {value!r}")
    return value


def is_int(value: Any) -> bool:
    """Return whether ``value`` is an integer and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` if it is an int of at least 1."""
    if not is_int(value):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def int_tuple(name: str, value: Any, ndim: int, minimum: int = 1) -> tuple[int, ...]:
    """Return ``value`` as ``ndim`` ints of at least ``minimum``; one int serves every axis."""
    values = (value,) * ndim if is_int(value) else value
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} must be an int or a tuple of {ndim} ints, got {value!r}")
    values = tuple(values)
    if not all(is_int(v) for v in values):
        raise TypeError(f"{name} must hold ints only, got {value!r}")
    if len(values) != ndim:
        raise ValueError(f"{name} must be an int or a tuple of {ndim} ints, got {value!r}")
    if any(v < minimum for v in values):
        raise ValueError(f"{name} must be at least {minimum} on every axis, got {value!r}")
    return values


def float_tuple(name: str, value: Any, ndim: int) -> tuple[float, ...]:
    """Return ``value`` as ``ndim`` finite floats; one number serves every axis."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    values = (value,) * ndim if isinstance(value, Real) else value
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} must be a number or a tuple of {ndim} numbers, got {value!r}")
    values = tuple(values)
    if not all(isinstance(v, Real) and not isinstance(v, bool) for v in values):
        raise TypeError(f"{name} must hold numbers only, got {value!r}")
    if len(values) != ndim:
        raise ValueError(f"{name} must be a number or a tuple of {ndim} numbers, got {value!r}")
    floats = tuple(float(v) for v in values)
    if not all(math.isfinite(v) for v in floats):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return floats


def channels(in_channels: Any, out_channels: Any, groups: Any) -> tuple[int, int, int]:
    """Return the three counts after checking that ``groups`` divides both channel counts."""
    in_channels = positive_int("in_channels", in_channels)
    out_channels = positive_int("out_channels", out_channels)
    groups = positive_int("groups", groups)
    for name, count in (("in_channels", in_channels), ("out_channels", out_channels)):
        if count % groups:
            raise ValueError(
                f"groups must divide {name}: got groups={groups} and {name}={count}; "
                f"use a divisor of {count}"
            )
    return in_channels, out_channels, groups


def feature_map(name: str, value: Any, ndim: int, in_channels: int | None = None) -> Tensor:
    """Return ``value`` if it is a real floating-point tensor of shape ``(N, C, *spatial)``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dim() != ndim + 2:
        raise ValueError(
            f"{name} must have {ndim + 2} dimensions (N, C, and {ndim} spatial) for a "
            f"{DIMENSION_NAMES[ndim]} operation, got shape {tuple(value.shape)}"
        )
    if not value.is_floating_point():
        raise TypeError(
            f"{name} must be a real floating-point tensor, got {value.dtype}; convert it with "
            ".float()"
        )
    if in_channels is not None and value.shape[1] != in_channels:
        raise ValueError(
            f"{name} must have {in_channels} channels, got {value.shape[1]} "
            f"in shape {tuple(value.shape)}"
        )
    if any(extent == 0 for extent in value.shape[2:]):
        raise ValueError(f"{name} must not have an empty spatial axis, got {tuple(value.shape)}")
    return value


def same_dtype(name: str, value: Tensor, reference: Tensor, reference_name: str) -> None:
    """Raise unless both tensors share one dtype (mixed dtypes are autocast's business)."""
    if value.dtype != reference.dtype and not torch.is_autocast_enabled(value.device.type):
        raise TypeError(
            f"{name} must have the dtype of {reference_name} ({reference.dtype}), got "
            f"{value.dtype}; convert one of them, or run under torch.autocast"
        )
