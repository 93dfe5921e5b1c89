"""Operators that tracing sees as one node: what is inside is chosen and run at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("sizeless", "DEF")


def operator(schema: str, run: Callable[..., Any], shape: Callable[..., Any]) -> Any:
    """Define the operator ``torch.ops.sizeless.<name>`` and return it.

    ``torch.compile`` and ``torch.export`` keep it as one node, so transforms, chunks and the
    choice between methods cost no graph break and no recompilation. It has no derivative of its
    own: wrap it in a ``torch.autograd.Function``, whose ``backward`` is made of operators too.

    Args:
        schema: Signature in torch's schema language, such as
            ``"double(Tensor input, int[] sizes) -> Tensor"``.
        run: What it computes, on any device, without autograd. It must not return its input.
        shape: Takes the same arguments and returns empty tensors of the right shape and dtype.

    Returns:
        The operator, to be called like ``run``.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sizeless::{name}", shape, lib=_LIBRARY)
    return getattr(torch.ops.sizeless, name).default
