r"""A convolution's kernel as that of a FlexConv, exactly.

The last layer of a kernel network is linear in its basis functions $\phi$, so the coefficients
that give a kernel $W$ on its taps $t$ under the window $w$ are those of linear equations:

$$
w(r_t)\, A\, \phi(r_t) = W_t
$$

There are more functions than taps. What freedom remains makes the kernel small on the taps just
outside: a window that grows uncovers a quiet kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sizeless.functional.fft import no_autocast
from sizeless.kernels import MAGNet, coordinate_axis
from sizeless.nn import FlexConv1d, FlexConv2d, FlexConv3d, FlexConvNd

FLEXCONVS: dict[type[nn.Module], type[FlexConvNd]] = {
    nn.Conv1d: FlexConv1d,
    nn.Conv2d: FlexConv2d,
    nn.Conv3d: FlexConv3d,
}

MOST_FUNCTIONS = 640
"""Basis functions of a kernel network beyond which training it would be slow."""

GROWTH = 4
"""A kernel of ``k`` taps may grow to ``GROWTH * (k - 1) + 1`` unless it is said otherwise."""

MARGIN = 1.4
"""How far a window may grow, times its size, and find the kernel small where it was not before."""

RIDGE = 1e-2
"""Weight of large coefficients against values outside the kernel."""

WAVES = 3.2
"""Scale of a kernel network's frequencies in each tap of the largest kernel.

Some waves then go up and down from tap to tap, as any kernel's values may. With the paper's 25.6,
whatever the number of taps, kernels of many taps would be sums of large terms that cancel.
"""


def why_not(conv: Any, kernel: object = None) -> str:
    """Return why a convolution cannot become a FlexConv, or ``""``.

    Args:
        conv: A convolution.
        kernel: The kernel network that was asked for; ``None`` is one with enough functions.
    """
    if conv.weight.dtype not in (torch.float32, torch.float64):
        return f"{conv.weight.dtype} cannot hold the coefficients: convert in float32"
    # With padding="same", one without dilation looks ahead by half, as a larger one does.
    ahead = conv.padding == "same"
    for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True):
        if size % 2 == 0 and not (ahead and dilation == 1):
            return f"its kernel {tuple(conv.kernel_size)} has no middle tap"
    if kernel is None and functions_for(_odd(conv.kernel_size)) > MOST_FUNCTIONS:
        taps = math.prod(conv.kernel_size)
        return f"{taps} taps would need a kernel network of more than {MOST_FUNCTIONS} functions"
    return ""


def functions_for(kernel_size: Sequence[int]) -> int:
    """Basis functions that give any kernel of a size, and silence on the taps next to it."""
    return max(32, 8 * math.ceil(1.25 * math.prod(_surroundings(kernel_size)) / 8))


def _surroundings(kernel_size: Sequence[int]) -> tuple[int, ...]:
    """Odd number of taps, on each axis, on which a kernel should be small but for its own."""
    return tuple(2 * math.ceil(MARGIN * size / 2) - 1 if size > 1 else 1 for size in kernel_size)


def largest_kernel(conv: Any, map_size: Sequence[int]) -> tuple[int, ...]:
    """Size in taps to which a kernel may grow: ``GROWTH`` times its reach, within the map."""
    sizes = []
    for taps, spacing, side in zip(_odd(conv.kernel_size), conv.dilation, map_size, strict=True):
        within = 2 * ((side - 1) // spacing) + 1
        sizes.append(max(min(GROWTH * (taps - 1) + 1, within), taps))
    return tuple(sizes)


def to_flexconv(
    conv: Any,
    kernel_size: int | Sequence[int],
    options: Mapping[str, Any],
    *,
    learn_basis: bool = False,
) -> tuple[FlexConvNd, float]:
    """Return a FlexConv that computes what a convolution does, and its kernel's relative error.

    Args:
        conv: An ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.
        kernel_size: Size in taps to which the kernel may grow.
        options: Further keyword arguments of the FlexConv.
        learn_basis: Whether the functions that kernels are sums of are trained, too. Their
            coefficients are large: a step of Adam of 1e-3 on all of them at once changes kernels
            of 5 x 5 by more than their norm. The coefficients alone give every kernel.

    Raises:
        ValueError: If ``kernel_size`` is smaller than the kernel, or the kernel network has too
            few functions.
    """
    weight = _centred(conv)
    taps = tuple(weight.shape[2:])
    largest = (
        # A single tap passes no gradient to the width of its axis.
        tuple(kernel_size if size > 1 else 1 for size in taps)
        if isinstance(kernel_size, int)
        else tuple(kernel_size)
    )
    if len(largest) != len(taps) or any(n < k for n, k in zip(largest, taps, strict=True)):
        raise ValueError(
            f"kernel_size, to which a kernel may grow, must be at least {taps} here, the size that "
            f"it has, got {kernel_size!r}"
        )
    waves = WAVES * max(max(largest) - 1, 1)
    kernel = partial(MAGNet, hidden=functions_for(taps), input_scale=waves)
    layer = FLEXCONVS[type(conv)](
        conv.in_channels,
        conv.out_channels,
        largest,
        conv.stride,
        _padding(conv, largest, taps),
        conv.dilation,
        conv.groups,
        bias=False,
        padding_mode=conv.padding_mode,
        device=weight.device,
        dtype=weight.dtype,
        init_size=taps,
        **{"kernel": kernel, **options},
    )
    _set_kernel(layer, weight)
    layer.requires_grad_(conv.weight.requires_grad)
    if not learn_basis:
        layer.kernel.requires_grad_(False)
        layer.kernel.output.requires_grad_(conv.weight.requires_grad)
    layer.bias = conv.bias
    with torch.no_grad():
        error = (layer.weight.double() - weight.double()).norm() / weight.double().norm()
    return layer, float(error.nan_to_num(0.0))


def _odd(kernel_size: Sequence[int]) -> tuple[int, ...]:
    return tuple(size + 1 - size % 2 for size in kernel_size)


def _centred(conv: Any) -> Tensor:
    """The kernel with a middle tap: with ``padding="same"`` an even one looks ahead by half."""
    weight: Tensor = conv.weight.detach()
    for axis, size in enumerate(conv.kernel_size):
        if size % 2 == 0:
            zeros = torch.zeros_like(weight.narrow(2 + axis, 0, 1))
            weight = torch.cat((zeros, weight), dim=2 + axis)
    return weight


def _padding(conv: Any, largest: tuple[int, ...], taps: tuple[int, ...]) -> str | tuple[int, ...]:
    """The padding for the largest kernel that leaves a kernel of ``taps`` with that of ``conv``."""
    if conv.padding == "same":
        return "same"
    own = (0,) * len(taps) if isinstance(conv.padding, str) else tuple(conv.padding)
    if all(2 * p == d * (k - 1) for p, d, k in zip(own, conv.dilation, taps, strict=True)):
        return "same"
    return tuple(
        p + d * (n - k) // 2 for p, d, n, k in zip(own, conv.dilation, largest, taps, strict=True)
    )


@torch.no_grad()
def _set_kernel(layer: FlexConvNd, weight: Tensor) -> None:
    """Choose the coefficients of a layer's kernel network so that its kernel is ``weight``."""
    taps = tuple(weight.shape[2:])
    if layer.size != taps:
        raise ValueError(f"the window keeps {layer.size} taps where {taps} were asked for")
    near = tuple(min(n, k) for n, k in zip(layer.kernel_size, _surroundings(taps), strict=True))
    functions = _functions(layer, near)
    _check_functions(layer, functions.shape[0], math.prod(taps))
    distance = _distance(near, taps).to(weight.device)
    inside, outside = distance == 0, distance > 0
    window = layer.window(layer._axes(layer._bounds_of(tuple(layer._kept)))).double()
    coefficients = _solve(
        functions[:, inside] * window.flatten(),
        functions[:, outside] / distance[outside],
        weight.flatten(2),
    )
    output = layer.kernel.output
    output.weight.copy_(coefficients[:, :-1])
    output.bias.copy_(coefficients[:, -1])
    layer._cache.clear()


