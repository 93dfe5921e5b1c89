"""Which counted layers a forward pass calls, on which maps, and behind which learned strides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from sizeless._example import arguments_of, evaluating, tensors_in
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd, SpectralPoolNd

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
COUNTED = (*CONVOLUTIONS, nn.Linear, FlexConvNd, NIFFConvNd, DiffStrideNd, SpectralPoolNd)
OPAQUE = (FlexConvNd, NIFFConvNd)

Strides = dict[tuple[DiffStrideNd, int], tuple[int, ...]]
"""Learned strides that a tensor has passed: (module, 1 for its first pass), and the map."""


@dataclass(frozen=True)
class Call:
    """One call of a counted layer.

    Attributes:
        name: Path of the layer in the model.
        module: The layer.
        input_shape: Shape of its input.
        output_shape: Shape of its output.
        input_bytes: Bytes of an element of the input.
        output_bytes: Bytes of an element of the output.
        strides: The learned strides that the input has passed.
        device: Device of the output.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_bytes: int
    output_bytes: int
    strides: Strides
    device: torch.device

    def positions(self, shape: tuple[int, ...]) -> int:
        """Positions of a map of this shape that the layer treats alike."""
        linear = isinstance(self.module, nn.Linear)
        return math.prod(shape[1:-1] if linear else shape[2:])

    def strides_of(self, shape: tuple[int, ...]) -> Strides:
        """The strides that a map of this shape follows: where one position is left, none."""
        return self.strides if self.positions(shape) > 1 else {}

    def holds(self) -> bool:
        """Whether a forward pass at the present sizes would give this call the same output."""
        module = self.module
        if isinstance(module, DiffStrideNd):
            return module.output_size(self.input_shape[2:]) == self.output_shape[2:]
        if isinstance(module, FlexConvNd) and module.padding == "valid":
            return _valid_size(module, self.input_shape[2:]) == self.output_shape[2:]
        return True


def _valid_size(module: FlexConvNd, sizes: Sequence[int]) -> tuple[int, ...]:
    axes = zip(sizes, module.size, module.dilation, module.stride, strict=True)
    return tuple((n - dilation * (taps - 1) - 1) // step + 1 for n, taps, dilation, step in axes)


def passes(pool: DiffStrideNd, strides: Strides) -> int:
    """How many times a tensor with these ``strides`` has passed ``pool``."""
    return sum(module is pool for module, _ in strides)


class _Flow(TorchFunctionMode):
    """Remembers for every tensor which learned strides it has passed through."""

    def __init__(self) -> None:
        super().__init__()
        self.strides = WeakTensorKeyDictionary()

    def of(self, *values: Any) -> Strides:
        """Union of the strides of all tensors in nested ``values``."""
        found: Strides = {}
        for tensor in tensors_in(values):
            found.update(self.strides.get(tensor, {}))
        return found

    def mark(self, value: Any, strides: Strides) -> None:
        """Set the strides of all tensors in ``value``."""
        for tensor in tensors_in(value):
            self.strides[tensor] = strides

    def mark_unseen(self, value: Any, strides: Strides) -> None:
        """Set the strides of tensors in ``value`` that no function seen here has made."""
        self.mark([tensor for tensor in tensors_in(value) if tensor not in self.strides], strides)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        changed = args[0] if func is Tensor.__setitem__ else output
        if any(True for _ in tensors_in(changed)):
            with torch._C.DisableTorchFunction():
                fixed = _fixes_the_size(func, *args, **kwargs)
                self.mark(changed, {} if fixed else self.of(args, kwargs))
        return output


def _fixes_the_size(func: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether the output is as large as asked for, whatever the strides before it."""
    name = getattr(func, "__name__", "")
    if name == "interpolate":
        return (args[1] if len(args) > 1 else kwargs.get("size")) is not None
    if "adaptive_" not in name:
        return False
    size = args[1] if len(args) > 1 else kwargs.get("output_size")
    return not (isinstance(size, (tuple, list)) and None in size)


def calls_of(model: nn.Module, example_input: Tensor | tuple[Any, ...]) -> tuple[Call, ...]:
    """Run a model once, in evaluation, and return the calls of counted layers in their order.

    Raises:
        TypeError: If ``example_input`` is neither tensor nor tuple.
        ValueError: If no layer that is counted was called.
    """
    arguments = arguments_of(example_input)
    flow, calls, handles = _Flow(), [], []
    inside = {
        child
        for module in model.modules()
        if isinstance(module, OPAQUE)
        for child in module.modules()
        if child is not module
    }

    def follow(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
            strides = flow.of(args, kwargs)
            flow.mark_unseen(output, strides)
            if not isinstance(module, COUNTED):
                return
            input = next(tensors_in((args, kwargs)))
            shapes = tuple(input.shape), tuple(output.shape)
            widths = input.element_size(), output.element_size()
            calls.append(Call(name, module, *shapes, *widths, strides, output.device))
            if isinstance(module, DiffStrideNd):
                key = module, passes(module, strides) + 1
                flow.mark(output, {**strides, key: tuple(input.shape[2:])})
            elif isinstance(module, SpectralPoolNd) and module.stride is None:
                flow.mark(output, {})

        return hook

    for name, module in model.named_modules():
        if module not in inside:
            handles.append(module.register_forward_hook(follow(name), with_kwargs=True))
    try:
        eager = torch.compiler.set_stance("force_eager")
        with eager, evaluating(model), torch.no_grad(), flow:
            model(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError(
            f"model {type(model).__name__} called no layer that is counted: convolutions, linear "
            "layers and the layers of sizeless"
        )
    return tuple(calls)
