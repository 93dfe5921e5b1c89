"""Parameters that stay in float32 or better when a module is cast to half precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALF_PRECISION = (torch.float16, torch.bfloat16)


def at_least_float32(dtype: torch.dtype | None) -> torch.dtype:
    """Return ``dtype`` (``None``: torch's default), or float32 where that is more precise."""
    return torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)


def keeping_precision(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap what ``Module._apply`` does to a tensor, so that it never casts it to half precision."""

    def apply(tensor: Tensor) -> Tensor:
        converted = convert(tensor)
        if converted.dtype in HALF_PRECISION and tensor.dtype not in HALF_PRECISION:
            return tensor.to(converted.device)
        return converted

    return apply


def autocast_is_on(device_type: str) -> bool:
    """Return whether ``torch.autocast`` is on for a kind of device that has it."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
