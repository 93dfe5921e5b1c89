"""Any existing network with learnable sizes in it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sizeless._validate import int_tuple, positive_int
from sizeless._validate import state_dict as check_state_dict
from sizeless.surgery import convert

PREFIX = "network."
"""What the weights of a network begin with in the checkpoint of a training run."""


def ordinary(
    source: str,
    in_channels: int = 3,
    num_classes: int = 1000,
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a network of torchvision, of timm or of your own, with its weights.

    Args:
        source: ``"torchvision:NAME"``, ``"timm:NAME"`` or ``"package.module:NAME"``, where NAME is
            a function or class of yours that takes ``in_channels`` and ``num_classes``.
        in_channels: Channels of the input. A network of torchvision gets a new first convolution
            where it has others.
        num_classes: Number of outputs. With ``pretrained``, a network gets a new last layer where
            it has others.
        pretrained: Whether to load the weights that torchvision or timm offers (by the internet).
        checkpoint: File of weights to load: a state dict (``torch.save``), the checkpoint of a
            training run, or the folder of one.
        options: Further keyword arguments of what builds the network.

    Returns:
        The network.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If the source is unknown, or the weights do not fit.

    Examples:
        >>> model = ordinary("sizeless.models:flexnet3", 1, 10, options={"conv": "plain"})
        >>> type(model.stem).__name__
        'Conv2d'
    """
    positive_int("in_channels", in_channels)
    positive_int("num_classes", num_classes)
    package, _, name = str(source).partition(":")
    if not (package and name):
        raise ValueError(
            "source must be 'torchvision:NAME', 'timm:NAME' or 'package.module:NAME', got "
            f"{source!r}"
        )
    arguments = dict(options or {})
    if package == "torchvision":
        model: nn.Module = _of_torchvision(name, in_channels, num_classes, pretrained, arguments)
    elif package == "timm":
        arguments |= {"in_chans": in_channels, "num_classes": num_classes}
        model = _known(importlib.import_module("timm"), "create_model", source)(
            name, pretrained=pretrained, **arguments
        )
    else:
        if pretrained:
            raise ValueError(
                f"pretrained=True is for torchvision and timm, got source={source!r}; give its "
                "weights as checkpoint"
            )
        arguments |= {"in_channels": in_channels, "num_classes": num_classes}
        model = _known(importlib.import_module(package), name, source)(**arguments)
    if checkpoint is not None:
        _load(model, checkpoint)
    return model


def _known(module: Any, name: str, source: str) -> Any:
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"source must name a function or class, got {source!r}")
    return found


def _of_torchvision(
    name: str, in_channels: int, num_classes: int, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    models = importlib.import_module("torchvision.models")
    if name not in models.list_models():
        raise ValueError(
            f"source must name a network of torchvision, got 'torchvision:{name}'; "
            "torchvision.models.list_models() lists them"
        )
    if pretrained:
        model: nn.Module = models.get_model(name, weights="DEFAULT", **options)
    else:
        model = models.get_model(name, weights=None, num_classes=num_classes, **options)
    layers = [(path, part) for path, part in model.named_modules() if not list(part.children())]
    path, first = next((path, part) for path, part in layers if isinstance(part, nn.Conv2d))
    if first.in_channels != in_channels:
        model.set_submodule(path, _like(first, in_channels, first.out_channels))
    path, last = next(
        (path, part) for path, part in reversed(layers) if isinstance(part, (nn.Conv2d, nn.Linear))
    )
    if isinstance(last, nn.Conv2d) and last.out_channels != num_classes:
        model.set_submodule(path, _like(last, last.in_channels, num_classes))
    elif isinstance(last, nn.Linear) and last.out_features != num_classes:
        model.set_submodule(path, nn.Linear(last.in_features, num_classes))
    return model


def _like(conv: nn.Conv2d, in_channels: int, out_channels: int) -> nn.Conv2d:
    """A new convolution with other numbers of channels."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        cast(Any, conv.kernel_size),
        cast(Any, conv.stride),
        cast(Any, conv.padding),
        bias=conv.bias is not None,
    )


def _load(model: nn.Module, checkpoint: str) -> None:
    path = Path(checkpoint)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise ValueError(
            f"checkpoint must be a file of weights or the folder of a run, got {checkpoint!r}, "
            "where there is none"
        )
    content = torch.load(path, map_location="cpu", weights_only=True)
    weights = check_state_dict(content.get("state_dict", content))
    if any(key.startswith(PREFIX) for key in weights):
        weights = {k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"checkpoint {checkpoint!r} does not fit {type(model).__name__}: {error}"
        ) from error


def converted(
    source: str,
    in_channels: int = 3,
    num_classes: int = 1000,
    input_size: int | Sequence[int] = 224,
    *,
    conv: str | None = "flex",
    downsample: str | None = None,
    pretrained: bool = False,
    checkpoint: str | None = None,
    options: Mapping[str, Any] | None = None,
    rules: Mapping[str, Any] | None = None,
    stem: bool = False,
    conv_options: Mapping[str, Any] | None = None,
    stride_options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build an existing network and give it learnable sizes; see ``ordinary`` and ``convert``.

    Args:
        source: ``"torchvision:NAME"``, ``"timm:NAME"`` or ``"package.module:NAME"``.
        in_channels: Channels of the input.
        num_classes: Number of outputs.
        input_size: Spatial size of the input; one int is the side of an image.
        conv: ``"flex"``, ``"niff"`` or ``None``.
        downsample: ``"diffstride"`` or ``None``.
        pretrained: Whether to load the weights that torchvision or timm offers.
        checkpoint: File of weights for the ordinary network, or the folder of a run.
        options: Further keyword arguments of what builds the network.
        rules: What is to be done with which layer, by patterns of paths.
        stem: Whether the first convolution is converted, too.
        conv_options: Options of the new convolutions.
        stride_options: Options of the learned strides.

    Returns:
        The converted network; its ``conversion`` is the ``Report`` of what was changed.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If a name is unknown or the weights do not fit.

    Examples:
        >>> model = converted(
        ...     "sizeless.models:flexnet3", 1, 10, 16, options={"conv": "plain", "kernel_size": 3}
        ... )
        >>> len(model.conversion.changed)
        6
    """
    model = ordinary(
        source,
        in_channels,
        num_classes,
        pretrained=pretrained,
        checkpoint=checkpoint,
        options=options,
    )
    sides = (input_size,) * 2 if isinstance(input_size, int) else tuple(input_size)
    size = int_tuple("input_size", sides, len(sides))
    new, report = convert(
        model,
        _example(in_channels, size),
        conv,
        downsample,
        rules=rules,
        stem=stem,
        conv_options=conv_options,
        stride_options=stride_options,
    )
    cast(Any, new).conversion = report
    return new


def _example(in_channels: int, size: tuple[int, ...]) -> Tensor:
    """Noise, with which a comparison of networks says more than with zeros."""
    return torch.randn(2, in_channels, *size)
