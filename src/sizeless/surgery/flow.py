"""Which layers with a stride a tensor has passed, and where branches meet again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from sizeless._example import evaluating, tensors_in

Token = nn.Module | str
"""A layer whose stride could be learned, or a few words about a change of size that could not."""

Route = tuple[Token, ...]
"""What has changed the size of a map on its way from the input."""

SHRINKS, GROWS = 1.5, 0.75
"""Ratios of input and output size beyond which it is not the border that makes the difference."""


class Meetings:
    """Which layers must have equal strides, since their outputs meet, and which must keep theirs.

    Attributes:
        kept: Why a layer must keep its stride.
    """

    def __init__(self) -> None:
        self._leader: dict[nn.Module, nn.Module] = {}
        self.kept: dict[nn.Module, str] = {}

    def leader(self, layer: nn.Module) -> nn.Module:
        """One layer that stands for all that must have the same stride."""
        while self._leader.setdefault(layer, layer) is not layer:
            layer = self._leader[layer]
        return layer

    def meet(self, first: Route, second: Route, place: str) -> Route:
        """Note that two maps meet at a ``place``, and return the route of what comes out."""
        if len(first) != len(second):
            common = 0
            while common < min(len(first), len(second)) and first[common] is second[common]:
                common += 1
            for token in (*first[common:], *second[common:]):
                self._keep(token, f"its output meets a map of other strides in {place}")
            return min(first, second, key=len)
        for one, other in zip(first, second, strict=True):
            if isinstance(one, nn.Module) and isinstance(other, nn.Module):
                self._leader[self.leader(other)] = self.leader(one)
            elif one != other:
                for token, reason in ((one, other), (other, one)):
                    self._keep(token, f"its output meets that of {reason}, whose stride is fixed")
        return first

    def _keep(self, token: Token, reason: str) -> None:
        if isinstance(token, nn.Module):
            self.kept.setdefault(token, reason)

    def groups(self) -> list[list[nn.Module]]:
        """The layers in groups of equal stride, without those that keep theirs."""
        members: dict[nn.Module, list[nn.Module]] = {}
        for layer in self._leader:
            members.setdefault(self.leader(layer), []).append(layer)
        found = []
        for group in members.values():
            reasons = [self.kept[layer] for layer in group if layer in self.kept]
            if reasons:
                for layer in group:
                    self.kept.setdefault(layer, reasons[0])
            else:
                found.append(group)
        return found


class _Flow(TorchFunctionMode):
    """Remembers the route of every tensor of a forward pass."""

    def __init__(self, meetings: Meetings) -> None:
        super().__init__()
        self.meetings = meetings
        self.routes = WeakTensorKeyDictionary()
        self.running: list[str] = []

    @property
    def place(self) -> str:
        """Where the pass is."""
        return self.running[-1] if self.running and self.running[-1] else "the model"

    def route_of(self, values: Any) -> Route | None:
        """The route of nested tensors, which meet if there are several."""
        route: Route | None = None
        for tensor in tensors_in(values):
            other = self.routes.get(tensor)
            if other is not None:
                route = other if route is None else self.meetings.meet(route, other, self.place)
        return route

    def mark(self, values: Any, route: Route | None) -> None:
        """Set the route of nested tensors; what is no map is as large for every stride."""
        for tensor in tensors_in(values):
            if route is None or tensor.dim() < 3:
                self.routes.pop(tensor, None)
            else:
                self.routes[tensor] = route

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        changed = args[0] if func is Tensor.__setitem__ else output
        if any(True for _ in tensors_in(changed)):
            with torch._C.DisableTorchFunction():
                name = getattr(func, "__name__", str(func))
                route = None if "adaptive_" in name else self.route_of((args, kwargs))
                # A weight has no route, however large it is.
                maps = (t for t in tensors_in((args, kwargs)) if t in self.routes)
                largest = max(maps, key=Tensor.numel, default=None)
                for tensor in tensors_in(changed):
                    self.mark(tensor, self._resized(route, largest, tensor, name))
        return output

    def _resized(
        self, route: Route | None, input: Tensor | None, output: Tensor, name: str
    ) -> Route | None:
        """The route after a function that may have changed the size of the map."""
        if route is None or input is None or input.dim() != output.dim() or output.dim() < 3:
            return route
        if _is_single(output) and not _is_single(input):
            # A mean over all positions is as large for every stride.
            return None
        ratios = [a / max(b, 1) for a, b in zip(input.shape[2:], output.shape[2:], strict=True)]
        if max(ratios) >= SHRINKS or min(ratios) <= GROWS:
            return (*route, f"{name} in {self.place}")
        return route


def _is_single(maps: Tensor) -> bool:
    """Whether maps have one position."""
    return all(side == 1 for side in maps.shape[2:])


def meetings(
    model: nn.Module,
    arguments: tuple[Any, ...],
    candidates: set[nn.Module],
    neutral: set[nn.Module],
) -> Meetings:
    """Run a model and find which of the ``candidates`` must share their strides.

    Args:
        model: The model.
        arguments: Its positional arguments.
        candidates: Layers with a stride that could be learned.
        neutral: Layers that leave the size of a map alone but for its border.
    """
    found = Meetings()
    flow = _Flow(found)
    handles = []

    def enter(path: str) -> Any:
        return lambda _module, _args: flow.running.append(path)

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if module in candidates or module in neutral:
            route = flow.route_of((args, kwargs))
            if module in candidates:
                found.leader(module)
                route = (*(route or ()), module)
            flow.mark(output, route)
        flow.running.pop()

    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path)))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        for tensor in tensors_in(arguments):
            flow.routes[tensor] = ()
        eager = torch.compiler.set_stance("force_eager")
        with evaluating(model), torch.no_grad(), eager, flow:
            model(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    return found
