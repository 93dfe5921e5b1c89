"""Small pieces that operations on networks are put together from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from sizeless._amounts import macs_of as macs_of_call
from sizeless._calls import COUNTED
from sizeless._calls import Call as CountedCall
from sizeless.surgery.tracing import Call

MAX_POOLS: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
PADDINGS: dict[str, dict[int, type[Any]]] = {
    "zeros": {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d},
    "reflect": {1: nn.ReflectionPad1d, 2: nn.ReflectionPad2d, 3: nn.ReflectionPad3d},
    "replicate": {1: nn.ReplicationPad1d, 2: nn.ReplicationPad2d, 3: nn.ReplicationPad3d},
    "circular": {1: nn.CircularPad1d, 2: nn.CircularPad2d, 3: nn.CircularPad3d},
}
SUBCLASS = "{} is a subclass that may compute something else"
COMPUTED = "its weight is computed from something else"
NOT_CALLED = "it is not called for the example input"
UNBATCHED = "it is called without a batch axis"

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy; what a hook computes before every call, as in ``weight_norm``, by its value."""
    memo = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return deepcopy(model, memo)


def int_axes(value: Any, ndim: int) -> tuple[int, ...]:
    """An int, or one per axis, as a tuple."""
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),) * ndim


def put(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Put a module at a path, in place, and return the model: at the empty path, ``new`` itself."""
    if not path:
        return new
    model.set_submodule(path, new)
    return model


def take_hooks(new: nn.Module, old: nn.Module) -> None:
    """Let the hooks of a module act on the one in its place."""
    for name in HOOKS:
        getattr(new, name).update(getattr(old, name))


def padding_layer(
    amounts: Sequence[tuple[int, int]], mode: str = "zeros", fill: float = 0.0
) -> nn.Module:
    """A module that pads each axis before and after; negative amounts crop."""
    sides = tuple(amount for pair in reversed(list(amounts)) for amount in pair)
    kind = PADDINGS[mode][len(amounts)]
    layer: nn.Module = kind(sides, fill) if mode == "zeros" else kind(sides)
    return layer


def plain_convolution(conv: Any, **changed: Any) -> Any:
    """A convolution with the parameters of another one, and some arguments changed."""
    arguments = {
        name: getattr(conv, name)
        for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    }
    new = type(conv)(
        conv.in_channels,
        conv.out_channels,
        **{**arguments, **changed},
        bias=conv.bias is not None,
        device="meta",
    )
    new.weight, new.bias = conv.weight, conv.bias
    return new.train(conv.training)


def macs_of(layer: nn.Module, calls: Iterable[Call]) -> int:
    """Multiply-accumulates of some calls of a layer; 0 for one that ``cost`` does not count."""
    if not isinstance(layer, COUNTED):
        return 0
    return sum(round(macs_of_call(_seen(layer, call)).value) for call in calls)


def _seen(layer: nn.Module, call: Call) -> CountedCall:
    """A call as ``cost`` sees it where no learned stride lies upstream."""
    width = call.dtype.itemsize
    return CountedCall("", layer, call.input, call.output, width, width, {}, call.device)


def parameters_of(*modules: nn.Module) -> int:
    """Number of the parameters of some modules together."""
    found = {parameter for module in modules for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in found)
