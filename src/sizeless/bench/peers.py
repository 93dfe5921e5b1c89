"""Other packages that convolve with large kernels. All are optional."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

PACKAGES = {
    "torch-fftconv": "torch_fftconv",
    "fft-conv-pytorch": "fft_conv_pytorch",
    "julius": "julius",
    "DCLS": "DCLS",
}
"""Module to import for each contender."""

DCLS_ELEMENTS = 16
"""Elements with learned positions in one DCLS kernel, however large it is."""


def installed(name: str) -> bool:
    """Return whether the package of a contender can be imported."""
    return importlib.util.find_spec(PACKAGES[name]) is not None


def reason_against(name: str, ndim: int, groups: int) -> str:
    """Return why a package cannot do a convolution, or an empty string."""
    if name != "julius":
        return ""
    if ndim != 1:
        return "julius convolves along one axis only"
    return "" if groups == 1 else "julius has no groups"


def workspace(name: str, batch: int, weight: tuple[int, ...], points: int) -> float:
    """Return about how many bytes the largest intermediate tensors of a package need.

    Args:
        name: The contender.
        batch: Number of feature maps.
        weight: ``(out, in / groups, *kernel)``.
        points: Samples of the padded map.
    """
    pairs = weight[0] * weight[1]
    if name == "DCLS":
        return 4.0 * (len(weight) + 1) * pairs * math.prod(weight[2:]) * elements(weight[2:])
    if name == "julius" or weight[1] == 1:
        return 8.0 * points * (batch * weight[0] + pairs) * 3
    # Both broadcast their matrix products over the batch, which copies one factor.
    return 8.0 * batch * pairs * points


def fft_convolve(name: str, input: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve by a package, padded by half the (odd) kernel on both ends of every axis."""
    package = importlib.import_module(PACKAGES[name])
    padding: Any = tuple(k // 2 for k in weight.shape[2:])
    if name == "julius":
        return package.fft_conv1d(input, weight, padding=padding[0])
    if name == "fft-conv-pytorch":
        return package.fft_conv(input, weight, padding=padding, groups=groups)
    function = getattr(package, f"fft_conv{len(padding)}d")
    return function(input, weight, padding=padding, groups=groups)


def elements(kernel: tuple[int, ...]) -> int:
    """Number of elements of a DCLS kernel."""
    return min(math.prod(kernel), DCLS_ELEMENTS)


def dcls_layer(weight: tuple[int, ...], groups: int, device: str) -> nn.Module:
    """Return a DCLS layer whose kernel has the extent of ``weight``, padded by half of it.

    Its version is "v1", the bilinear one of its paper.
    """
    modules = importlib.import_module("DCLS.construct.modules")
    ndim, kernel = len(weight) - 2, weight[2:]
    # Its constructor warns that a kernel for GPUs is not installed.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        layer: nn.Module = getattr(modules, f"Dcls{ndim}d")(
            weight[1] * groups,
            weight[0],
            kernel_count=elements(kernel),
            padding=tuple(k // 2 for k in kernel),
            dilated_kernel_size=kernel,
            groups=groups,
            bias=False,
            version="v1",
        )
    finally:
        logging.disable(level)
    layer.to(device)
    with torch.no_grad():
        for axis, k in enumerate(kernel):
            layer.P[axis].uniform_(-(k // 2), k // 2)  # type: ignore[index]
    return layer


def dcls_kernel(layer: Any) -> Tensor:
    """The kernel that a DCLS layer constructs from its elements."""
    kernel: Tensor = layer.DCK(layer.weight, layer.P, layer.SIG)
    return kernel
