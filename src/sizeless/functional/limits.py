"""Bounds whose gradient never vanishes at the bound."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sizeless._validate import tensor
from sizeless.functional.operators import Function

EDGE = 1e-4
"""How far beyond an end of the ramp its gradient reaches, so that rounding cannot lose it."""


def clamp_straight_through(
    value: Tensor, low: float | Tensor | None = None, high: float | Tensor | None = None
) -> Tensor:
    r"""Clamp ``value`` in the forward pass and let its gradient pass unchanged.

    $$
    y = \min(\max(x, low), high), \qquad \partial y / \partial x := 1
    $$

    A size that sits at, or has drifted past, one of its limits still hears the loss and can come
    back. ``torch.clamp`` gives it a zero gradient there, for ever.

    Args:
        value: Any real tensor.
        low: Lower bound, or ``None``.
        high: Upper bound, or ``None``.

    Returns:
        A tensor of the shape of ``value``.

    Examples:
        >>> import torch
        >>> x = torch.tensor([0.5, 3.0], requires_grad=True)
        >>> y = clamp_straight_through(x, 1.0, 2.0)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([1.0, 2.0], [1.0, 1.0])
    """
    bounded = tensor("value", value).detach()
    if low is not None:
        bounded = torch.maximum(
            bounded, torch.as_tensor(low, dtype=value.dtype, device=value.device)
        )
    if high is not None:
        bounded = torch.minimum(
            bounded, torch.as_tensor(high, dtype=value.dtype, device=value.device)
        )
    # The difference carries the gradient and is 0, but not for an infinite value.
    return bounded + (value - value.detach()).nan_to_num(0.0)


class _Ramp(Function):
    """``clamp(x, 0, 1)`` whose derivative is 1 from 0 to 1, both ends included."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clamp(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        (value,) = inputs
        ctx.save_for_backward((value >= -EDGE) & (value <= 1 + EDGE))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (inside,) = ctx.saved_tensors
        return grad_output * inside


def ramp(value: Tensor) -> Tensor:
    r"""Linear ramp from 0 to 1 with a gradient at both of its ends.

    $$
    \operatorname{ramp}(x) = \min(\max(x, 0), 1), \qquad
    \operatorname{ramp}'(x) = [-\epsilon \le x \le 1 + \epsilon], \quad \epsilon = 10^{-4}
    $$

    A frequency that lies exactly on the edge of a low-pass window (every power-of-two map at an
    integer stride has one) keeps its gradient. ``torch.clamp`` gives 0 there on recent versions
    and 1 on older ones, so the derivative is written out; $\epsilon$ covers the rounding of
    strides in float32.

    Args:
        value: Any real tensor.

    Returns:
        A tensor of the shape of ``value``.

    Examples:
        >>> import torch
        >>> x = torch.tensor([-0.5, 0.0, 0.25, 1.0, 2.0], requires_grad=True)
        >>> ramp(x).sum().backward()
        >>> x.grad.tolist()
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    return _Ramp.apply(tensor("value", value))
