"""The three methods as their papers' programs run them: full kernels, full spectra, full masks.

Written from the formulas, with the parameters of our layers, and compared with them in the tests.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sizeless.kernels import MLP, MAGNet
from sizeless.nn import DiffStride2d, FlexConvNd, NIFFConv2d

DIRECT = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

REACH = math.sqrt(-2 * math.log(0.1))
"""Standard deviations within which FlexConv's window is above its threshold."""

LONGEST_DIRECT = 50
"""Taps beyond which the authors' program convolves sequences by FFT."""


def fft_convolve(input: Tensor, weight: Tensor, before: Sequence[int], groups: int = 1) -> Tensor:
    """Correlate as textbooks do, at the full length of the linear convolution, size kept.

    Args:
        input: ``(N, C, *spatial)``.
        weight: ``(out, C / groups, *kernel)``.
        before: Zeros before the start of each axis.
        groups: Channel groups.
    """
    sizes = input.shape[2:]
    lengths = [n + k - 1 for n, k in zip(sizes, weight.shape[2:], strict=True)]
    axes = tuple(range(2, input.dim()))
    signal = torch.fft.rfftn(input, lengths, axes).unflatten(1, (groups, -1))
    filter = torch.fft.rfftn(weight, lengths, axes).conj().unflatten(0, (groups, -1))
    product = torch.einsum("ngi...,goi...->ngo...", signal, filter).flatten(1, 2)
    output = torch.fft.irfftn(product, lengths, axes).roll(tuple(before), axes)
    return output[(..., *(slice(n) for n in sizes))]


def magnet(kernel: MAGNet, coordinates: Tensor) -> Tensor:
    """Values of the kernel network, layer by layer."""
    hidden = coordinates
    for level in range(kernel.layers + 1):
        offset = kernel.gamma[level] * (coordinates[..., None, :] - kernel.center[level])
        envelope = (-0.5 * offset.square().sum(dim=-1)).exp()
        wave = F.linear(coordinates, kernel.frequency[level], kernel.phase[level]).sin() * envelope
        hidden = wave if level == 0 else kernel.mixing[level - 1](hidden) * wave
    return F.linear(hidden, kernel.output.weight, kernel.output.bias)


def flexconv_kernel(layer: FlexConvNd) -> Tensor:
    """The cropped kernel: one value of the network for every tap, input and output channel."""
    if not isinstance(layer.kernel, MAGNet):
        raise TypeError(f"the kernel network must be a MAGNet, got {type(layer.kernel).__name__}")
    sigma, center = layer.window.log_sigma.exp(), layer.window.raw_center
    axes = []
    for n, s, c in zip(layer.kernel_size, sigma.detach(), center.detach(), strict=True):
        taps = torch.linspace(-1, 1, n, dtype=sigma.dtype, device=sigma.device)
        kept = taps > c - REACH * s if layer.causal else taps.abs() < c.abs() + REACH * s
        axes.append(taps[kept])
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    window = (-0.5 * ((grid - center) / sigma).square().sum(dim=-1)).exp()
    values = (magnet(layer.kernel, grid) * window[..., None]).movedim(-1, 0)
    return values.reshape(layer.out_channels, layer.in_channels // layer.groups, *grid.shape[:-1])


class LiteralFlexConv(nn.Module):
    """FlexConv that renders its kernel, then convolves with it.

    Images directly; sequences by the FFT of all kernels where they are longer than 50 taps.

    Args:
        layer: The layer whose parameters it uses, of stride and dilation 1 and padding "same", its
            window within its limits.
    """

    def __init__(self, layer: FlexConvNd) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)``."""
        layer, weight = self.layer, flexconv_kernel(self.layer)
        taps = weight.shape[2:]
        before = [k - 1 if layer.causal else k // 2 for k in taps]
        if layer.ndim == 1 and taps[0] > LONGEST_DIRECT:
            output = fft_convolve(input, weight, before, layer.groups)
            return output if layer.bias is None else output + layer.bias[:, None]
        if layer.causal:
            input, before = F.pad(input, (before[0], 0)), [0]
        return DIRECT[layer.ndim](
            input, weight, layer.bias, padding=tuple(before), groups=layer.groups
        )


def with_literal_flexconvs(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose FlexConvs render their kernels, then convolve."""
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FlexConvNd):
                setattr(parent, name, LiteralFlexConv(child))
    return twin


def perceptron(network: MLP, values: Tensor) -> Tensor:
    """Values of NIFF's network, on an image of coordinates."""
    for linear in network.linears:
        values = F.silu(linear(values))
    return F.linear(values, network.output.weight, network.output.bias)


class LiteralNIFFConv2d(nn.Module):
    """Depthwise NIFF with full complex spectra, shifted to the centre and back.

    Args:
        layer: The layer whose parameters it uses.
    """

    def __init__(self, layer: NIFFConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        layer, axes = self.layer, (-2, -1)
        rows, columns = (
            torch.arange(-(n // 2), n - n // 2, device=input.device).to(input.dtype)
            for n in input.shape[2:]
        )
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        filter = torch.complex(perceptron(layer.real, grid), perceptron(layer.imag, grid))
        spectrum = torch.fft.fftshift(torch.fft.fft2(input), dim=axes) * filter.movedim(-1, 0)
        output = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=axes)).real
        return output if layer.bias is None else output + layer.bias[:, None, None]


class LiteralDiffStride2d(nn.Module):
    """DiffStride with a mask on the whole spectrum, a crop, and the inverse transform.

    Args:
        layer: The layer whose parameters it uses, its strides within their limits.
    """

    def __init__(self, layer: DiffStride2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, *output_size)``."""
        sizes = input.shape[-2:]
        height, width = self.layer.output_size(tuple(sizes))
        spectrum = torch.fft.rfft2(input)
        like = {"dtype": input.dtype, "device": input.device}
        rows = torch.fft.fftfreq(sizes[0], 1 / sizes[0], **like).abs()
        columns = torch.fft.rfftfreq(sizes[1], 1 / sizes[1], **like)
        mask = self._mask(rows, 0, sizes[0])[:, None] * self._mask(columns, 1, sizes[1])
        half = (spectrum * mask)[..., : width // 2 + 1]
        top, bottom = (height + 1) // 2, height // 2
        if height < sizes[0]:
            half = torch.cat([half[..., :top, :], half[..., sizes[0] - bottom :, :]], dim=-2)
        output = torch.fft.irfft2(half, s=(height, width))
        if self.layer.amplitude == "mean":
            output = output * (height * width / math.prod(sizes))
        return output

    def _mask(self, frequencies: Tensor, axis: int, size: int) -> Tensor:
        layer = self.layer
        octaves = layer.log2_stride.expand(2)[axis]
        edge = size / (2 * octaves.exp2())
        width = (
            torch.full_like(edge, layer.smoothness)
            if layer.size_rule == "paper"
            else (layer.transition * edge).clamp_min(1.0)
        )
        end = edge + width if layer.size_rule == "paper" else edge
        ramp = (end - frequencies) / width
        # Both ends belong to the ramp, where torch.clamp passes no gradient.
        on_ramp = (ramp >= 0) & (ramp <= 1)
        mask = torch.where(on_ramp, ramp, ramp.detach().clamp(0, 1))
        return torch.where(frequencies == 0, 1.0, mask)


class StridedResidual2d(nn.Module):
    """Pre-activation residual block with strided convolutions, the shortcut's 1x1 among them.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Integer stride.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        hidden = self.conv1(self.norm1(input).relu())
        output: Tensor = self.conv2(self.norm2(hidden).relu()) + self.shortcut(input)
        return output
