"""The analytic highest frequency of a kernel against its measured spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from sizeless.kernels import MLP, NSIREN, SIREN, ContinuousKernel, Fourier, Gabor, MAGNet

SAMPLES, SPAN = 2048, 16.0


def spectrum(kernel: ContinuousKernel, axis: int) -> tuple[Tensor, Tensor]:
    """Frequencies in cycles per unit coordinate, and the energy at each along one axis.

    The kernel is sampled on a line far longer than [-1, 1], under a taper (Hann to the fourth
    power) that widens a spectral line to 5 bins on either side.
    """
    line = torch.linspace(-SPAN / 2, SPAN / 2, SAMPLES + 1, dtype=torch.float64)[:-1]
    r = torch.rand(kernel.ndim, dtype=torch.float64).expand(SAMPLES, -1).clone() - 0.5
    r[:, axis] = line
    taper = torch.hann_window(SAMPLES, dtype=torch.float64) ** 4
    with torch.no_grad():
        values = kernel(r) - kernel.output.bias
    energy = torch.fft.rfft(values * taper[:, None], dim=0).abs().square().sum(dim=1)
    return torch.arange(len(energy)) / SPAN, energy


def share_above(kernel: ContinuousKernel, axis: int, limit: float) -> float:
    frequency, energy = spectrum(kernel, axis)
    return float(energy[frequency > limit + 5 / SPAN].sum() / energy.sum())


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_no_energy_of_a_fourier_network_lies_above_the_bound(ndim: int, seed: int) -> None:
    torch.manual_seed(seed)
    kernel = Fourier(ndim, 3, hidden=4, layers=2, input_scale=20.0, dtype=torch.float64)
    for axis, limit in enumerate(kernel.max_frequency().tolist()):
        assert share_above(kernel, axis, limit) < 1e-8


@pytest.mark.parametrize("kind", [MAGNet, Gabor])
@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_next_to_no_energy_of_a_gabor_network_lies_above_the_bound(
    kind: Callable[..., ContinuousKernel], ndim: int, seed: int
) -> None:
    torch.manual_seed(seed)
    kernel = kind(ndim, 3, hidden=4, layers=2, input_scale=20.0, dtype=torch.float64)
    # Beyond 2 standard deviations lies 0.5 % of the energy of one Gaussian, 1.5e-8 beyond 4.
    for stddevs, share in ((2.0, 5e-3), (4.0, 1e-7)):
        for axis, limit in enumerate(kernel.max_frequency(stddevs).tolist()):
            assert share_above(kernel, axis, limit) < share


@pytest.mark.parametrize("ndim", [1, 2])
def test_a_network_of_one_unit_reaches_the_bound(ndim: int) -> None:
    kernel = Fourier(ndim, 1, hidden=1, layers=2, input_scale=20.0, dtype=torch.float64)
    with torch.no_grad():
        for mixing in kernel.mixing:
            mixing.bias.zero_()
    for axis, limit in enumerate(kernel.max_frequency().tolist()):
        assert share_above(kernel, axis, limit) < 1e-8
        # A product of three sines has a quarter of its energy at the sum of their frequencies.
        assert share_above(kernel, axis, limit - 10 / SPAN) > 0.1


def test_a_single_envelope_has_the_spectrum_that_the_bound_assumes() -> None:
    kernel = MAGNet(1, 1, hidden=1, layers=1, dtype=torch.float64)
    with torch.no_grad():
        kernel.frequency.copy_(torch.tensor([[[30.0]], [[0.0]]]))
        kernel.phase.copy_(torch.tensor([[0.0], [math.pi / 2]]))
        kernel.gamma.copy_(torch.tensor([[[5.0]], [[0.0]]]))
        kernel.center.zero_()
        kernel.mixing[0].bias.zero_()
    for stddevs in (1.0, 2.0):
        limit = kernel.max_frequency(stddevs).item()
        assert limit == pytest.approx((30 + 5 * stddevs) / (2 * math.pi))
        frequency, energy = spectrum(kernel, 0)
        beyond = float(energy[frequency > limit].sum() / energy.sum())
        # The energy is the squared amplitude: a Gaussian of 1 / sqrt(2) times the deviation.
        assert beyond == pytest.approx(0.5 * math.erfc(stddevs), rel=0.25)


def test_bounds_are_the_formulas() -> None:
    kernel = MAGNet(2, 1, hidden=5, layers=2, dtype=torch.float64)
    w, gamma = kernel.frequency.abs(), kernel.gamma.abs()
    for s in (0.0, 1.0, 2.0):
        tight, official = torch.zeros(3, 2).double(), torch.zeros(3, 2).double()
        for layer in range(3):
            for axis in range(2):
                tight[layer, axis] = max(
                    (w[layer, i, axis] + s * gamma[layer, i, axis]) / 6.283185307179586
                    for i in range(5)
                )
            official[layer] = (w[layer].max() + s * gamma[layer].max()) / 6.283185307179586
        torch.testing.assert_close(kernel.frequency_bounds(s), tight)
        torch.testing.assert_close(kernel.frequency_bounds(s, formula="official"), official)
        torch.testing.assert_close(kernel.max_frequency(s), tight.sum(dim=0))


def test_the_sign_of_an_inverse_width_does_not_matter() -> None:
    kernel = Gabor(2, 1, hidden=5, layers=2)
    before = kernel.max_frequency()
    with torch.no_grad():
        kernel.gamma.neg_()
    torch.testing.assert_close(kernel.max_frequency(), before)


def test_bounds_pass_gradients_to_frequencies_and_widths() -> None:
    kernel = MAGNet(1, 1, hidden=4, layers=1)
    kernel.max_frequency().sum().backward()
    for parameter in (kernel.frequency, kernel.gamma):
        assert parameter.grad is not None
        assert (parameter.grad != 0).flatten(1).sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize("make", [SIREN, NSIREN, MLP, partial(SIREN, omega_0=3.0)])
def test_networks_without_an_analytic_frequency_say_so(
    make: Callable[..., ContinuousKernel],
) -> None:
    kernel = make(2, 1)
    for ask in (kernel.max_frequency, kernel.frequency_bounds):
        with pytest.raises(ValueError, match=f"{type(kernel).__name__} has no analytic.*MAGNet"):
            ask()


def test_an_unknown_formula_is_named() -> None:
    with pytest.raises(ValueError, match="formula must be 'tight' or 'official', got 'loose'"):
        MAGNet(2, 1).frequency_bounds(formula="loose")