def _distance(near: tuple[int, ...], taps: tuple[int, ...]) -> Tensor:
    """How many taps every position of a grid around a kernel is away from it, the farthest axis."""
    distance = torch.zeros(near)
    for axis, (n, k) in enumerate(zip(near, taps, strict=True)):
        places = (torch.arange(n) - n // 2).abs() - k // 2
        shape = [1] * axis + [n] + [1] * (len(near) - 1 - axis)
        distance = torch.maximum(distance, places.clamp_min(0).view(shape).to(distance))
    return distance


def _functions(layer: FlexConvNd, sizes: tuple[int, ...]) -> Tensor:
    """Basis functions, and the constant last, on the ``sizes`` taps around the middle one."""
    like = layer.window.log_sigma
    axes = [
        coordinate_axis(n, (n - size) // 2, (n + size) // 2, like)
        for n, size in zip(layer.kernel_size, sizes, strict=True)
    ]
    with no_autocast(like.device.type):
        basis = layer.kernel.grid_basis(axes).double()
    return torch.cat((basis, torch.ones_like(basis[:1])))


def _check_functions(layer: FlexConvNd, functions: int, taps: int) -> None:
    if functions < taps:
        raise ValueError(
            f"kernel must make a network of at least {taps - 1} functions to give every kernel of "
            f"{taps} taps, got {type(layer.kernel).__name__} with {functions - 1}; use "
            f"functools.partial({type(layer.kernel).__name__}, hidden={functions_for((taps,))})"
        )


def _solve(inside: Tensor, outside: Tensor, values: Tensor) -> Tensor:
    """Coefficients that give ``values`` inside exactly, and little outside.

    Args:
        inside: Functions on the taps of the kernel, windowed: ``(functions, taps)``.
        outside: Functions on the taps around it: ``(functions, others)``.
        values: The kernels, ``(out, in / groups, taps)``.

    Returns:
        Tensor of shape ``(out * in / groups, functions)``.
    """
    left, singular, right = torch.linalg.svd(inside.t(), full_matrices=True)
    count = singular.numel()
    solution = right[:count].t() @ ((left[:, :count].t()) / singular[:, None])
    free = right[count:].t()
    if free.shape[1] and outside.shape[1]:
        reach = outside.t() @ free
        scale = float(reach.square().mean()) * reach.shape[0]
        normal = reach.t() @ reach
        normal.diagonal().add_(RIDGE * scale)
        solution = solution - free @ torch.linalg.solve(
            normal, reach.t() @ (outside.t() @ solution)
        )
    return values.flatten(0, 1).double() @ solution.t()
