"""The layers written out from their formulas, for comparison: slow, in float64, nothing shared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sizeless.functional import naive
from sizeless.kernels import MLP, MAGNet
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd
from sizeless.nn.residual import DiffStrideResidualNd

THRESHOLD = 0.1


def pinned(value: Tensor, low: float, high: float) -> Tensor:
    """Clamp, with the gradient of the identity."""
    return value.detach().clamp(low, high) + (value - value.detach())


def magnet(kernel: MAGNet, tap: Tensor) -> Tensor:
    """All kernel values at one tap, layer by layer."""
    hidden = None
    for level in range(kernel.layers + 1):
        offset = kernel.gamma[level] * (tap - kernel.center[level])
        envelope = (-0.5 * (offset**2).sum(dim=1)).exp()
        angle = (kernel.frequency[level] * tap).sum(dim=1) + kernel.phase[level]
        wave = envelope * angle.sin()
        if hidden is None:
            hidden = wave
        else:
            linear = kernel.mixing[level - 1]
            hidden = (linear.weight @ hidden + linear.bias) * wave
    return kernel.output.weight @ hidden + kernel.output.bias


def flexconv_kernel(layer: FlexConvNd) -> Tensor:
    """The largest kernel, tap by tap, with zeros where the window is cropped."""
    sigma, mu = layer.window.log_sigma.exp(), layer.window.raw_center
    reach = math.sqrt(-2 * math.log(THRESHOLD))
    values = []
    for index in itertools.product(*map(range, layer.kernel_size)):
        tap = torch.tensor(
            [
                2 * i / (n - 1) - 1 if n > 1 else 0.0
                for i, n in zip(index, layer.kernel_size, strict=True)
            ],
            dtype=sigma.dtype,
        )
        kept = tap > mu - reach * sigma if layer.causal else tap.abs() < mu.abs() + reach * sigma
        window = (-0.5 * ((tap - mu) / sigma) ** 2).sum().exp() * kept.all()
        values.append(window * magnet(layer.kernel, tap))
    shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    return torch.stack(values, dim=1).reshape(shape)


def flexconv(layer: FlexConvNd, input: Tensor) -> Tensor:
    """Slow convolution with the largest kernel."""
    return naive.convolve(
        input,
        flexconv_kernel(layer),
        layer.bias,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.padding_mode,
        layer.causal,
    )


def perceptron(network: MLP, values: Tensor) -> Tensor:
    """All outputs at one point."""
    for linear in network.linears:
        values = linear.weight @ values + linear.bias
        values = values / (1 + (-values).exp())
    return network.output.weight @ values + network.output.bias


def niff_kernel(layer: NIFFConvNd, sizes: Sequence[int]) -> dict[tuple[int, ...], Tensor]:
    """Real kernel ``(out, in / groups)`` at every lag in ``range(-(n // 2), n - n // 2)``."""
    spectrum = {}
    for k in itertools.product(*(range(-(n // 2), n - n // 2) for n in sizes)):
        # An even axis has its Nyquist frequency at the negative end, as in an FFT.
        per_pixel = layer.frequency_unit == "cycles/pixel"
        point = [i / n if per_pixel else i for i, n in zip(k, sizes, strict=True)]
        coordinates = torch.tensor(point, dtype=torch.float64)
        parts = (perceptron(network, coordinates) for network in (layer.real, layer.imag))
        spectrum[k] = [part.reshape(layer.out_channels, -1) for part in parts]
    kernel = {}
    for lag in spectrum:
        value = torch.zeros((), dtype=torch.float64)
        for k, (real, imag) in spectrum.items():
            turns = sum(i * j / n for i, j, n in zip(k, lag, sizes, strict=True))
            angle = 2 * math.pi * turns
            value = value + real * math.cos(angle) - imag * math.sin(angle)
        kernel[lag] = value / math.prod(sizes)
    return kernel


def niff(layer: NIFFConvNd, input: Tensor) -> Tensor:
    """Sum over lags of the input moved by each lag: around the map, or out of it."""
    sizes, groups = input.shape[2:], layer.groups
    axes = tuple(range(2, input.dim()))
    output = torch.zeros((), dtype=input.dtype)
    for lag, matrix in niff_kernel(layer, sizes).items():
        moved = torch.roll(input, lag, axes)
        if layer.boundary == "zeros":
            for axis, shift in zip(axes, lag, strict=True):
                places = torch.arange(input.shape[axis]) - shift
                inside = (places >= 0) & (places < input.shape[axis])
                moved = moved * inside.reshape(-1, *[1] * (input.dim() - 1 - axis))
        grouped = moved.unflatten(1, (groups, -1))
        weights = matrix.unflatten(0, (groups, -1))
        output = output + torch.einsum("goi,ngi...->ngo...", weights, grouped).flatten(1, 2)
    return output if layer.bias is None else output + layer.bias.reshape(-1, *[1] * len(axes))


def diffstride_window(
    layer: DiffStrideNd, sizes: Sequence[int]
) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """Output size, end of the pass band and width of the ramp, per axis."""
    outputs, cutoffs, widths = [], [], []
    for octaves, size in zip(layer.log2_stride.expand(layer.ndim), sizes, strict=True):
        paper = layer.size_rule == "paper"
        t = layer.smoothness
        high = max(size / 2, 1.0)
        low = min(size / (size - t), high) if paper and size > t else high if paper else 1.0
        # At a limit the gradient is that of the stride at the limit.
        used = pinned(pinned(octaves, math.log2(low), math.log2(high)).exp2(), low, high)
        half_band = size / (2 * used)
        end = size / (2 * used.item())
        if paper:
            outputs.append(min(size, 2 * math.ceil(max(end, 1) + t) - size % 2))
            cutoffs.append(half_band)
            widths.append(torch.full_like(used, t))
        else:
            width = (layer.transition * half_band).clamp_min(1)
            outputs.append(max(math.ceil(2 * end), 1))
            cutoffs.append(half_band - width)
            widths.append(width)
    return outputs, cutoffs, widths


def diffstride(layer: DiffStrideNd, input: Tensor) -> Tensor:
    """Slow resampling under the layer's window."""
    sizes, cutoffs, widths = diffstride_window(layer, input.shape[2:])
    return naive.resample(
        input, sizes, cutoff=cutoffs, transition=widths, amplitude=layer.amplitude
    )


def diffstride_long(layer: DiffStrideNd, input: Tensor) -> Tensor:
    """The same for one long axis, as one sum of cosines, with the ramp's ends inclusive."""
    (count,), (cutoff,), (width,) = diffstride_window(layer, input.shape[2:])
    size = input.shape[-1]
    k, p, q = (torch.arange(n, dtype=input.dtype) for n in (min(size, count) // 2 + 1, size, count))
    k = k[1:]
    ramp = (cutoff + width - k) / width
    inside = (ramp >= 0) & (ramp <= 1)
    # The derivative at both ends of the ramp is that of the ramp.
    weights = torch.where(inside, ramp, ramp.detach().clamp(0, 1))
    weights = weights * torch.where(2 * k == size, 1.0, 2.0)
    turns = k * (q[:, None, None] / count - p[:, None] / size)
    waves = (2 * math.pi * turns).cos()
    return input @ ((1 + waves @ weights) / size).T


def batch_norm(layer: nn.Module, input: Tensor) -> Tensor:
    """Batch normalisation by its formula, in training."""
    axes = (0, *range(2, input.dim()))
    mean = input.mean(axes, keepdim=True)
    variance = ((input - mean) ** 2).mean(axes, keepdim=True)
    shape = (-1, *[1] * (input.dim() - 2))
    normal = (input - mean) / (variance + layer.eps).sqrt()
    return normal * layer.weight.reshape(shape) + layer.bias.reshape(shape)


def residual(layer: DiffStrideResidualNd, input: Tensor) -> Tensor:
    """The block by its formula, in training."""
    hidden = batch_norm(layer.norm1, input).clamp_min(0)
    hidden = naive.convolve(hidden, layer.conv1.weight, padding="same")
    hidden = batch_norm(layer.norm2, diffstride(layer.pool, hidden)).clamp_min(0)
    hidden = naive.convolve(hidden, layer.conv2.weight, padding="same")
    pooled = diffstride(layer.pool, input)
    if isinstance(layer.shortcut, nn.Identity):
        return hidden + pooled
    return hidden + naive.convolve(pooled, layer.shortcut.weight)
