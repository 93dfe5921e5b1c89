"""Checks of arguments, shared by every layer and function.

Every message names the argument, the value it had, what is allowed, and what to do.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, fx, nn

from sizeless._precision import autocast_is_on

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
    """Return whether ``value`` is an integer (one that ``torch.export`` traces too) and no bool."""
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def boolean(name: str, value: Any) -> bool:
    """Return ``value`` if it is a bool: a text such as ``"no"`` would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def int_at_least(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` if it is an int of at least ``minimum``."""
    if not is_int(value):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` if it is an int of at least 1."""
    return int_at_least(name, value, 1)


def ints(name: str, value: Any) -> tuple[int, ...]:
    """Return ``value`` as a tuple of one or more ints of at least 1."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a tuple of ints, got {value!r}")
    if not all(is_int(v) for v in value):
        raise TypeError(f"{name} must hold ints only, got {value!r}")
    if not value or min(value) < 1:
        raise ValueError(f"{name} must hold one or more ints of at least 1, got {value!r}")
    return tuple(value)


def number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    above: float = -math.inf,
    maximum: float = math.inf,
) -> float:
    """Return ``value`` if it is one finite number in the range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    limits = {"of at least": minimum, "above": above, "and at most": maximum}
    checked = float(value)
    if not (math.isfinite(checked) and minimum <= checked <= maximum and checked > above):
        allowed = [f" {words} {limit:g}" for words, limit in limits.items() if math.isfinite(limit)]
        raise ValueError(f"{name} must be a finite number{''.join(allowed)}, got {value!r}")
    return checked


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


def tensor(name: str, value: Any) -> Tensor:
    """Return ``value`` if it is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    return value


def real_tensor(name: str, value: Any) -> Tensor:
    """Return ``value`` if it is a real floating-point tensor."""
    if not tensor(name, value).is_floating_point():
        raise TypeError(
            f"{name} must be a real floating-point tensor, got {value.dtype}; convert it with "
            ".float()"
        )
    return value


def floating_dtype(dtype: Any) -> None:
    """Raise unless ``dtype`` is None or a real floating-point dtype, as parameters need."""
    if not (dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point)):
        raise TypeError(
            "dtype must be None or a real floating-point dtype, such as torch.float32, got "
            f"{dtype!r}"
        )


def feature_map(name: str, value: Any, ndim: int, in_channels: int | None = None) -> Tensor:
    """Return ``value`` if it is a real floating-point tensor of shape ``(N, C, *spatial)``.

    What stands for a tensor while ``torch.fx`` traces has no shape to check.
    """
    if isinstance(value, fx.Proxy):
        return value  # type: ignore[return-value]
    if tensor(name, value).dim() != ndim + 2:
        raise ValueError(
            f"{name} must have {ndim + 2} dimensions (N, C, and {ndim} spatial) for a "
            f"{DIMENSION_NAMES[ndim]} operation, got shape {tuple(value.shape)}"
        )
    real_tensor(name, value)
    if in_channels is not None and value.shape[1] != in_channels:
        raise ValueError(
            f"{name} must have {in_channels} channels, got {value.shape[1]} "
            f"in shape {tuple(value.shape)}"
        )
    if any(extent == 0 for extent in value.shape[2:]):
        raise ValueError(f"{name} must not have an empty spatial axis, got {tuple(value.shape)}")
    return value


def parameter_dtype(name: str, value: Tensor, parameter: Tensor) -> None:
    """Raise unless ``value`` has the dtype of a parameter; autocast makes its own choice."""
    if isinstance(value, fx.Proxy):
        return
    if value.dtype != parameter.dtype and not autocast_is_on(value.device.type):
        raise TypeError(
            f"{name} must have the dtype of the parameters ({parameter.dtype}), got {value.dtype}; "
            "convert one of them with .to(), or run under torch.autocast"
        )


def module(name: str, value: Any) -> nn.Module:
    """Return ``value`` if it is a module, and not its class."""
    if not isinstance(value, nn.Module):
        made = f"{value.__name__}, a class" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be an instance of torch.nn.Module, got {made}")
    return value


def option_names(taker: type, fixed: Collection[str] = ()) -> list[str]:
    """Names of the arguments of ``taker`` that have a default and are not ``fixed``."""
    return [
        name
        for name, parameter in inspect.signature(taker).parameters.items()
        if parameter.default is not parameter.empty and name not in fixed
    ]


def options(owner: str, given: Mapping[str, Any], taker: type, fixed: Collection[str] = ()) -> None:
    """Raise unless ``taker`` has every keyword in ``given`` as an option that is not ``fixed``."""
    allowed = option_names(taker, fixed)
    for name, value in given.items():
        if name not in allowed:
            raise TypeError(
                f"{owner} takes no option {name}={value!r}; allowed are {', '.join(allowed)}"
            )


def state_dict(value: Any) -> dict[str, Tensor]:
    """Return ``value`` as a dict if it is a mapping from names to tensors."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"state_dict must be a mapping from names to tensors, got {type(value).__name__}; read "
            "a file with torch.load"
        )
    for key, entry in value.items():
        if not (isinstance(key, str) and isinstance(entry, Tensor)):
            raise TypeError(
                f"state_dict must map names to tensors, got {type(entry).__name__} under {key!r}"
            )
    return dict(value)
