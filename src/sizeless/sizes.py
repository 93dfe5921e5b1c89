"""What sizes a model has learned, and how to train and change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from sizeless._validate import module as check_module
from sizeless._validate import number
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd, Size, SizeParameters

SIZED_LAYERS = (FlexConvNd, NIFFConvNd, DiffStrideNd)

SIZE_LR_RATIO = 0.1
"""Learning rate of the sizes relative to the weights' (FlexConv's experiments)."""


@dataclass(frozen=True)
class SizeRow(Size):
    """One layer's learned size; the fields of ``Size``, and whose they are.

    Attributes:
        name: Path of the layer in the model.
        layer: Name of its class.
    """

    name: str = ""
    layer: str = ""


def sizes(model: nn.Module) -> list[SizeRow]:
    """List the learned size of every layer that has one, in the order of ``model.modules()``.

    Args:
        model: Any module.

    Returns:
        One row per layer: its name, kind of size, present size, window, limits and cost.

    Examples:
        >>> import sizeless
        >>> row = sizes(sizeless.FlexConv1d(1, 1, kernel_size=33, init_size=5))[0]
        >>> row.kind, row.size, row.limits
        ('kernel size', (5,), ((3, 33),))
    """
    return [
        SizeRow(**vars(module.describe_size()), name=name, layer=type(module).__name__)
        for name, module in check_module("model", model).named_modules()
        if isinstance(module, SIZED_LAYERS)
    ]


def param_groups(
    model: nn.Module, lr: float, size_lr: float | None = None, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Split the parameters of a model into groups for an optimiser of ``torch.optim``.

    Sizes get their own learning rate and no weight decay, which would pull them to arbitrary
    values. Vectors (biases, normalisation) and the kernel networks of ``FlexConv2d`` and its
    kin, whose parameters are frequencies and widths, are not decayed either.

    Args:
        model: Any module.
        lr: Learning rate of everything but the sizes.
        size_lr: Learning rate of the sizes; ``None`` is a tenth of ``lr``.
        weight_decay: Weight decay of the decayed group.

    Returns:
        Up to three groups, named ``"weights"``, ``"undecayed"`` and ``"sizes"``; parameters that
        need no gradient are left out.

    Raises:
        TypeError: If ``model`` is no module or a rate no number.
        ValueError: If a rate is negative or the model has nothing to train.

    Examples:
        >>> import sizeless, torch
        >>> model = sizeless.FlexConv1d(1, 1, kernel_size=33)
        >>> groups = param_groups(model, lr=0.01)
        >>> [group["name"] for group in groups], torch.optim.Adam(groups).defaults["lr"]
        (['undecayed', 'sizes'], 0.001)
    """
    check_module("model", model)
    number("lr", lr, minimum=0)
    number("weight_decay", weight_decay, minimum=0)
    size_lr = SIZE_LR_RATIO * lr if size_lr is None else number("size_lr", size_lr, minimum=0)
    split: dict[str, list[nn.Parameter]] = {"weights": [], "undecayed": [], "sizes": []}
    owners = _owners(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            vector = "undecayed" if parameter.dim() < 2 else "weights"
            split[owners.get(parameter, vector)].append(parameter)
    if not any(split.values()):
        raise ValueError(
            f"model {type(model).__name__} has no parameter that needs a gradient: there is "
            "nothing to train; use requires_grad_() on what should be"
        )
    settings = {
        "weights": {"lr": lr, "weight_decay": weight_decay},
        "undecayed": {"lr": lr, "weight_decay": 0.0},
        "sizes": {"lr": size_lr, "weight_decay": 0.0},
    }
    return [
        {"params": parameters, "name": name, **settings[name]}
        for name, parameters in split.items()
        if parameters
    ]


def _owners(model: nn.Module) -> dict[nn.Parameter, str]:
    """Group of every parameter whose module decides about it."""
    owners: dict[nn.Parameter, str] = {}
    for module in model.modules():
        if isinstance(module, SizeParameters):
            owners.update(dict.fromkeys(module.size_parameters(), "sizes"))
        elif isinstance(module, FlexConvNd):
            owners.update(dict.fromkeys(module.kernel.parameters(), "undecayed"))
    return owners


def project_sizes_(model: nn.Module) -> None:
    """Move every size in a model back into its limits, in place; see ``project_`` of the layers.

    Args:
        model: Any module.
    """
    for module in check_module("model", model).modules():
        if isinstance(module, SizeParameters):
            module.project_()


def refresh_sizes(model: nn.Module) -> None:
    """Read all integer sizes off their parameters, outside the graph.

    Eager forwards do this themselves. A compiled model uses strides as they were last read, and
    renders kernels on buckets of taps that move here only: when one has to, all are chosen anew,
    since the graph that they share is compiled anew just once. Call it after every optimiser step
    that a compiled forward follows; it costs one small copy to the host per layer.

    A model compiled as a whole gets one graph per set of buckets. Where a long training moves
    kernels through more sets than ``torch._dynamo.config.recompile_limit`` (8), raise that limit.

    Args:
        model: Any module.

    Examples:
        >>> import sizeless, torch
        >>> model = sizeless.FlexConv1d(1, 1, kernel_size=33, init_size=5)
        >>> torch.nn.init.constant_(model.window.log_sigma, -1.0).item()
        -1.0
        >>> refresh_sizes(model)
        >>> model.size, model.bucket
        ((25,), (33,))
    """
    modules = list(check_module("model", model).modules())
    kernels = [module for module in modules if isinstance(module, FlexConvNd)]
    buckets = [kernel.bucket for kernel in kernels]
    for module in modules:
        if isinstance(module, (FlexConvNd, DiffStrideNd)):
            module.refresh_size()
    if [kernel.bucket for kernel in kernels] != buckets:
        for kernel in kernels:
            kernel.renew_bucket(with_room=True)


def change_resolution_(model: nn.Module, factor: float) -> None:
    """Adapt all FlexConv kernels in a model to data sampled ``factor`` times as finely, in place.

    See ``change_resolution_``.

    Args:
        model: Any module.
        factor: New sampling rate divided by the present one.

    Raises:
        TypeError: If ``model`` is no module or ``factor`` no number.
        ValueError: If a layer cannot be changed, and then none is, or there is none to change.
    """
    modules = check_module("model", model).named_modules()
    layers = [(name, module) for name, module in modules if isinstance(module, FlexConvNd)]
    if not layers:
        raise ValueError(
            f"model {type(model).__name__} has no FlexConv layer whose resolution to change"
        )
    for name, layer in layers:
        if layer.padding != "same":
            raise ValueError(
                f"change_resolution_ needs padding='same' in every layer, got "
                f"padding={layer.padding!r} in layer {name!r}"
            )
    for _, layer in layers:
        layer.change_resolution_(factor)
