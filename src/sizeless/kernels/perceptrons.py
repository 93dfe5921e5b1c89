"""Perceptrons of coordinates: SIREN, its unscaled-bias form, and the plain MLP."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._validate import ints, number, positive_int
from sizeless.kernels.base import ContinuousKernel, linears


class SIREN(ContinuousKernel):
    r"""Sinusoidal representation network.

    $$
    h_1 = \sin(\omega_0 (W_1 r + b_1)), \quad h_{l+1} = \sin(\omega_0 (W_{l+1} h_l + b_{l+1})),
    \quad K(r) = W_{out} h + b_{out}
    $$

    Initially $W_1 \sim U(\pm 1/D)$, all others $U(\pm \sqrt{6 / n} / \omega_0)$ for
    $n$ inputs. It has no analytic maximum frequency.

    Args:
        ndim: Number of coordinates $D$.
        out_features: Number of kernel values at each coordinate.
        hidden: Number of units per layer.
        layers: Number of linear maps, the output included; at least 2.
        omega_0: Frequency scale $\omega_0$, in radians per unit coordinate.
        device: Where the parameters live.
        dtype: Their dtype.

    Raises:
        ValueError: If a count is too small or ``omega_0`` is not positive.

    Source: Sitzmann et al. 2020, arXiv 2006.09661; as FlexConv's ablations use it.

    Examples:
        >>> import torch
        >>> SIREN(2, 6)(torch.zeros(5, 5, 2)).shape
        torch.Size([5, 5, 6])
    """

    def __init__(
        self,
        ndim: int,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        omega_0: float = 30.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(ndim, out_features, positive_int("hidden", hidden), device, dtype)
        if positive_int("layers", layers) < 2:
            raise ValueError(f"layers counts the output layer and must be at least 2, got {layers}")
        self.omega_0 = number("omega_0", omega_0, above=0)
        widths = [ndim] + [hidden] * (layers - 1)
        self.sines = nn.ModuleList(
            nn.Linear(n, m, device=device, dtype=self.basis_dtype) for n, m in pairwise(widths)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, keeping the variance of every layer."""
        super().reset_parameters()
        for index, linear in enumerate([*linears(self.sines), self.output]):
            linear.reset_parameters()
            fan_in = linear.in_features
            bound = 1 / fan_in if index == 0 else math.sqrt(6 / fan_in) / self.omega_0
            nn.init.uniform_(linear.weight, -bound, bound)

    def _angles(self, linear: nn.Linear, values: Tensor) -> Tensor:
        return self.omega_0 * linear(values)

    def basis(self, coordinates: Tensor) -> Tensor:
        """Map coordinates ``(*, ndim)`` to basis functions ``(*, hidden)``."""
        values = coordinates
        for linear in linears(self.sines):
            values = self._angles(linear, values).sin()
        return values


class NSIREN(SIREN):
    r"""SIREN whose frequency scale does not multiply the bias: $\sin(\omega_0 W r + b)$.

    Arguments as for ``SIREN``.

    Examples:
        >>> import torch
        >>> NSIREN(1, 6)(torch.zeros(7, 1)).shape
        torch.Size([7, 6])
    """

    def _angles(self, linear: nn.Linear, values: Tensor) -> Tensor:
        return self.omega_0 * nn.functional.linear(values, linear.weight) + linear.bias


def _activation(factory: Any) -> nn.Module:
    made: Any = None if isinstance(factory, nn.Module) or not callable(factory) else factory()
    if not isinstance(made, nn.Module):
        raise TypeError(
            "activation must be a class or function that makes a module, such as torch.nn.SiLU, "
            f"got {factory!r}"
        )
    return made


class MLP(ContinuousKernel):
    r"""Plain perceptron of coordinates.

    $$
    h_{l+1} = \sigma(W_l h_l + b_l), \qquad K(r) = W_{out} h + b_{out}
    $$

    Args:
        ndim: Number of coordinates.
        out_features: Number of kernel values at each coordinate.
        hidden: Widths of the hidden layers, one int each.
        activation: Class of the activation $\sigma$.
        device: Where the parameters live.
        dtype: Their dtype.

    Raises:
        TypeError: If a width is no int, or ``activation`` makes no module.
        ValueError: If ``hidden`` is empty or a width is below 1.

    Examples:
        >>> import torch
        >>> MLP(2, 6, hidden=(8, 4))(torch.zeros(5, 5, 2)).shape
        torch.Size([5, 5, 6])
    """

    def __init__(
        self,
        ndim: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (32, 32),
        activation: Callable[[], nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        widths = (ndim, *ints("hidden", hidden))
        super().__init__(ndim, out_features, widths[-1], device, dtype)
        self.linears = nn.ModuleList(
            nn.Linear(n, m, device=device, dtype=self.basis_dtype) for n, m in pairwise(widths)
        )
        self.activation = _activation(activation)

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with PyTorch's defaults."""
        super().reset_parameters()
        for linear in linears(self.linears):
            linear.reset_parameters()

    def basis(self, coordinates: Tensor) -> Tensor:
        """Map coordinates ``(*, ndim)`` to basis functions ``(*, hidden[-1])``."""
        values = coordinates
        for linear in linears(self.linears):
            values = self.activation(linear(values))
        return values
