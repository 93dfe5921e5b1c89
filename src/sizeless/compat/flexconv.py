"""State dicts of the FlexConv authors' programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from sizeless._validate import state_dict as check_state_dict
from sizeless.kernels import MAGNet
from sizeless.kernels.base import linears
from sizeless.models import FlexNet, FlexTCN
from sizeless.nn import FlexConvNd

TCN_NAMES = {"backbone": "blocks", "finallyr": "head"}
NET_NAMES = {"cconv1": "stem", "norm1": "norm", "out_layer": "head"}
BLOCK_NAMES = {"cconv1": "conv1", "cconv2": "conv2"}
Network = TypeVar("Network", FlexNet, FlexTCN)
BOOKKEEPING = ("train_length", "temperature", "mask_threshold")
THRESHOLD = 0.1


def load_official_flexconv(model: Network, state_dict: Mapping[str, Tensor]) -> Network:
    """Load the state dict of an official FlexNet or FlexTCN into ours, in place.

    The networks compute the same function afterwards, at the horizon (``kernel_size``) that the
    model was built with. Window widths keep their value and lose their sign. Windows narrower,
    wider or farther out than training here allows widen the limits of their layer.

    Args:
        model: A ``FlexNet`` or ``FlexTCN`` with MAGNet
            kernels and as many blocks and channels as the checkpoint.
        state_dict: State dict of the authors' network (of ``rjbruin/flexconv``), with or without
            a leading ``"module."``.

    Returns:
        ``model``.

    Raises:
        TypeError: If ``model`` is of another class, its kernels are no MAGNets, or ``state_dict``
            does not map names to tensors.
        ValueError: If names or shapes do not fit, with the list of what is missing or left over.

    Examples:
        >>> from sizeless.models import flextcn2
        >>> load_official_flexconv(flextcn2(kernel_size=161), {})
        Traceback (most recent call last):
        ...
        ValueError: state_dict does not fit FlexTCN: missing 'backbone.0.cconv1.mask_params', ...
    """
    if not isinstance(model, (FlexNet, FlexTCN)):
        raise TypeError(
            f"model must be a sizeless.models.FlexNet or FlexTCN, got {type(model).__name__}"
        )
    entries = check_state_dict(state_dict)
    official = {key.removeprefix("module."): value for key, value in entries.items()}
    targets = _targets(model)
    missing = [key for key in targets if key not in official]
    left_over = [
        key
        for key in official
        if key not in targets and not key.endswith((*BOOKKEEPING, "num_batches_tracked"))
    ]
    for what, keys in (("missing", missing), ("left over", left_over)):
        if keys:
            raise ValueError(
                f"state_dict does not fit {type(model).__name__}: {what} "
                f"{', '.join(map(repr, keys[:3]))}{', ...' if len(keys) > 3 else ''}"
            )
    _check_thresholds(official)
    _check_shapes(targets, official)
    with torch.no_grad():
        for key, target in targets.items():
            value = official[key]
            if isinstance(target, FlexConvNd):
                center, sigma = value.reshape(-1, 2).unbind(dim=1)
                target.window.assign_(center, sigma)
                target.refresh_size()
            else:
                target.copy_(value.reshape(target.shape))
    return model


def _check_thresholds(official: Mapping[str, Tensor]) -> None:
    for key, value in official.items():
        if key.endswith("mask_threshold") and abs(float(value) - THRESHOLD) > 1e-6:
            raise ValueError(
                f"state_dict[{key!r}] is {float(value)}: only the paper's crop threshold of "
                f"{THRESHOLD} is supported"
            )


def _check_shapes(
    targets: Mapping[str, Tensor | FlexConvNd], official: Mapping[str, Tensor]
) -> None:
    for key, target in targets.items():
        wanted = (target.ndim, 2) if isinstance(target, FlexConvNd) else tuple(target.shape)
        got = tuple(official[key].shape)
        if _squeezed(wanted) != _squeezed(got):
            raise ValueError(
                f"state_dict[{key!r}] has shape {got}, the model wants {wanted}; build the model "
                "with the widths and channels of the checkpoint"
            )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _targets(model: FlexNet | FlexTCN) -> dict[str, Tensor | FlexConvNd]:
    """Our tensor for every official key; window parameters map to their layer."""
    top = NET_NAMES if isinstance(model, FlexNet) else TCN_NAMES
    targets: dict[str, Tensor | FlexConvNd] = {}
    for name, module in model.named_modules():
        prefix = _official_name(name, top)
        if isinstance(module, FlexConvNd):
            targets.update(_layer_targets(prefix, module))
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for key in ("weight", "bias", "running_mean", "running_var"):
                targets[f"{prefix}.{key}"] = getattr(module, key)
        elif isinstance(module, (nn.Conv1d, nn.Conv2d)) or name == "head":
            targets[f"{prefix}.weight"] = module.weight
            targets[f"{prefix}.bias"] = module.bias
    return targets


def _official_name(name: str, top: Mapping[str, str]) -> str:
    head, *rest = name.split(".")
    ours_to_theirs = {ours: theirs for theirs, ours in top.items()}
    block_names = {ours: theirs for theirs, ours in BLOCK_NAMES.items()}
    parts = [ours_to_theirs.get(head, head), *(block_names.get(part, part) for part in rest)]
    return re.sub(r"\.shortcut$", ".shortcut.0", ".".join(parts))


def _layer_targets(prefix: str, layer: FlexConvNd) -> dict[str, Tensor | FlexConvNd]:
    kernel = layer.kernel
    if not isinstance(kernel, MAGNet):
        raise TypeError(
            f"the official networks have MAGNet kernels, the model has {type(kernel).__name__}"
        )
    targets: dict[str, Tensor | FlexConvNd] = {f"{prefix}.mask_params": layer}
    if layer.bias is not None:
        targets[f"{prefix}.bias"] = layer.bias
    maps = {f"linear.{i}": linear for i, linear in enumerate(linears(kernel.mixing))}
    for name, linear in {**maps, "output_linear": kernel.output}.items():
        for key, value in linear.named_parameters():
            targets[f"{prefix}.Kernel.{name}.{key}"] = value
    for index in range(kernel.layers + 1):
        wave = f"{prefix}.Kernel.filters.{index}"
        targets[f"{wave}.mu"] = kernel.center[index]
        targets[f"{wave}.gamma"] = kernel.gamma[index]
        targets[f"{wave}.linear.weight"] = kernel.frequency[index]
        targets[f"{wave}.linear.bias"] = kernel.phase[index]
    return targets
