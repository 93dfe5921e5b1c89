"""The learnable Gaussian window that decides how large a kernel is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from sizeless._precision import at_least_float32
from sizeless._validate import real_tensor
from sizeless.functional.limits import clamp_straight_through
from sizeless.kernels.grid import stack_axes, unstack_axes
from sizeless.nn import crop
from sizeless.nn.crop import REACH, THRESHOLD, Bounds, Place, spacing
from sizeless.nn.sized import SizeParameters, refuse_nan

WIDEST = 10.0
"""Largest standard deviation in units of half the axis: flat to 0.5 % over the whole kernel."""


class GaussianWindow(SizeParameters):
    r"""Gaussian window over the taps of a kernel, with one width and centre per axis.

    $$
    w(r) = \prod_d \exp\Big(-\tfrac12 \Big(\frac{r_d - \mu_d}{\sigma_d}\Big)^2\Big)
    $$

    The axis of $N_d$ taps spans $r_d \in [-1, 1]$. Taps whose window would be below
    0.1 are cropped: centred, those with $|r_d| < |\mu_d| + 2.146\,\sigma_d$ stay, so the
    size is odd; causal, those with $r > \mu - 2.146\,\sigma$.

    Widths are stored as logarithms, so they stay positive. Width and centre are used within their
    limits, and their gradients pass at the limits (``clamp_straight_through``).

    Args:
        taps: Number of taps of each axis.
        sizes: Initial size of each axis in taps; fractions are allowed.
        causal: Whether the window starts at the last tap and looks back.
        learn_center: Whether the centre is a parameter or stays where it starts: at the middle
            tap, or causally at the last.
        min_sizes: Smallest size of each axis that training can reach. One tap passes no gradient
            to the width, so layers ask for more.
        device: Where the parameters live.
        dtype: Their dtype.

    Source: Romero et al. 2022, arXiv 2110.08059, section 3.1.
    """

    def __init__(
        self,
        taps: Sequence[int],
        sizes: Sequence[float],
        *,
        causal: bool,
        learn_center: bool,
        min_sizes: Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.causal = causal
        self.init_sizes = tuple(sizes)
        self.min_sizes = tuple(min_sizes)
        self.farthest_center = 1.0
        self.narrowest, self.widest = math.inf, WIDEST
        shape = (len(self.taps),)
        self.log_sigma = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        center = torch.empty(shape, device=device, dtype=dtype)
        self.raw_center: Tensor
        if learn_center:
            self.raw_center = nn.Parameter(center)
        else:
            self.register_buffer("raw_center", center, persistent=False)
            self.register_load_state_dict_post_hook(_restore_center)
        self.reset_parameters()

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.taps)

    def reset_parameters(self) -> None:
        """Return to the initial size and centre."""
        sigmas = [
            self._sigma_of(size, n) for size, n in zip(self.init_sizes, self.taps, strict=True)
        ]
        with torch.no_grad():
            self.log_sigma.copy_(torch.tensor([math.log(s) for s in sigmas], device="cpu"))
            self.raw_center.fill_(self._first_center)

    @property
    def _first_center(self) -> float:
        return 1.0 if self.causal else 0.0

    def _sigma_of(self, size: float, taps: int) -> float:
        """Width at which a centred window keeps ``size`` taps, rounded to the crop rule."""
        reach = size - 0.5 if self.causal else size / 2
        return reach * spacing(taps) / REACH

    def _log_limits(self) -> tuple[list[float], float]:
        """Logarithms of the smallest width of each axis, and of the largest of all."""
        # Five per cent above the width at which the outermost tap would be lost.
        low = [
            max(m - 1 if self.causal else (m - 1) / 2, 0.05) * 1.05 * spacing(n) / REACH
            for m, n in zip(self.min_sizes, self.taps, strict=True)
        ]
        return [math.log(min(sigma, self.narrowest)) for sigma in low], math.log(self.widest)

    def _limits(self) -> tuple[float | Tensor, float]:
        """The same; one number where all axes share it, which needs no tensor."""
        low, high = self._log_limits()
        return low[0] if len(set(low)) == 1 else self.log_sigma.new_tensor(low), high

    @property
    def sigma(self) -> Tensor:
        """Standard deviation of each axis, ``(ndim,)``, in units of half the axis."""
        return clamp_straight_through(self.log_sigma, *self._limits()).exp()

    @property
    def center(self) -> Tensor:
        """Centre of each axis, ``(ndim,)``, in [-1, 1]."""
        return clamp_straight_through(self.raw_center, -self.farthest_center, self.farthest_center)

    def assign_(self, center: Tensor, sigma: Tensor) -> None:
        """Set centres and widths, in place, and widen the limits to hold them.

        For windows from elsewhere, which may be narrower, wider or farther out than training here
        lets them become.

        Args:
            center: Centres in units of half the axis, ``(ndim,)``.
            sigma: Widths in the same unit, ``(ndim,)``; their sign does not matter.

        Raises:
            TypeError: If one of them is no floating-point tensor.
            ValueError: If a width is 0, a number is not finite, or there is not one for each axis.
        """
        for name, value in (("center", center), ("sigma", sigma)):
            if tuple(real_tensor(name, value).shape) != (self.ndim,):
                raise ValueError(
                    f"{name} must have shape ({self.ndim},), one number per axis, got "
                    f"{tuple(value.shape)}"
                )
        if not center.isfinite().all():
            raise ValueError(f"center must be finite on every axis, got {center.tolist()}")
        widths = sigma.detach().abs().tolist()
        if not all(0 < width < math.inf for width in widths):
            raise ValueError(f"sigma must be finite and not 0 on every axis, got {sigma.tolist()}")
        with torch.no_grad():
            self.raw_center.copy_(center)
            self.log_sigma.copy_(sigma.abs().to(self.log_sigma.dtype).log())
            self.farthest_center = max(1.0, *self.raw_center.abs().tolist())
            self.widest = max(WIDEST, *widths)
            limit = self.log_sigma.new_tensor(self._log_limits()[0])
            if (self.log_sigma < limit).any():
                self.min_sizes = (1,) * self.ndim
                self.narrowest = min(widths)

    def resize_(self, taps: Sequence[int]) -> None:
        """Spread the axes over other numbers of taps; every size keeps its share of its axis."""
        spans = [
            max(new - 1, 1) / max(old - 1, 1) for new, old in zip(taps, self.taps, strict=True)
        ]
        self.init_sizes = tuple(
            min(max(size * span, 1.0), n)
            for size, span, n in zip(self.init_sizes, spans, taps, strict=True)
        )
        step = 1 if self.causal else 2
        self.min_sizes = tuple(
            step * int((size - 1) * span / step) + 1
            for size, span in zip(self.min_sizes, spans, strict=True)
        )
        self.taps = tuple(taps)

    def project_(self) -> None:
        """Move width and centre back into their limits, in place."""
        with torch.no_grad():
            low, high = self._log_limits()
            limit = self.log_sigma.new_tensor(low)
            self.log_sigma.copy_(self.log_sigma.clamp(limit).clamp(max=high))
            self.raw_center.clamp_(-self.farthest_center, self.farthest_center)

    def read(self) -> list[Place]:
        """Width and centre of each axis as numbers, in one copy to the host.

        Raises:
            ValueError: If one of them is NaN.
        """
        both = torch.stack((self.log_sigma.detach(), self.raw_center.detach())).tolist()
        logs = refuse_nan(both[0], "the window's width sigma")
        centers = refuse_nan(both[1], "the window's centre")
        low, high = self._log_limits()
        farthest = self.farthest_center
        return [
            (math.exp(min(max(log, least), high)), min(max(center, -farthest), farthest))
            for log, least, center in zip(logs, low, centers, strict=True)
        ]

    def bounds(self) -> Bounds:
        """First tap kept, and one past the last, for each axis."""
        return tuple(
            crop.bounds(crop.kept(*place, n, self.causal), n, self.causal)
            for place, n in zip(self.read(), self.taps, strict=True)
        )

    def inside(self, bounds: Bounds, beyond: int = 0) -> list[Tensor]:
        """Which taps within ``bounds`` the crop keeps, for each axis, without a host read.

        Args:
            bounds: First tap, and one past the last, for each axis.
            beyond: Taps beyond the crop that count as inside.
        """
        sigma, center = self._precise()
        return [
            crop.inside(
                crop.kept_tensor(sigma[d], center[d], n, self.causal) + beyond,
                start,
                stop,
                n,
                self.causal,
            )
            for d, (n, (start, stop)) in enumerate(zip(self.taps, bounds, strict=True))
        ]

    def _precise(self) -> tuple[Tensor, Tensor]:
        """Width and centre by the arithmetic of ``read``, where the device has float64."""
        like = self.log_sigma
        dtype = at_least_float32(like.dtype) if like.device.type == "mps" else torch.float64
        low, high = self._log_limits()
        log = like.detach().to(dtype)
        sigma = log.clamp(log.new_tensor(low)).clamp(max=high).exp()
        farthest = self.farthest_center
        return sigma, self.raw_center.detach().to(dtype).clamp(-farthest, farthest)

    def forward(self, axes: Sequence[Tensor], inside: Sequence[Tensor] | None = None) -> Tensor:
        """Window values on the grid that the coordinate axes span, shape ``(*sizes)``.

        Args:
            axes: Coordinates of the taps of each axis.
            inside: Which of them count, for each axis; the window is 0 at the others.
        """
        profiles = self._log_profiles(axes, self.center).exp()
        rows = unstack_axes(profiles, axes)
        if inside is not None:
            rows = [torch.where(m, row, 0.0) for m, row in zip(inside, rows, strict=True)]
        return reduce(lambda window, profile: window[..., None] * profile, rows)

    def rim(self, axes: Sequence[Tensor]) -> Tensor:
        r"""Stand-in for the window on taps that it crops, shape ``(*sizes)``.

        $$
        \tau\, (1 + \log w - \operatorname{stop}(\log w))
        $$

        Its value is the threshold $\tau = 0.1$ that the window has where it is cropped, and
        its relative gradient in the width is the window's. The window itself is so small far out
        that it would pass nothing on. The centre gets no gradient: a window should grow towards
        what it misses, and not leave what it has.
        """
        profiles = self._log_profiles(axes, self.center.detach())
        rows = unstack_axes(profiles, axes)
        log_window = reduce(lambda window, profile: window[..., None] + profile, rows)
        return THRESHOLD * (1 + log_window - log_window.detach())

    def _log_profiles(self, axes: Sequence[Tensor], center: Tensor) -> Tensor:
        """Logarithm of the window along every axis, one row for each."""
        sigma = self.sigma
        places = stack_axes(axes).to(sigma.dtype)
        return -0.5 * ((places - center[:, None]) / sigma[:, None]).square()

    def relaxed_size(self) -> Tensor:
        """Size of each axis in taps before rounding, ``(ndim,)``, differentiable.

        It goes on beyond the largest kernel, so a penalty on size reaches a window that is wide
        open.
        """
        reach = REACH * self.sigma
        distances = reach.new_tensor([spacing(n) for n in self.taps])
        if self.causal:
            return (1 - self.center + reach) / distances + 0.5
        return 2 * (self.center.abs() + reach) / distances

    def max_frequency(self, stddevs: float = 2.0) -> Tensor:
        r"""Frequency $s / (2 \pi \sigma_d)$ that the window adds to the kernel's.

        Args:
            stddevs: Where the window's Gaussian spectrum is cut off, in standard deviations.

        Returns:
            Tensor of shape ``(ndim,)`` in cycles per unit coordinate.
        """
        return stddevs / (2 * math.pi * self.sigma)


def _restore_center(window: GaussianWindow, _incompatible_keys: object) -> None:
    """Make the centre that is no parameter, and in no state dict, anew beside what was loaded."""
    window.raw_center = torch.full_like(window.log_sigma.detach(), window._first_center)
