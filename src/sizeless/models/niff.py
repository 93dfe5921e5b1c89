"""The NIFF paper's networks: torchvision's own, their convolutions replaced."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sizeless._validate import boolean, one_of, positive_int
from sizeless._validate import options as check_options
from sizeless.kernels.base import linears
from sizeless.nn import NIFFConv2d
from sizeless.surgery.niff import FIXED, FORMS, replace_convolutions

CONVNEXT_HIDDEN = (16, 128, 32)


def _fan_out(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


def _fan_in(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")


def _narrow(weight: Tensor) -> None:
    nn.init.trunc_normal_(weight, std=0.02)


@dataclass(frozen=True)
class _Family:
    """What the authors' programs for one kind of network have in common.

    Attributes:
        stem: Draws the weights of spatial convolutions, as torchvision does.
        filters: Draws those of the filter networks; ``None`` is PyTorch's default.
        no_filter_bias: Whether the biases of the filter networks start at zero.
        depthwise: Whether all that is replaced is depthwise, so that there is no full form.
        hidden: Hidden widths where they are not those of ``replace_convolutions``.
    """

    stem: Callable[[Tensor], None]
    filters: Callable[[Tensor], None] | None
    no_filter_bias: bool = False
    depthwise: bool = False
    hidden: tuple[int, ...] | None = None


RESNET = _Family(_fan_out, _fan_out)
DENSENET = _Family(_fan_in, _fan_in)
MOBILENET = _Family(_fan_out, _fan_out, no_filter_bias=True, depthwise=True)
CONVNEXT = _Family(_narrow, None, depthwise=True, hidden=CONVNEXT_HIDDEN)

BACKBONES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), RESNET),
    "densenet121": DENSENET,
    **dict.fromkeys(("convnext_tiny", "convnext_small", "convnext_base"), CONVNEXT),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"), MOBILENET),
}


def niff_backbone(
    name: str,
    in_channels: int = 3,
    num_classes: int = 1000,
    *,
    form: str = "split",
    hidden: Sequence[int] | None = None,
    small_images: bool = False,
    boundary: str = "circular",
    **options: Any,
) -> nn.Module:
    """Build a network of torchvision with NIFF layers, untrained; see ``replace_convolutions``.

    Torchvision makes the network; its stride-1 convolutions are replaced, its 1x1 convolutions stay
    what they are (the authors' "1x1 in the frequency domain" is the same function) and start with
    PyTorch's default as theirs do, and ConvNeXt's pointwise layers lose their biases. Filters start
    as the authors' program draws them: Kaiming normal by fan-out (ResNet; MobileNet, with biases of
    zero) or fan-in (DenseNet), PyTorch's default (ConvNeXt).

    Args:
        name: Torchvision's name: ``"resnet18"``, 34, 50, 101 or 152, ``"densenet121"``,
            ``"convnext_tiny"``, small or base, ``"mobilenet_v2"``, ``"mobilenet_v3_large"`` or
            small.
        in_channels: Channels of the image.
        num_classes: Number of outputs.
        form: ``"split"`` or ``"full"`` in ResNets and DenseNet. In ConvNeXts and MobileNets, where
            the replaced convolutions are depthwise, there is no ``"full"``. ``"plain"``, to
            compare, is torchvision's network with nothing but its first convolution changed.
        hidden: Widths of the filter networks' hidden layers; ``None`` is the paper's: ``(8, 4)``,
            ``(8,)`` in full form, ``(16, 128, 32)`` in ConvNeXts. The program of the paper's first
            version had ``(16, 128, 32)`` in split ResNets, too.
        small_images: Whether to begin with a spatial 3x3 convolution of stride 1 and without max
            pooling, as is usual at CIFAR's size. What the paper changed for CIFAR-10 is not
            published.
        boundary: ``"circular"``, the paper's, or ``"zeros"``; see ``NIFFConv2d``.
        **options: Other keyword arguments of ``NIFFConv2d``, such as ``frequency_unit``.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``, H and W as torchvision's network allows.

    Returns:
        The network, an instance of torchvision's class.

    Raises:
        ModuleNotFoundError: If torchvision is not installed.
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If a count is below 1 or a value is not allowed.

    Source: Grabinski et al. 2024, "As large as it gets", TMLR, arXiv 2307.10001, and the authors'
    program. It has no file for MobileNet-v3, to which MobileNet-v2's rules are applied here.

    Examples:
        >>> model = niff_backbone("resnet18", 1, 10, small_images=True)  # doctest: +SKIP
        >>> model(torch.randn(2, 1, 28, 28)).shape  # doctest: +SKIP
        torch.Size([2, 10])
    """
    family = BACKBONES[one_of("name", name, tuple(BACKBONES))]
    positive_int("in_channels", in_channels)
    positive_int("num_classes", num_classes)
    boolean("small_images", small_images)
    if one_of("form", form, (*FORMS, "plain")) == "full" and family.depthwise:
        raise ValueError(
            f"form must be 'split' in {name}, got 'full': all convolutions that NIFF replaces "
            "there are depthwise"
        )
    check_options(f"{name} with NIFF", options, NIFFConv2d, fixed=(*FIXED, "boundary"))
    model: nn.Module = getattr(_torchvision_models(name), name)(num_classes=num_classes)
    if form == "plain" and (hidden is not None or options or boundary != "circular"):
        raise ValueError(
            f"hidden, boundary and options of NIFFConv2d do not go with form='plain', which has no "
            f"such layer; got hidden={hidden!r}, boundary={boundary!r}, {options!r}"
        )
    if form != "plain":
        hidden = family.hidden if hidden is None else hidden
        replace_convolutions(model, form, hidden, boundary=boundary, **options)
        _start(model, family)
    _change_stem(model, family, in_channels, small_images)
    return model


def _torchvision_models(name: str) -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} with NIFF is built from torchvision's network, and the package {error.name} "
            "is missing; install it with: pip install 'sizeless[vision]'",
            name=error.name,
        ) from error


def _start(model: nn.Module, family: _Family) -> None:
    """Draw the filter networks and the 1x1 layers as the authors' program does.

    ConvNeXt's 1x1 layers are linear ones, in blocks that are sequences; they lose their biases.
    """
    for module in model.modules():
        if isinstance(module, NIFFConv2d):
            _start_filters(module, family)
        elif isinstance(module, nn.Conv2d) and _is_pointwise(module):
            module.reset_parameters()
    if family is CONVNEXT:
        for module in model.get_submodule("features").modules():
            for layer in module if isinstance(module, nn.Sequential) else ():
                if isinstance(layer, nn.Linear):
                    layer.register_parameter("bias", None)
                    layer.reset_parameters()


def _is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether the authors have it "in the frequency domain"; squeeze-and-excitation has a bias."""
    return conv.kernel_size == conv.stride == (1, 1) and conv.bias is None


