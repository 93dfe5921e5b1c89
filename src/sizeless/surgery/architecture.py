"""The sizes that a network has learned, as a description of an ordinary one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sizeless._example import arguments_of
from sizeless._validate import module as check_module
from sizeless._validate import number
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd
from sizeless.nn.residual import CONVOLUTIONS
from sizeless.surgery.integer_strides import average, nearest
from sizeless.surgery.parts import copy_of
from sizeless.surgery.plain import plain_at
from sizeless.surgery.tracing import Call, trace

CONVOLUTION_ARGUMENTS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


def architecture(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...] | None = None,
    *,
    energy: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Describe each layer with a learned size as the ordinary layer that it has become.

    Plain dictionaries, lists, numbers and texts, for YAML or JSON. A network that is built with
    these layers has the sizes that were found, and is trained from the start as any other one is.
    Every entry has

    - ``layer``: the class with a learned size;
    - ``class`` and ``arguments``: that of ``torch.nn``, and what it is made with;
    - ``pad``, where another layer pads first: its ``class`` and its ``padding``;
    - ``stride``, for learned strides: the exact ones; ``class`` has the nearest whole numbers.

    Args:
        model: Any module; it stays as it is.
        example_input: An input tensor, or a tuple of all positional arguments. NIFF layers need
            it, for the size of their maps.
        energy: Share of the energy of NIFF kernels that the taps must hold, as in ``fold``.

    Returns:
        One entry for each path of a layer with a learned size, in the order of the model.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``energy`` is out of range, or a layer has no ordinary form: its path and
            the reason are named.

    Examples:
        >>> import sizeless, torch
        >>> model = torch.nn.Sequential(
        ...     sizeless.FlexConv2d(1, 4, kernel_size=33, init_size=5), sizeless.DiffStride2d(2.2)
        ... )
        >>> found = architecture(model)
        >>> found["0"]["class"], found["0"]["arguments"]["kernel_size"]
        ('Conv2d', [5, 5])
        >>> found["1"]["stride"], found["1"]["arguments"]["kernel_size"]
        ([2.2, 2.2], [2, 2])
    """
    check_module("model", model)
    if energy is not None:
        number("energy", energy, above=0, maximum=1)
    model = copy_of(model)
    calls: Mapping[nn.Module, list[Call]] = {}
    if example_input is not None:
        calls = trace(model, arguments_of(example_input)).calls
    found = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, DiffStrideNd):
            found[path] = _stride(layer)
        elif isinstance(layer, (FlexConvNd, NIFFConvNd)):
            own = calls.get(layer, [])
            put, _ = plain_at(path, layer, own, energy, "architecture cannot describe")
            found[path] = _convolution(layer, put)
    return found


def _stride(layer: DiffStrideNd) -> dict[str, Any]:
    whole = nearest(layer)
    pool = average(whole)
    arguments = {"kernel_size": list(whole), "ceil_mode": True}
    return {
        "layer": type(layer).__name__,
        "stride": list(layer.stride),
        "class": type(pool).__name__,
        "arguments": {} if isinstance(pool, nn.Identity) else arguments,
    }


def _convolution(layer: nn.Module, put: nn.Module) -> dict[str, Any]:
    conv: Any = next(m for m in put.modules() if isinstance(m, tuple(CONVOLUTIONS.values())))
    arguments = {name: getattr(conv, name) for name in CONVOLUTION_ARGUMENTS}
    entry = {
        "layer": type(layer).__name__,
        "class": type(conv).__name__,
        "arguments": {
            **{k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()},
            "bias": conv.bias is not None,
        },
    }
    if isinstance(put, nn.Sequential):
        padding: Any = put[0]
        entry["pad"] = {"class": type(padding).__name__, "padding": list(padding.padding)}
    return entry
