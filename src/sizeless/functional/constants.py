"""Tensors that depend on numbers alone, made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def tensors_last() -> bool:
    """Return whether tensors made now are ordinary ones, which may outlive this call."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit._trace.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack()
    )


def constant(build: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Return ``build(*arguments)``, and keep it for the next time where that is possible.

    Args:
        build: Makes a tensor from numbers, a dtype and a device; a function of a module.
        arguments: What it takes, all hashable.
    """
    if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
        return _of_graph(build, *arguments)
    return _kept(build, *arguments) if tensors_last() else build(*arguments)


@torch.compiler.assume_constant_result
def _of_graph(build: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """The tensor itself, made when a graph is, and not by the graph at every call."""
    return _kept(build, *arguments)


@lru_cache(maxsize=256)
def _kept(build: Callable[..., Tensor], *arguments: Any) -> Tensor:
    # A tensor made in inference mode could not be used outside of it.
    with torch.inference_mode(False), torch.no_grad():
        return build(*arguments)
