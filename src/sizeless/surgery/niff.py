"""NIFF in the place of an ordinary network's convolutions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._validate import boolean, int_at_least, one_of
from sizeless._validate import module as check_module
from sizeless._validate import options as check_options
from sizeless.nn import (
    NIFFConv1d,
    NIFFConv2d,
    NIFFConv3d,
    NIFFConvNd,
    SeparableNIFFConv1d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
)
from sizeless.nn.separable import SeparableNIFFConvNd
from sizeless.surgery.parts import put
from sizeless.surgery.report import by

FORMS = ("split", "full")
DEPTHWISE_HIDDEN = (8, 4)
FULL_HIDDEN = (8,)
FIXED = ("groups", "bias", "hidden", "device", "dtype")
"""Options of a NIFF layer that the convolution in its place, or an argument, decides."""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

LAYERS: dict[type[Convolution], tuple[type[NIFFConvNd], type[SeparableNIFFConvNd]]] = {
    nn.Conv1d: (NIFFConv1d, SeparableNIFFConv1d),
    nn.Conv2d: (NIFFConv2d, SeparableNIFFConv2d),
    nn.Conv3d: (NIFFConv3d, SeparableNIFFConv3d),
}


def replace_convolutions(
    model: nn.Module,
    form: str = "split",
    hidden: Sequence[int] | None = None,
    *,
    bias: bool = False,
    skip: Collection[str] = (),
    **options: Any,
) -> nn.Module:
    """Put NIFF layers in the place of a network's convolutions, by the paper's rules, in place.

    Replaced is every convolution of more than one tap per axis with stride 1 that keeps the size
    of its map. Strided and 1x1 convolutions, and all else, stay as they are. What becomes of one:

    - dense, ``form="split"``: a depthwise NIFF and a 1x1 (``SeparableNIFFConv2d``);
    - dense, ``form="full"``: a filter for every pair of channels (``NIFFConv2d``), which makes a
      spectrum of ``in_channels * out_channels`` maps at every training step;
    - depthwise: a depthwise NIFF, in both forms;
    - grouped: as a dense one, within the groups.

    Every new layer is drawn as in the authors' ResNets, on the device and in the dtype of the old
    one. A dilation goes, as a filter as large as the map has no use for it. Make the optimizer
    afterwards: the parameters are new.

    Args:
        model: Any module.
        form: ``"split"`` or ``"full"``, the paper's two replacements of dense convolutions.
        hidden: Widths of the filter networks' hidden layers; ``None`` is ``(8, 4)`` for depthwise
            filters and ``(8,)`` for full ones, as in the paper's ResNets.
        bias: Whether the place of a convolution with a bias gets a layer with one; the paper's
            layers have none.
        skip: Paths of modules (as in ``model.named_modules()``) to be left as they are, with all
            that they hold: a stem of stride 1, for example.
        **options: Other keyword arguments of ``NIFFConv2d``, such as ``boundary``.

    Returns:
        ``model``; or, if it is itself such a convolution, the layer that replaces it.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If there is nothing to replace, ``skip`` names no module or a value is not
            allowed; the model is then unchanged.

    Source: Grabinski et al. 2024, "As large as it gets", TMLR, arXiv 2307.10001, and the authors'
    program.

    Examples:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1))
        >>> [type(layer).__name__ for layer in replace_convolutions(model)]
        ['Conv2d', 'SeparableNIFFConv2d']
    """
    check_module("model", model)
    one_of("form", form, FORMS)
    boolean("bias", bias)
    check_options("replace_convolutions", options, NIFFConv2d, fixed=FIXED)
    kept = _paths(model, skip)
    places = [
        (path, module)
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Convolution)
        and keeps_the_map(module)
        and not any(path == name or path.startswith(f"{name}.") for name in kept)
    ]
    if not places:
        raise ValueError(
            f"model {type(model).__name__} has nothing to replace: no convolution outside of skip "
            "has stride 1, more than one tap on every axis, and padding that keeps the map's size"
        )
    layers = {
        conv: _replacement(conv, form, hidden, bias, options).train(conv.training)
        for conv in dict.fromkeys(conv for _, conv in places)
    }
    for path, conv in places:
        model = put(model, path, layers[conv])
    return model


def _paths(model: nn.Module, skip: Collection[str]) -> Collection[str]:
    """Return ``skip`` if it holds paths of modules in ``model``."""
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise TypeError(f"skip must be a tuple of paths, got {skip!r}")
    known = {path for path, _ in model.named_modules(remove_duplicate=False) if path}
    for name in skip:
        if name not in known:
            raise ValueError(
                f"skip must hold paths of modules in {type(model).__name__}, got {name!r}; "
                "model.named_modules() lists them"
            )
    return skip


def keeps_the_map(conv: Convolution) -> bool:
    """Whether a convolution keeps the size of its map and looks farther than one position."""
    if min(conv.kernel_size) < 2 or max(conv.stride) > 1:
        return False
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    axes = zip(conv.kernel_size, conv.padding, conv.dilation, strict=True)
    return all(2 * padding == dilation * (taps - 1) for taps, padding, dilation in axes)


def why_not(conv: Convolution) -> str:
    """Return why a convolution cannot become a NIFF layer, or ``""``."""
    if keeps_the_map(conv):
        return ""
    if min(conv.kernel_size) < 2:
        return f"{by(conv.kernel_size)}: a filter has the size of the map on every axis"
    return "it has a stride" if max(conv.stride) > 1 else "it does not keep the map's size"


def _replacement(
    conv: Convolution, form: str, hidden: Sequence[int] | None, bias: bool, options: dict[str, Any]
) -> nn.Module:
    filter, split = next(pair for kind, pair in LAYERS.items() if isinstance(conv, kind))
    inputs, outputs, groups = conv.in_channels, conv.out_channels, conv.groups
    place: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    bias = bias and conv.bias is not None
    depthwise = groups == inputs > 1
    if hidden is None:
        hidden = FULL_HIDDEN if form == "full" and not depthwise else DEPTHWISE_HIDDEN
    if form == "full" or depthwise:
        return filter(inputs, outputs, groups, bias, hidden=hidden, **place, **options)
    layer = split(inputs, outputs, bias, hidden=hidden, **place, **options)
    if groups > 1:
        pointwise = type(layer.pointwise)
        layer.pointwise = pointwise(inputs, outputs, 1, groups=groups, bias=bias, **place)
    return layer


def to_niff(
    conv: Any,
    map_size: Sequence[int],
    *,
    form: str = "split",
    hidden: Sequence[int] | None = None,
    bias: bool = True,
    fit: int = 0,
    **options: Any,
) -> tuple[nn.Module, float | None, str]:
    """Return the NIFF layer in the place of a convolution, its kernel's error, and a remark.

    Args:
        conv: A convolution that keeps the size of its map.
        map_size: Spatial size of its map.
        form: ``"split"`` or ``"full"``, see ``replace_convolutions``.
        hidden: Widths of the filter networks.
        bias: Whether the bias is taken over.
        fit: Steps in which the filters are fitted to the kernels that were there; 0 leaves them
            as they are drawn, and the error is ``None``.
        **options: Other keyword arguments of ``NIFFConv2d``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is not allowed.
    """
    one_of("form", form, FORMS)
    int_at_least("fit", fit, 0)
    layer: Any = _replacement(conv, form, hidden, boolean("bias", bias), options)
    filter = layer if isinstance(layer, NIFFConvNd) else layer.depthwise
    last = layer if isinstance(layer, NIFFConvNd) else layer.pointwise
    if bias and conv.bias is not None:
        last.bias = conv.bias
    error, remark = None, "drawn anew"
    if fit:
        error, remark = _fit(layer, filter, conv, tuple(map_size), fit), f"fitted in {fit} steps"
    for parameter in layer.parameters():
        if parameter is not conv.bias:
            parameter.requires_grad_(conv.weight.requires_grad)
    return layer, error, remark


def _fit(layer: Any, filter: NIFFConvNd, conv: Any, map_size: tuple[int, ...], steps: int) -> float:
    """Fit a layer's filters to the kernel of a convolution, and return the remaining error."""
    weight = _on_map(conv, map_size)
    target = weight
    mixing = None if filter is layer else layer.pointwise.weight
    if mixing is not None:
        target = _take_apart(weight, mixing, conv.groups)
    with torch.enable_grad():
        _minimise(filter, target, steps)
    with torch.no_grad():
        axes = tuple(range(2, target.dim()))
        found = filter.spatial_kernel(map_size).double()
        found = torch.roll(found, [-(n // 2) for n in map_size], axes)
        if mixing is not None:
            found = mixing.double() * _for_groups(found, conv)
        return float((found - weight).norm() / weight.norm())


def _for_groups(kernels: Tensor, conv: Any) -> Tensor:
    """Kernels ``(C, 1, *map)`` of all channels as ``(out, in / groups, *map)``."""
    grouped = kernels.squeeze(1).unflatten(0, (conv.groups, -1))
    return grouped.repeat_interleave(conv.out_channels // conv.groups, dim=0)


def _on_map(conv: Any, map_size: tuple[int, ...]) -> Tensor:
    """The kernel of true convolution on a map that wraps around, its middle at the origin."""
    weight = conv.weight.detach().double()
    kernel = weight.new_zeros((*weight.shape[:2], *map_size))
    places = [
        [(conv.dilation[axis] * ((taps - 1) // 2 - tap)) % side for tap in range(taps)]
        for axis, (taps, side) in enumerate(zip(conv.kernel_size, map_size, strict=True))
    ]
    for taps in product(*map(range, conv.kernel_size)):
        kernel[(..., *(place[t] for place, t in zip(places, taps, strict=True)))] += weight[
            (..., *taps)
        ]
    return kernel


def _take_apart(weight: Tensor, mixing: Tensor, groups: int) -> Tensor:
    """Nearest product of one kernel per channel, returned, and a mixing matrix, which is set."""
    by_channel = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    left, singular, right = torch.linalg.svd(by_channel.flatten(2), full_matrices=False)
    root = singular[:, :1].sqrt()
    columns = (left[:, :, 0] * root).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        mixing.copy_(columns.reshape(mixing.shape))
    return (right[:, 0] * root).reshape(-1, 1, *weight.shape[2:])


def _minimise(filter: NIFFConvNd, target: Tensor, steps: int) -> None:
    """Fit the half spectrum of a layer to another one."""
    parameters = [*filter.real.parameters(), *filter.imag.parameters()]
    before = [parameter.requires_grad for parameter in parameters]
    map_size = tuple(target.shape[2:])
    wanted = torch.fft.rfftn(target, dim=tuple(range(2, target.dim())))
    scale = wanted.abs().square().mean()
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        real, imag = filter.half_spectrum(map_size)
        error = (real - wanted.real).square() + (imag - wanted.imag).square()
        value: Tensor = error.mean() / scale
        value.backward()
        return value

    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer.step(loss)
    for parameter, trained in zip(parameters, before, strict=True):
        parameter.requires_grad_(trained)
        parameter.grad = None
