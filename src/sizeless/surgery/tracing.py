"""What the layers of a network see when it runs on an example."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sizeless._example import evaluating, tensors_in

Shape = tuple[int, ...]

FUNCTIONAL = (
    torch.nn.functional.conv1d,
    torch.nn.functional.conv2d,
    torch.nn.functional.conv3d,
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
)


@dataclass(frozen=True)
class Call:
    """One call of a layer: shapes of its input and output, dtype and device of the output."""

    input: Shape
    output: Shape
    dtype: torch.dtype
    device: torch.device


@dataclass
class Trace:
    """One forward pass.

    Attributes:
        calls: The calls of each module that takes and returns a tensor, in their order.
        weights_used: For each tensor with which somebody convolved without calling its module,
            the path of the module in whose forward that was.
        functional: These paths, and the shapes of the weights, where the module is no convolution.
        output: What the model returned.
    """

    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    weights_used: dict[Tensor, str] = field(default_factory=dict)
    functional: list[tuple[str, Shape]] = field(default_factory=list)
    output: Any = None


class _Convolutions(TorchFunctionMode):
    """Notices convolutions that no convolution's own forward makes."""

    def __init__(self, trace: Trace, running: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.trace, self.running = trace, running

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FUNCTIONAL and self.running:
            path, module = self.running[-1]
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            if isinstance(weight, Tensor) and getattr(module, "weight", None) is not weight:
                self.trace.weights_used[weight] = path
                # A convolution that computes its weight is one that the report names anyway.
                if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                    self.trace.functional.append((path, tuple(weight.shape)))
        return func(*args, **kwargs)


def trace(model: nn.Module, arguments: tuple[Any, ...]) -> Trace:
    """Run a model in evaluation without gradients, and note what its layers see.

    Training modes, statistics and gradients stay as they are.
    """
    found = Trace()
    running: list[tuple[str, nn.Module]] = []
    eager = torch.compiler.set_stance("force_eager")
    with evaluating(model), torch.no_grad(), eager, _following(model, found, running):
        found.output = model(*arguments)
    return found


@contextmanager
def _following(
    model: nn.Module, found: Trace, running: list[tuple[str, nn.Module]]
) -> Iterator[None]:
    paths = {module: path for path, module in model.named_modules()}

    def enter(module: nn.Module, _args: Any) -> None:
        running.append((paths[module], module))

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        running.pop()
        input = next(tensors_in((args, kwargs)), None)
        if input is not None and isinstance(output, Tensor):
            call = Call(tuple(input.shape), tuple(output.shape), output.dtype, output.device)
            found.calls.setdefault(module, []).append(call)

    handles = []
    for module in paths:
        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        with _Convolutions(found, running):
            yield
    finally:
        for handle in handles:
            handle.remove()


def smallest_map(calls: list[Call], ndim: int) -> Shape:
    """Smallest spatial size of the inputs, axis by axis."""
    return tuple(min(call.input[-ndim + axis] for call in calls) for axis in range(ndim))


def relative_error(output: Any, reference: Any) -> float:
    """Norm of the difference of all tensors over the norm of the reference's."""
    pairs = list(zip(tensors_in(output), tensors_in(reference), strict=True))
    floats = [(a.double(), b.double()) for a, b in pairs if b.is_floating_point()]
    difference = math.sqrt(sum(float((a - b).square().sum()) for a, b in floats))
    norm = math.sqrt(sum(float(b.square().sum()) for _, b in floats))
    return difference / norm if norm > 0 else difference