def _start_filters(layer: NIFFConv2d, family: _Family) -> None:
    for network in (layer.real, layer.imag):
        network.reset_parameters()
        for linear in [*linears(network.linears), network.output]:
            if family.filters is not None:
                family.filters(linear.weight)
            if family.no_filter_bias:
                nn.init.zeros_(linear.bias)


def _change_stem(model: nn.Module, family: _Family, in_channels: int, small_images: bool) -> None:
    """Fit the first convolution to the image's channels, and to small images if asked for."""
    path, stem = next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if in_channels == stem.in_channels and not small_images:
        return
    shape: dict[str, Any] = {"kernel_size": 3, "stride": 1, "padding": 1}
    if not small_images:
        shape = {key: getattr(stem, key) for key in shape}
    new = nn.Conv2d(in_channels, stem.out_channels, bias=stem.bias is not None, **shape)
    family.stem(new.weight)
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    model.set_submodule(path, new)
    pools = [path for path, module in model.named_modules() if isinstance(module, nn.MaxPool2d)]
    for path in pools if small_images else ():
        model.set_submodule(path, nn.Identity())


def niff_resnet18(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ResNet-18 with NIFF, 3,331,904 parameters (full: 21,127,320); see ``niff_backbone``."""
    return niff_backbone("resnet18", in_channels, num_classes, **options)


def niff_resnet34(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ResNet-34 with NIFF, 4,500,672 parameters (full: 41,336,984); see ``niff_backbone``."""
    return niff_backbone("resnet34", in_channels, num_classes, **options)


def niff_resnet50(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ResNet-50 with NIFF, 18,280,128 parameters (full: 33,778,328); see ``niff_backbone``."""
    return niff_backbone("resnet50", in_channels, num_classes, **options)


def niff_resnet101(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ResNet-101 with NIFF, 28,404,920 parameters (full: 62,798,280); see ``niff_backbone``."""
    return niff_backbone("resnet101", in_channels, num_classes, **options)


def niff_resnet152(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ResNet-152 with NIFF, 36,748,976 parameters (full: 86,700,280); see ``niff_backbone``."""
    return niff_backbone("resnet152", in_channels, num_classes, **options)


def niff_densenet121(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """DenseNet-121 with NIFF, 6,159,512 parameters (full: 10,119,752); see ``niff_backbone``."""
    return niff_backbone("densenet121", in_channels, num_classes, **options)


def niff_convnext_tiny(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ConvNeXt-T with NIFF, 28,890,664 parameters; see ``niff_backbone``."""
    return niff_backbone("convnext_tiny", in_channels, num_classes, **options)


def niff_convnext_small(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ConvNeXt-S with NIFF, 50,829,928 parameters; see ``niff_backbone``."""
    return niff_backbone("convnext_small", in_channels, num_classes, **options)


def niff_convnext_base(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """ConvNeXt-B with NIFF, 89,247,336 parameters; see ``niff_backbone``."""
    return niff_backbone("convnext_base", in_channels, num_classes, **options)


def niff_mobilenet_v2(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """MobileNet-v2 with NIFF, 3,512,560 parameters; see ``niff_backbone``."""
    return niff_backbone("mobilenet_v2", in_channels, num_classes, **options)


def niff_mobilenet_v3(in_channels: int = 3, num_classes: int = 1000, **options: Any) -> nn.Module:
    """MobileNet-v3 (large) with NIFF, 5,453,760 parameters; see ``niff_backbone``."""
    return niff_backbone("mobilenet_v3_large", in_channels, num_classes, **options)


def niff_mobilenet_v3_small(
    in_channels: int = 3, num_classes: int = 1000, **options: Any
) -> nn.Module:
    """MobileNet-v3 (small) with NIFF, 2,515,344 parameters; see ``niff_backbone``."""
    return niff_backbone("mobilenet_v3_small", in_channels, num_classes, **options)
