"""Who may see what a module takes and returns."""

from __future__ import annotations

from torch import nn


def has_hooks(part: nn.Module) -> bool:
    """Whether a call of a module is seen by anybody else."""
    hooks = (part._forward_hooks, part._forward_pre_hooks)
    backward_hooks = (part._backward_hooks, part._backward_pre_hooks)
    return any(map(len, hooks + backward_hooks)) or nn.modules.module._has_any_global_hook()
