"""A budget for what a network costs, kept while its sizes are learned."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sizeless._calls import Call, calls_of
from sizeless._validate import module as check_module
from sizeless._validate import number, one_of
from sizeless.cost import QUANTITIES, check_machine, whole_amount
from sizeless.machine import Machine

FORMS = ("constraint", "penalty")


class CostBudget:
    r"""Keep the cost of a network at or below a limit while its sizes are learned.

    With $C$ the cost that ``sizeless.cost`` gives and $B$ the limit, the relative excess is
    $g = C / B - 1$. Added to the loss is

    $$
    \text{penalty:}\quad w \max(0, g) \qquad
    \text{constraint:}\quad \lambda \max(0, g) + \frac w2 \max(0, g)^2,
    \quad \lambda \leftarrow \max(0, \lambda + \eta g) \text{ after every step}
    $$

    A penalty needs a weight that is larger than what the loss gains by a larger network. A
    constraint finds it: the multiplier $\lambda$ rises by dual ascent for as long as the network
    costs too much, and falls to 0 where it costs less. Neither pulls on a network within its limit:
    the term of a plain Lagrangian, $\lambda g$, would make it shrink further until $\lambda$ has
    come down.

    One forward pass finds the layers and maps. After that the cost follows from the sizes, without
    another pass until a learned stride has given a map another size.

    Args:
        model: Any module with layers that are counted; what it costs now is the whole, 100 %.
        example_input: Input tensor, or a tuple of all positional arguments; a batch of one will do.
        share: The limit as a share of the whole: 0.6 is 60 %, and one above 1 lets it grow.
        limit: The limit itself, in multiply-accumulates, bytes or seconds of the example input;
            give either this or ``share``.
        quantity: ``"macs"``, ``"bytes"`` or ``"latency"``.
        form: ``"constraint"`` or ``"penalty"``.
        weight: $w$.
        multiplier_lr: $\eta$, the learning rate of the multiplier of a constraint.
        machine: Rates for the latency; see ``sizeless.cost``.

    Attributes:
        whole: What the model cost when the budget was made.
        spent: What it cost when the budget was last called.
        multiplier: $\lambda$, 0 at the start.

    Raises:
        TypeError: If ``model`` is no module, ``example_input`` neither tensor nor tuple, or a
            number no number.
        ValueError: If a number is out of range, neither or both of ``share`` and ``limit`` are
            given, or no layer that is counted was called.

    Source: dual ascent and the squared term are those of augmented Lagrangians (Nocedal and Wright,
    Numerical Optimization, 2006, chapter 17); the term that ends at the limit is an exact penalty.

    Examples:
        >>> import sizeless, torch
        >>> model = torch.nn.Sequential(sizeless.DiffStride1d(1.5), torch.nn.Conv1d(1, 8, 9))
        >>> budget = CostBudget(model, torch.zeros(1, 1, 128), share=0.6)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        >>> for _ in range(300):
        ...     optimizer.zero_grad()
        ...     loss = budget(model)  # + the loss of a batch
        ...     loss.backward()
        ...     optimizer.step()
        ...     budget.step()
        >>> round(budget.share_of(model), 1)
        0.6
    """

    def __init__(
        self,
        model: nn.Module,
        example_input: Tensor | tuple[Any, ...],
        share: float | None = None,
        *,
        limit: float | None = None,
        quantity: str = "macs",
        form: str = "constraint",
        weight: float = 1.0,
        multiplier_lr: float = 0.01,
        machine: Machine | None = None,
    ) -> None:
        check_limits(share, limit)
        self.share, self._limit = share, limit
        self.quantity = one_of("quantity", quantity, QUANTITIES)
        self.form = one_of("form", form, FORMS)
        self.weight = number("weight", weight, above=0)
        self.multiplier_lr = number("multiplier_lr", multiplier_lr, above=0)
        self.machine = check_machine(machine)
        self.multiplier = 0.0
        self._example = example_input
        self._calls: tuple[Call, ...] = ()
        self._model: nn.Module | None = None
        self.whole = self.cost_of(check_module("model", model))
        self.spent = self.whole

    @property
    def limit(self) -> float:
        """The most that the network may cost, in multiply-accumulates, bytes or seconds."""
        return self._limit if self._limit is not None else (self.share or 0.0) * self.whole

    def cost_of(self, model: nn.Module) -> float:
        """What a model costs at its present sizes, in the unit of the limit."""
        return whole_amount(self._trace(model), self.quantity, self.machine).value

    def share_of(self, model: nn.Module) -> float:
        """What a model costs at its present sizes, as a share of the whole."""
        return self.cost_of(model) / self.whole

    def excess_of(self, model: nn.Module) -> float:
        """What a model costs beyond the limit, in parts of it; 0 or less if the budget is met."""
        return self.cost_of(model) / self.limit - 1

    def __call__(self, model: nn.Module) -> Tensor:
        """Return what to add to the loss, a tensor of shape ``()``."""
        calls = self._trace(model)
        amount = whole_amount(calls, self.quantity, self.machine)
        excess = amount.times(1 / self.limit).tensor(calls[0].device) - 1
        self.spent = amount.value
        if self.form == "penalty":
            return self.weight * excess.relu()
        above = excess.relu()
        return self.multiplier * above + self.weight / 2 * above.square()

    def step(self) -> None:
        """Move the multiplier by the excess of the last call; once after each optimiser step."""
        if self.form == "constraint":
            excess = self.spent / self.limit - 1
            self.multiplier = max(0.0, self.multiplier + self.multiplier_lr * excess)

    def state_dict(self) -> dict[str, float]:
        """Return the multiplier and the whole, for a checkpoint."""
        return {"multiplier": self.multiplier, "whole": self.whole}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on with the multiplier and the whole of a checkpoint.

        Raises:
            ValueError: If one of them is missing or out of range.
        """
        if state_dict.keys() != {"multiplier", "whole"}:
            raise ValueError(
                "state_dict must hold 'multiplier' and 'whole', as state_dict() of a CostBudget "
                f"does, got {sorted(state_dict)}"
            )
        multiplier = number("multiplier", state_dict["multiplier"], minimum=0)
        self.whole = number("whole", state_dict["whole"], above=0)
        self.multiplier = multiplier

    def _trace(self, model: nn.Module) -> tuple[Call, ...]:
        """The calls of a forward pass at the present sizes: those of the last one if they hold."""
        if model is not self._model or not all(call.holds() for call in self._calls):
            self._calls = calls_of(check_module("model", model), self._example)
            self._model = model
        return self._calls

    def __getstate__(self) -> dict[str, Any]:
        """State without the forward pass, which a copy of the model must make for itself."""
        return {**self.__dict__, "_calls": (), "_model": None}


def check_limits(share: float | None, limit: float | None) -> None:
    """Raise unless exactly one of the two is given, and is positive.

    Raises:
        TypeError: If it is no number.
        ValueError: If not.
    """
    if (share is None) == (limit is None):
        raise ValueError(
            f"give either share or limit, got share={share!r} and limit={limit!r}: share=0.6 is "
            "60 % of what the network costs now"
        )
    name, value = ("share", share) if limit is None else ("limit", limit)
    number(name, value, above=0)
