"""What every continuous kernel has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from sizeless._precision import at_least_float32, keeping_precision
from sizeless._validate import (
    floating_dtype,
    is_int,
    number,
    positive_int,
    real_tensor,
)
from sizeless.kernels.grid import coordinate_grid


class ContinuousKernel(nn.Module):
    r"""A function from coordinates to kernel values, linear in shared basis functions.

    $$
    K(r) = A\, \phi(r) + a, \qquad r \in [-1, 1]^D
    $$

    Subclasses compute the basis $\phi$ in ``basis``; the last layer ``output`` is always
    linear. That is the protocol that the layers of ``sizeless.nn`` rely on: a class or function
    ``(ndim, out_features, device=..., dtype=...)`` that returns such a module.

    Only ``output`` is ever in half precision. The basis stays in float32 or better, and so do the
    coordinates: bfloat16 cannot tell the taps of a kernel of a thousand apart.

    Args:
        ndim: Number of coordinates $D$, 1 to 3.
        out_features: Number of kernel values at each coordinate.
        features: Number of basis functions.
        device: Where the parameters live.
        dtype: Their dtype.

    Raises:
        TypeError: If a count is no int, or ``dtype`` not floating-point.
        ValueError: If ``ndim`` is not 1, 2 or 3, or a count is below 1.
    """

    def __init__(
        self,
        ndim: int,
        out_features: int,
        features: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if is_int(ndim) and not 1 <= ndim <= 3:
            raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")
        floating_dtype(dtype)
        self.ndim = positive_int("ndim", ndim)
        self.out_features = positive_int("out_features", out_features)
        self.output = nn.Linear(features, out_features, device=device, dtype=dtype)

    def basis(self, coordinates: Tensor) -> Tensor:
        """Map coordinates ``(*, ndim)`` to basis functions ``(*, features)``."""
        raise NotImplementedError(f"{type(self).__name__} must define basis()")

    def grid_basis(self, axes: Sequence[Tensor]) -> Tensor:
        """Basis functions on the grid that coordinate axes span, ``(features, *sizes)``.

        The same values as ``basis`` up to rounding; a kernel whose functions are products over
        the axes overrides it with something faster.
        """
        return self.basis(coordinate_grid(axes)).movedim(-1, 0)

    def coefficients(self) -> Tensor:
        """Weights of the basis functions and, last, the constant: ``(out_features, features + 1)``.

        The kernel's values are their product with the basis and a row of ones.
        """
        return torch.cat((self.output.weight, self.output.bias[:, None]), dim=1)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Map coordinates ``(*, ndim)`` to kernel values ``(*, out_features)``."""
        if real_tensor("coordinates", coordinates).shape[-1:] != (self.ndim,):
            raise ValueError(
                f"coordinates must end in an axis of {self.ndim} (ndim), got shape "
                f"{tuple(coordinates.shape)}"
            )
        if coordinates.dtype != self.basis_dtype:
            raise TypeError(
                f"coordinates must have the dtype of the basis ({self.basis_dtype}), got "
                f"{coordinates.dtype}; convert them with .to()"
            )
        values: Tensor = self.output(self.basis(coordinates).to(self.output.weight.dtype))
        return values

    @property
    def basis_dtype(self) -> torch.dtype:
        """Dtype of coordinates and basis: that of the output, and at least float32."""
        return at_least_float32(self.output.weight.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ContinuousKernel:
        keep = keeping_precision(fn)
        if recurse:
            for child in self.children():
                child._apply(fn if child is self.output else keep)
        super()._apply(keep, recurse=False)
        return self

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self.output.reset_parameters()

    def place(self, center: Sequence[float], spread: Sequence[float]) -> None:
        """Draw the centres of localised units in ``center +- spread``.

        A kernel without localised units has nothing to place, and keeps this empty method.
        """

    def scale_output_(self, factor: float) -> None:
        """Multiply all values of the kernel by ``factor``, in place."""
        number("factor", factor)
        with torch.no_grad():
            self.output.weight.mul_(factor)
            self.output.bias.mul_(factor)

    def frequency_bounds(self, stddevs: float = 2.0, *, formula: str = "tight") -> Tensor:
        """Highest frequency of each factor of the kernel, where that is analytic.

        Args:
            stddevs: Where the Gaussian spectrum of an envelope is cut off, in standard deviations.
            formula: ``"tight"`` or ``"official"``.

        Returns:
            Tensor of shape ``(factors, ndim)`` in cycles per unit coordinate. The sum over the
            factors bounds the kernel.

        Raises:
            ValueError: If the network has no analytic bound.
        """
        raise ValueError(
            f"{type(self).__name__} has no analytic maximum frequency; use MAGNet, Gabor or "
            "Fourier where the frequency must be known or penalised"
        )

    def max_frequency(self, stddevs: float = 2.0) -> Tensor:
        """Highest frequency of the kernel on each axis, in cycles per unit coordinate.

        One unit of the coordinate is half the largest kernel: divide by ``(N - 1) / 2`` for
        cycles per pixel, where N is the kernel's maximum size.

        Args:
            stddevs: Where the Gaussian spectrum of an envelope is cut off, in standard deviations.

        Returns:
            Tensor of shape ``(ndim,)``.

        Raises:
            ValueError: If the network has no analytic bound.
        """
        return self.frequency_bounds(stddevs).sum(dim=0)

    def extra_repr(self) -> str:
        """Show the two sizes in ``repr``."""
        return f"{self.ndim}, {self.out_features}"


def linears(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    """Return the linear layers among ``modules``, in order."""
    return [module for module in modules if isinstance(module, nn.Linear)]
