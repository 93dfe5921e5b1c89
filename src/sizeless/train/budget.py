"""The budget of a run: its options, and the state that its checkpoints hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sizeless.budget import CostBudget
from sizeless.machine import Machine


@dataclass(frozen=True)
class BudgetOptions:
    """What the network may cost; see ``sizeless.CostBudget``.

    Args:
        share: The limit as a share of what the network costs at the start.
        limit: The limit in multiply-accumulates, bytes or seconds of one sample.
        quantity: ``"macs"``, ``"bytes"`` or ``"latency"``.
        form: ``"constraint"`` or ``"penalty"``.
        weight: Weight of the penalty, or of the constraint's squared excess.
        multiplier_lr: Learning rate of the constraint's multiplier.
        machine: Rates for the latency.

    Raises:
        TypeError: If a number is no number.
        ValueError: If a value is out of range, or neither or both of the limits are given.

    Examples:
        >>> BudgetOptions(share=0.6).form
        'constraint'
    """

    share: float | None = None
    limit: float | None = None
    quantity: str = "macs"
    form: str = "constraint"
    weight: float = 1.0
    multiplier_lr: float = 0.01
    machine: Machine | None = None

    def __post_init__(self) -> None:
        # A wrong value is told before any data are read.
        self.make(nn.Linear(1, 1), torch.zeros(1, 1))

    def make(self, network: nn.Module, example_input: Tensor) -> CostBudget:
        """Return the budget of a network at its present sizes."""
        return CostBudget(network, example_input, **vars(self))


class RunBudget:
    """The budget of a run, made of the first batch: only then is known what a sample is like.

    Args:
        options: What the network may cost.
    """

    def __init__(self, options: BudgetOptions) -> None:
        self.options = options
        self._budget: CostBudget | None = None
        self._state: dict[str, float] = {}

    @property
    def is_known(self) -> bool:
        """Whether it is known what the network cost at the start."""
        return self._budget is not None or bool(self._state)

    def of(self, network: nn.Module, inputs: Tensor) -> CostBudget:
        """Return the budget; the first time, what a sample of ``inputs`` costs is the whole."""
        if self._budget is None:
            self._budget = self.options.make(network, inputs[:1].detach().clone())
            if self._state:
                self._budget.load_state_dict(self._state)
        return self._budget

    def step(self) -> None:
        """Move the multiplier, once for each optimiser step."""
        if self._budget is not None:
            self._budget.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the multiplier and the cost at the start, as far as they are known."""
        return self._state if self._budget is None else self._budget.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, also one that is loaded before the first batch."""
        self._state = dict(state)
        if self._budget is not None and state:
            self._budget.load_state_dict(state)
