"""One fit: full-batch Adam on the squared error at the taps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sizeless._validate import int_at_least, number
from sizeless.kernels import ContinuousKernel, coordinate_axis
from sizeless.study.fitting.njet import fit_njet
from sizeless.study.fitting.targets import FINE, Target

CLOSE = 0.01
"""Normalised error from which on a fit counts as close."""
MARKS = 40
"""Moments of a fit that are noted, about; they are denser at the start."""


@dataclass(frozen=True)
class Moment:
    """The state of a fit after some steps.

    Attributes:
        step: Number of updates.
        seconds: Processor time so far.
        mse: Lowest mean squared error so far.
    """

    step: int
    seconds: float
    mse: float


@dataclass(frozen=True)
class Fit:
    """What came of a fit.

    Attributes:
        values: The kernel at the taps, ``(channels, *sizes)``, at its lowest error.
        fine: The same kernel on the grid that is ``FINE`` times as fine.
        mse: Mean squared error at the taps; NaN if it was never finite.
        curve: The error over the fit.
        close: When the error first was ``CLOSE`` of the target's variance or less, if ever.
        steps: Updates that were made; fewer than asked for if the error became infinite.
        seconds: Processor time of the whole fit.
        parameters: Number of parameters.
        bound: Analytic highest frequency on any axis in cycles per unit, with Gaussian spectra cut
            at 2 standard deviations; ``None`` where there is no such bound.
    """

    values: np.ndarray
    fine: np.ndarray
    mse: float
    curve: tuple[Moment, ...]
    close: Moment | None
    steps: int
    seconds: float
    parameters: int
    bound: float | None


def fit(network: ContinuousKernel, target: Target, *, rate: float, steps: int) -> Fit:
    """Fit a kernel network to a target, and leave it with the weights of the lowest error.

    Args:
        network: Any continuous kernel with as many coordinates and outputs as the target; it is
            changed.
        target: What to fit.
        rate: Learning rate of Adam.
        steps: Number of updates.

    Raises:
        ValueError: If the rate is not positive, the steps are negative, or the network does not
            suit the target.

    Examples:
        >>> from sizeless.study.fitting.networks import make
        >>> from sizeless.study.fitting.targets import target
        >>> wanted = target("blobs", 9)
        >>> done = fit(make("magnet", 2, 4, hidden=8), wanted, rate=0.01, steps=50)
        >>> done.mse < 0.5 * wanted.variance, done.steps
        (True, 50)
    """
    number("rate", rate, above=0)
    int_at_least("steps", steps, 0)
    if (network.ndim, network.out_features) != (target.ndim, len(target.values)):
        raise ValueError(
            f"network must have {target.ndim} coordinates and {len(target.values)} outputs for the "
            f"target {target.name}, got {network.ndim} and {network.out_features}"
        )
    descent = _Descent(network, target, rate)
    for step in range(steps + 1):
        loss = descent.look(step, last=step == steps)
        if step == steps or not math.isfinite(loss):
            break
        descent.move()
    return descent.finish()


class _Descent:
    """A fit that is under way."""

    def __init__(self, network: ContinuousKernel, target: Target, rate: float) -> None:
        self.network, self.target = network, target
        like = network.output.weight
        self.wanted = torch.as_tensor(target.values, dtype=like.dtype, device=like.device)
        self.axes = [coordinate_axis(n, 0, n, like) for n in target.values.shape[1:]]
        self.optimiser = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
        self.best = math.inf
        self.weights = _weights(network)
        self.curve: list[Moment] = []
        self.close: Moment | None = None
        self.next_mark, self.step = 0, 0
        self.start = time.process_time()

    def look(self, step: int, *, last: bool) -> float:
        """Measure the error, and note it if it is time to."""
        self.step = step
        self.loss = (_render(self.network, self.axes) - self.wanted).square().mean()
        loss = float(self.loss.detach())
        if loss < self.best:
            self.best, self.weights = loss, _weights(self.network)
        if self.close is None and self.best <= CLOSE * self.target.variance:
            self.close = self._moment()
        if last or step >= self.next_mark or not math.isfinite(loss):
            self.curve.append(self._moment())
            self.next_mark = max(step + 1, math.ceil(step * 10 ** (4 / MARKS)))
        return loss

    def move(self) -> None:
        """Make one update."""
        self.optimiser.zero_grad()
        self.loss.backward()
        self.optimiser.step()

    @torch.no_grad()
    def finish(self) -> Fit:
        seconds = time.process_time() - self.start
        self.network.load_state_dict(self.weights)
        like = self.network.output.weight
        sizes = [FINE * (n - 1) + 1 for n in self.target.values.shape[1:]]
        fine_axes = [coordinate_axis(n, 0, n, like) for n in sizes]
        return Fit(
            values=_array(_render(self.network, self.axes)),
            fine=_array(_render(self.network, fine_axes)),
            mse=self.best if math.isfinite(self.best) else math.nan,
            curve=tuple(self.curve),
            close=self.close,
            steps=self.step,
            seconds=seconds,
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
            bound=bound_of(self.network),
        )

    def _moment(self) -> Moment:
        return Moment(self.step, time.process_time() - self.start, self.best)


def fit_jet(target: Target) -> Fit:
    """Fit the fixed basis of Gaussian derivatives, which takes no steps and has no seed."""
    start = time.process_time()
    jet = fit_njet(target)
    seconds = time.process_time() - start
    values, fine = (
        jet.render([np.linspace(-1.0, 1.0, n)] * target.ndim)
        for n in (target.taps, FINE * (target.taps - 1) + 1)
    )
    mse = float(np.mean((values - target.values) ** 2))
    end = Moment(0, seconds, mse)
    close = end if mse <= CLOSE * target.variance else None
    return Fit(values, fine, mse, (end,), close, 0, seconds, jet.parameters, None)


@torch.no_grad()
def bound_of(network: ContinuousKernel) -> float | None:
    """Return a network's analytic highest frequency in cycles per unit, if it has one.

    Examples:
        >>> from sizeless.study.fitting.networks import make
        >>> bound_of(make("mlp", 2, 1)) is None, bound_of(make("magnet", 2, 1)) > 1
        (True, True)
    """
    try:
        return float(network.max_frequency().max())
    except ValueError:
        return None


def _render(network: ContinuousKernel, axes: Sequence[Tensor]) -> Tensor:
    """The kernel on a grid, as the layers render it: ``(channels, *sizes)``."""
    functions = network.grid_basis(axes).flatten(1)
    output = network.output
    values = torch.addmm(output.bias[:, None], output.weight, functions)
    return values.unflatten(1, tuple(map(len, axes)))


def _weights(network: ContinuousKernel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
