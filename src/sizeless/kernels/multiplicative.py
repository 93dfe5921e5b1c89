"""Multiplicative filter networks: MAGNet, Gabor and Fourier networks.

A product of localised waves, mixed linearly between the factors. Frequencies of the factors add,
so the highest frequency of the whole network is known in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._validate import float_tuple, number, one_of, positive_int
from sizeless.kernels.base import ContinuousKernel, linears
from sizeless.kernels.grid import stack_axes, unstack_axes


class MultiplicativeNetwork(ContinuousKernel):
    r"""Multiplicative filter network: the recursion that its subclasses share.

    $$
    h_0 = g_0(r), \qquad h_l = (A_l h_{l-1} + a_l) \odot g_l(r), \qquad
    K(r) = A_{out} h_L + a_{out}
    $$

    with waves $g_l(r)_i = E_l(r)_i \sin(w_{l,i} \cdot r + \beta_{l,i})$ and an envelope
    $E_l$ that a subclass defines (1 unless it does).

    Args:
        ndim: Number of coordinates.
        out_features: Number of kernel values at each coordinate.
        hidden: Number of units $H$ per layer.
        layers: Number of hidden linear maps $L$; there are ``layers + 1`` waves.
        input_scale: Scale of the initial frequencies $w$.
        device: Where the parameters live.
        dtype: Their dtype.

    Raises:
        ValueError: If a count is below 1 or ``input_scale`` is not positive.

    Source: Fathony et al., ICLR 2021; Romero et al. 2022, arXiv 2110.08059, section 3.2.
    """

    def __init__(
        self,
        ndim: int,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        input_scale: float = 25.6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(ndim, out_features, positive_int("hidden", hidden), device, dtype)
        self.hidden = hidden
        self.layers = positive_int("layers", layers)
        self.input_scale = number("input_scale", input_scale, above=0)
        factory: dict[str, Any] = {"device": device, "dtype": self.basis_dtype}
        self.frequency = nn.Parameter(torch.empty(layers + 1, hidden, ndim, **factory))
        self.phase = nn.Parameter(torch.empty(layers + 1, hidden, **factory))
        self.mixing = nn.ModuleList(nn.Linear(hidden, hidden, **factory) for _ in range(layers))
        self._add_envelope(**factory)
        self.reset_parameters()

    def _add_envelope(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Create the envelope's parameters; a pure wave has none."""

    def _log_envelope(self, coordinates: Tensor) -> Tensor | None:
        """Logarithm of the envelopes, ``(*, layers + 1, hidden)``; ``None`` for a pure wave."""
        return None

    def _envelope_profiles(self, axes: Tensor) -> Tensor | None:
        """Envelopes along each axis, ``(layers + 1, hidden, ndim, taps)``; their product is all."""
        return None

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as the paper does."""
        super().reset_parameters()
        bound = self.input_scale / math.sqrt((self.layers + 1) * self.ndim)
        nn.init.uniform_(self.frequency, -bound, bound)
        nn.init.uniform_(self.phase, -math.pi, math.pi)
        for linear in linears(self.mixing):
            linear.reset_parameters()
            nn.init.uniform_(linear.weight, -1 / math.sqrt(self.hidden), 1 / math.sqrt(self.hidden))

    def basis(self, coordinates: Tensor) -> Tensor:
        """Map coordinates ``(*, ndim)`` to basis functions ``(*, hidden)``."""
        flat = self.frequency.reshape(-1, self.ndim)
        angles = (coordinates @ flat.T).unflatten(-1, self.phase.shape) + self.phase
        waves = angles.sin()
        envelope = self._log_envelope(coordinates)
        if envelope is not None:
            waves = waves * envelope.exp()
        hidden = waves[..., 0, :]
        for index, linear in enumerate(linears(self.mixing), start=1):
            hidden = linear(hidden) * waves[..., index, :]
        return hidden

    def grid_basis(self, axes: Sequence[Tensor]) -> Tensor:
        """Basis functions on the grid that coordinate axes span, ``(hidden, *sizes)``."""
        if type(self).basis is not MultiplicativeNetwork.basis:
            return super().grid_basis(axes)
        waves = self._grid_waves(axes).unflatten(0, self.phase.shape).unbind(0)
        hidden = waves[0]
        for linear, wave in zip(linears(self.mixing), waves[1:], strict=True):
            hidden = torch.addmm(linear.bias[:, None], linear.weight, hidden) * wave
        return hidden.unflatten(1, tuple(map(len, axes)))

    def _grid_waves(self, axes: Sequence[Tensor]) -> Tensor:
        r"""All waves under their envelopes on a grid, one per row.

        $\sin(a + b) = \sin a \cos b + \cos a \sin b$ and a Gaussian is the product of its
        profiles, so that sine and exponential are taken along the axes only.
        """
        places = stack_axes(axes)
        share = (self.phase / self.ndim)[..., None, None]
        angles = torch.addcmul(share, self.frequency[..., None], places).flatten(0, 1)
        envelopes = self._envelope_profiles(places)
        if self.ndim == 1:
            waves = angles.sin()
            return (waves if envelopes is None else waves * envelopes.flatten(0, 1)).squeeze(1)
        profiles = torch.stack((angles.sin(), angles.cos()), dim=-1)
        if envelopes is not None:
            profiles = profiles * envelopes.flatten(0, 1)[..., None]
        first, *others = unstack_axes(profiles, axes, dim=1)
        for profile in others[:-1]:
            sine, cosine = profile.unbind(-1)
            waves = first @ torch.stack((cosine, sine), dim=1)
            shifted = first @ torch.stack((-sine, cosine), dim=1)
            first = torch.stack((waves.flatten(1), shifted.flatten(1)), dim=-1)
        return (first @ others[-1].flip(-1).mT).flatten(1)

    def _envelope_width(self) -> Tensor | None:
        """Inverse widths of the envelopes, ``(layers + 1, hidden, 1 or ndim)``, or ``None``."""
        return None

    def frequency_bounds(self, stddevs: float = 2.0, *, formula: str = "tight") -> Tensor:
        r"""Highest frequency of each factor, in cycles per unit coordinate.

        $$
        f_{l,d} = \max_i \big( |w_{l,i,d}| + s\, |\gamma_{l,i,d}| \big) / 2\pi
        $$

        A wave has the frequency $|w| / 2\pi$; its Gaussian envelope spreads it by
        $s$ standard deviations of $\gamma / 2\pi$. With ``formula="official"`` the two
        maxima run over independent units and axes, as the authors' program has it:
        $f_l = \max_{i,d} |w| / 2\pi + s \max_{j,e} |\gamma| / 2\pi$ on every axis.

        Args:
            stddevs: Cut-off $s$ of the envelope's spectrum, in standard deviations.
            formula: ``"tight"`` or ``"official"``.

        Returns:
            Tensor of shape ``(layers + 1, ndim)``.

        Source: Romero et al. 2022, arXiv 2110.08059, section 3.3.
        """
        one_of("formula", formula, ("tight", "official"))
        number("stddevs", stddevs, minimum=0)
        wave = self.frequency.abs() / (2 * math.pi)
        width = self._envelope_width()
        spread = torch.zeros_like(wave) if width is None else width.abs() * stddevs / (2 * math.pi)
        if formula == "official":
            highest = wave.amax(dim=(1, 2)) + spread.amax(dim=(1, 2))
            return highest[:, None].expand(-1, self.ndim)
        return (wave + spread).amax(dim=1)

    def extra_repr(self) -> str:
        """Show the sizes in ``repr``."""
        return f"{super().extra_repr()}, hidden={self.hidden}, layers={self.layers}"


class Fourier(MultiplicativeNetwork):
    r"""Fourier network: a multiplicative filter network of pure waves.

    $$
    g_l(r)_i = \sin(w_{l,i} \cdot r + \beta_{l,i})
    $$

    Args:
        ndim: Number of coordinates.
        out_features: Number of kernel values at each coordinate.
        hidden: Number of units per layer.
        layers: Number of hidden linear maps; there is one wave more.
        input_scale: Scale of the initial frequencies; 256 is what the authors' runs used. It is far
            above what few taps hold: such a kernel may be anything between them.
        device: Where the parameters live.
        dtype: Their dtype.

    Source: Fathony et al., ICLR 2021, section 3.1.

    Examples:
        >>> import torch
        >>> Fourier(2, 6)(torch.zeros(5, 5, 2)).shape
        torch.Size([5, 5, 6])
    """

    def __init__(
        self,
        ndim: int,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        input_scale: float = 256.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            ndim,
            out_features,
            hidden=hidden,
            layers=layers,
            input_scale=input_scale,
            device=device,
            dtype=dtype,
        )


class _Localised(MultiplicativeNetwork):
    """Waves under Gaussian envelopes with trained centres and inverse widths."""

    anisotropic = True

    def _add_envelope(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        shape = (self.layers + 1, self.hidden)
        width_axes = self.ndim if self.anisotropic else 1
        self.gamma = nn.Parameter(torch.empty(*shape, width_axes, device=device, dtype=dtype))
        self.center = nn.Parameter(torch.empty(*shape, self.ndim, device=device, dtype=dtype))

    def _gamma_shapes(self) -> Tensor:
        """Shape of the Gamma distribution of each factor's inverse widths."""
        return 6.0 / torch.arange(1.0, self.layers + 2, device="cpu")

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the centres in [-1, 1]."""
        super().reset_parameters()
        self.place((0.0,) * self.ndim, (1.0,) * self.ndim)
        if self.gamma.is_meta:
            return
        with torch.no_grad():
            shapes = self._gamma_shapes()[:, None, None].expand(self.gamma.shape)
            self.gamma.copy_(torch.distributions.Gamma(shapes, 1.0).sample())
            self.frequency.mul_(self.gamma)

    def place(self, center: Sequence[float], spread: Sequence[float]) -> None:
        """Draw the centres of all envelopes uniformly in ``center +- spread``, per axis."""
        centers = float_tuple("center", center, self.ndim)
        spreads = float_tuple("spread", spread, self.ndim)
        if min(spreads) < 0:
            raise ValueError(f"spread must be at least 0 on every axis, got {spread!r}")
        with torch.no_grad():
            for axis in range(self.ndim):
                self.center[..., axis].uniform_(
                    centers[axis] - spreads[axis], centers[axis] + spreads[axis]
                )

    def _log_envelope(self, coordinates: Tensor) -> Tensor:
        offsets = coordinates[..., None, None, :] - self.center
        return -0.5 * (self.gamma * offsets).square().sum(dim=-1)

    def _envelope_profiles(self, axes: Tensor) -> Tensor:
        offsets = self.gamma[..., None] * (axes - self.center[..., None])
        return (-0.5 * offsets.square()).exp()

    def _envelope_width(self) -> Tensor:
        return self.gamma


class MAGNet(_Localised):
    r"""Multiplicative anisotropic Gabor network, FlexConv's kernel network.

    $$
    g_l(r)_i = \exp\Big(-\tfrac12 \sum_d [\gamma_{l,i,d} (r_d - \mu_{l,i,d})]^2\Big)
    \sin(w_{l,i} \cdot r + \beta_{l,i})
    $$

    Every unit has its own centre $\mu$ and one inverse width $\gamma$ per axis.
    Initially $\gamma_l \sim \Gamma(6 / (l + 1), 1)$, $\mu$ uniform (see ``place``),
    $w_l = \gamma_l \odot U(\pm 1 / \sqrt D) \cdot$ ``input_scale`` $/ \sqrt{L + 1}$.

    Args:
        ndim: Number of coordinates.
        out_features: Number of kernel values at each coordinate.
        hidden: Number of units per layer.
        layers: Number of hidden linear maps; there is one wave more.
        input_scale: Scale of the initial frequencies; 25.6 in the paper's networks, whose kernels
            begin far above the Nyquist frequency of 33 taps. A tenth of it suits kernels that are
            to serve at other resolutions.
        device: Where the parameters live.
        dtype: Their dtype.

    Raises:
        ValueError: If a count is below 1 or ``input_scale`` is not positive.

    Source: Romero et al. 2022, arXiv 2110.08059, section 3.2 and appendix.

    Examples:
        >>> import torch
        >>> kernel = MAGNet(2, 6)
        >>> kernel(torch.zeros(5, 5, 2)).shape, kernel.max_frequency().shape
        (torch.Size([5, 5, 6]), torch.Size([2]))
    """


class Gabor(_Localised):
    r"""Gabor network: as ``MAGNet``, with one inverse width for all axes of a unit.

    $$
    g_l(r)_i = \exp(-\tfrac12 \gamma_{l,i}^2 \lVert r - \mu_{l,i} \rVert^2)
    \sin(w_{l,i} \cdot r + \beta_{l,i})
    $$

    Initially $\gamma \sim \Gamma(6 / (L + 1), 1)$ for every factor.

    Args:
        ndim: Number of coordinates.
        out_features: Number of kernel values at each coordinate.
        hidden: Number of units per layer.
        layers: Number of hidden linear maps; there is one wave more.
        input_scale: Scale of the initial frequencies.
        device: Where the parameters live.
        dtype: Their dtype.

    Source: Fathony et al., ICLR 2021, section 3.2, in the form of FlexConv's ablations.

    Examples:
        >>> import torch
        >>> Gabor(1, 6)(torch.zeros(7, 1)).shape
        torch.Size([7, 6])
    """

    anisotropic = False

    def _gamma_shapes(self) -> Tensor:
        return torch.full((self.layers + 1,), 6.0 / (self.layers + 1), device="cpu")
