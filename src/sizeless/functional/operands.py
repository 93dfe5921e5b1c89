"""What the operations on ``(N, C, *spatial)`` tensors share: checks, bias and memory layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sizeless._validate import feature_map, positive_int, real_tensor
from sizeless.functional.fft import result_dtype


def spatial_dims(input: Any) -> int:
    """Return the number of spatial axes of an ``(N, C, *spatial)`` feature map, 1, 2 or 3."""
    if isinstance(input, Tensor) and not 3 <= input.dim() <= 5:
        raise ValueError(
            "input must have shape (N, C, *spatial) with 1, 2 or 3 spatial axes, got shape "
            f"{tuple(input.shape)}; add a batch axis with input[None] if it is missing"
        )
    ndim = input.dim() - 2 if isinstance(input, Tensor) else 1
    feature_map("input", input, ndim)
    return ndim


def check_filter(name: str, filter: Any, input: Tensor, groups: Any) -> None:
    """Raise unless ``filter`` is ``(out, in / groups, *spatial)`` and fits the input's channels."""
    ndim, in_channels = input.dim() - 2, input.shape[1]
    positive_int("groups", groups)
    _check_tensor(name, filter, input)
    if filter.dim() != input.dim():
        raise ValueError(
            f"{name} must have {input.dim()} dimensions (out, in / groups, and {ndim} spatial) "
            f"for an input of shape {tuple(input.shape)}, got shape {tuple(filter.shape)}"
        )
    if 0 in filter.shape:
        raise ValueError(f"{name} must not have an empty axis, got shape {tuple(filter.shape)}")
    if filter.shape[1] * groups != in_channels:
        raise ValueError(
            f"{name} must have in_channels / groups on axis 1: the input has {in_channels} "
            f"channels and groups={groups}, got shape {tuple(filter.shape)}"
        )
    if filter.shape[0] % groups:
        raise ValueError(
            f"groups must divide the output channels: got groups={groups} and {name} of shape "
            f"{tuple(filter.shape)}; use a divisor of {filter.shape[0]}"
        )


def check_bias(bias: Any, out_channels: int, input: Tensor) -> None:
    """Raise unless ``bias`` is None or a tensor of shape ``(out_channels,)``."""
    if bias is None:
        return
    _check_tensor("bias", bias, input)
    if tuple(bias.shape) != (out_channels,):
        raise ValueError(
            f"bias must be None or have shape ({out_channels},), got shape {tuple(bias.shape)}"
        )


def _check_tensor(name: str, value: Any, input: Tensor) -> None:
    real_tensor(name, value)
    if value.device != input.device:
        raise ValueError(
            f"{name} must be on the device of input ({input.device}), got {value.device}; "
            "move one of them with .to()"
        )
    if value.dtype != input.dtype and result_dtype(value) != result_dtype(input):
        raise TypeError(
            f"{name} must have the dtype of input ({input.dtype}), got {value.dtype}; "
            "convert one of them, or run under torch.autocast (which leaves float64 alone)"
        )


def add_bias(output: Tensor, bias: Tensor | None) -> Tensor:
    """Add ``(C,)`` to ``(N, C, *spatial)``."""
    if bias is None:
        return output
    return output + bias.reshape((-1,) + (1,) * (output.dim() - 2))


def has_channels_last(input: Tensor) -> bool:
    """Return whether the channels of a map ``(N, C, *spatial)`` are the last axis in memory.

    Read off its strides, so that a part of such a map counts too.
    """
    if input.dim() < 4 or input.shape[1] == 1:
        return False
    return input.stride(1) == 1 and input.stride(-1) >= input.shape[1]


def keep_layout(output: Tensor, input: Tensor) -> Tensor:
    """Return ``output`` with its channels last in memory if those of ``input`` are, or as usual.

    Written with permutations alone, as ``torch.func.vmap`` refuses memory formats.
    """
    if has_channels_last(input):
        return output.movedim(1, -1).contiguous().movedim(-1, 1)
    return output.contiguous()
