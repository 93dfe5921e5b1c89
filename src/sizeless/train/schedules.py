"""Learning rates over training, as factors of the rates that the optimiser starts with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

SCHEDULES = ("cosine", "plateau", "steps", "constant")

Factor = Callable[[int], float]


def schedule_factor(
    name: str,
    steps: int,
    warmup: float,
    milestones: Sequence[float] = (),
    plateau: Plateau | None = None,
) -> Factor:
    """Return the factor of the learning rate as a function of the step.

    It rises linearly over the first ``warmup`` part of all steps; then it follows a cosine to 0,
    falls to a tenth at each of the ``milestones``, is what ``plateau`` says, or stays at 1.

    Args:
        name: One of ``SCHEDULES``.
        steps: Steps of the whole training.
        warmup: Part of them in which the factor rises to 1.
        milestones: Parts of all steps after which it falls, for ``"steps"``.
        plateau: What decides, for ``"plateau"``.

    Examples:
        >>> factor = schedule_factor("cosine", steps=10, warmup=0.2)
        >>> [round(factor(step), 2) for step in (0, 1, 2, 6, 10)]
        [0.33, 0.67, 1.0, 0.5, 0.0]
        >>> factor = schedule_factor("steps", steps=10, warmup=0.0, milestones=(0.5, 0.8))
        >>> [round(factor(step), 2) for step in (0, 4, 5, 8)]
        [1.0, 1.0, 0.1, 0.01]
    """
    rising = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        if name == "cosine":
            progress = (step - rising) / max(1, steps - rising)
            return (1 + math.cos(math.pi * min(1.0, progress))) / 2
        if name == "steps":
            return float(0.1 ** sum(step >= part * steps for part in milestones))
        return plateau.factor if name == "plateau" and plateau is not None else 1.0

    return factor


class Plateau:
    """A factor that falls where a metric no longer rises: ``torch``'s ``ReduceLROnPlateau``.

    Args:
        decay: What the factor is multiplied with.
        patience: Epochs without a better metric that are waited for.

    Examples:
        >>> plateau = Plateau(decay=0.2, patience=0)
        >>> for accuracy in (0.5, 0.6, 0.6):
        ...     plateau.update(accuracy)
        >>> plateau.factor
        0.2
    """

    def __init__(self, decay: float = 0.2, patience: int = 20) -> None:
        self._optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self._scheduler = ReduceLROnPlateau(
            self._optimizer, mode="max", factor=decay, patience=patience
        )

    @property
    def factor(self) -> float:
        """The factor now."""
        return float(self._optimizer.param_groups[0]["lr"])

    def update(self, metric: float) -> None:
        """Take the metric of an epoch."""
        self._scheduler.step(metric)

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` takes."""
        return {"factor": self.factor, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._scheduler.load_state_dict(state["scheduler"])
        self._optimizer.param_groups[0]["lr"] = state["factor"]
