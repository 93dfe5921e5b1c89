"""Draw the pictures of the theory pages: ``python docs/figures.py [FOLDER]``.

They land in ``docs/images`` unless another folder is given. Everything that is drawn is computed by
the library, from fixed seeds; it takes less than a minute on one core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

import sizeless
from sizeless.functional import low_pass_window
from sizeless.kernels import coordinate_axis, coordinate_grid
from sizeless.nn.crop import THRESHOLD
from sizeless.study import style

FOLDER = Path(__file__).parent / "images"
TAPS = 33
BLUE, ORANGE, GREEN = "#31688e", "#d1751f", "#35a06b"


def flexconv_window() -> Figure:
    """Windows of three widths on 33 taps, and the size that the crop leaves of any width."""
    figure, (left, right) = style.panels(2, columns=2, height=3.0)
    fine = torch.linspace(-1, 1, 600)
    for color, size in zip((BLUE, GREEN, ORANGE), (5, 13, 25), strict=True):
        layer = sizeless.FlexConv1d(1, 1, kernel_size=TAPS, init_size=size)
        window, sigma = layer.window, float(layer.window.sigma.detach())
        kept = coordinate_axis(TAPS, *window.bounds()[0], fine)
        label = f"σ = {sigma:.3f}: {len(kept)} taps"
        left.plot(fine, window([fine]).detach(), color=color, linewidth=1.4, label=label)
        left.plot(kept, window([kept]).detach(), "o", color=color, markersize=3)
    dashes = {"color": style.AXIS, "linestyle": "--", "linewidth": 0.8}
    left.axhline(THRESHOLD, label=f"threshold {THRESHOLD}", **dashes)
    left.legend(frameon=False, fontsize=8, labelcolor=style.INK, loc="upper center", ncols=2)
    left.set(ylim=(-0.05, 1.4), yticks=(0, 0.5, 1))
    left.set(title="The window, and the taps that stay", xlabel="coordinate r", ylabel="window w")
    sigmas = np.linspace(0.01, 1.0, 1000)
    for name, color in (("centred", BLUE), ("causal", ORANGE)):
        causal = name == "causal"
        layer = sizeless.FlexConv1d(1, 1, kernel_size=TAPS, causal=causal, min_size=1)
        sizes = [_size_at(layer, sigma) for sigma in sigmas]
        right.plot(sigmas, sizes, color=color, linewidth=1.4, label=f"{name}, {TAPS} at most")
    right.legend(frameon=False, fontsize=8, labelcolor=style.INK, loc="lower right")
    right.set(title="Size of the kernel against its width", xlabel="σ", ylabel="taps")
    return _clean(figure)


def _size_at(layer: sizeless.FlexConv1d, sigma: float) -> int:
    torch.nn.init.constant_(layer.window.log_sigma, float(np.log(sigma)))
    return layer.size[0]


def flexconv_kernel() -> Figure:
    """Basis functions of a MAGNet, and a kernel before and after window and crop."""
    torch.manual_seed(3)
    layer = sizeless.FlexConv2d(1, 1, kernel_size=TAPS, init_size=17)
    axes = [coordinate_axis(TAPS, 0, TAPS, torch.zeros(1))] * 2
    with torch.no_grad():
        basis = layer.kernel.grid_basis(axes)
        strongest = basis.abs().amax((1, 2)).argsort(descending=True)[:4]
        values = layer.kernel(coordinate_grid(axes))[..., 0]
        window, kernel = layer.window(axes), layer.weight[0, 0]
    figure, panels = style.panels(8, columns=4, height=2.4)
    for axes_, function in zip(panels[:4], basis[strongest], strict=True):
        _image(axes_, function, "basis function")
    (low, high), *_ = layer.window.bounds()
    edge = np.arange(low, high) - TAPS // 2
    _image(panels[4], values, "their mixture ψ")
    _image(panels[5], window, "window w", cmap="Greys", low=0.0)
    _image(panels[6], window * values, "w ψ on all taps")
    side = (edge[0] - 0.5, edge[-1] + 0.5)
    panels[6].plot(
        [side[0], side[1], side[1], side[0], side[0]],
        [side[0], side[0], side[1], side[1], side[0]],
        color=style.INK,
        linestyle="--",
        linewidth=0.8,
    )
    _image(panels[7], kernel, f"the kernel, {kernel.shape[0]} × {kernel.shape[1]}")
    return figure


def flexconv_look_ahead() -> Figure:
    """Size and loss of a layer that starts too small, with and without look-ahead."""
    figure, (left, right) = style.panels(2, columns=2, height=2.7)
    for color, ahead in ((ORANGE, 0), (BLUE, 4)):
        sizes, losses = _mean_of_thirteen(ahead)
        left.plot(sizes, color=color, linewidth=1.4, label=f"look_ahead={ahead}")
        right.plot(_smooth(losses), color=color, linewidth=1.4)
    left.axhline(13, color=style.AXIS, linestyle="--", linewidth=0.8)
    left.text(400, 12.4, "taps of the target", color=style.INK, fontsize=8, ha="right", va="top")
    left.legend(frameon=False, fontsize=8, labelcolor=style.INK)
    left.set(title="Size", xlabel="step", ylabel="taps", ylim=(0, None))
    right.set(title="Loss, mean of 20 steps", xlabel="step", ylabel="squared error", yscale="log")
    return _clean(figure)


def _mean_of_thirteen(look_ahead: int) -> tuple[list[int], list[float]]:
    """Learn the mean of the last 13 samples, from 3 taps."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"init_size": 3, "causal": True, "look_ahead": look_ahead}
    layer = sizeless.FlexConv1d(1, 1, kernel_size=65, **options)
    optimizer = torch.optim.Adam(sizeless.param_groups(layer, lr=0.01, size_lr=0.03))
    sizes, losses = [], []
    for _ in range(401):
        signal = torch.randn(8, 1, 128)
        target = 13**0.5 * F.avg_pool1d(F.pad(signal, (12, 0)), 13, stride=1)
        loss = F.mse_loss(layer(signal), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sizes.append(layer.size[0])
        losses.append(float(loss.detach()))
    return sizes, losses


def flexconv_frequency() -> Figure:
    """A kernel above the Nyquist frequency of its taps, and one below, between the taps."""
    figure, panels = style.panels(2, columns=2, height=2.7)
    fine = torch.linspace(-1, 1, 1601)
    for axes, scale in zip(panels, (25.6, 4.0), strict=True):
        torch.manual_seed(129)

        def make(*args: Any, scale: float = scale, **options: Any) -> sizeless.kernels.MAGNet:
            return sizeless.kernels.MAGNet(*args, input_scale=scale, **options)

        layer = sizeless.FlexConv1d(1, 1, kernel_size=TAPS, init_size=25, kernel=make)
        taps = coordinate_axis(TAPS, *layer.window.bounds()[0], fine)
        with torch.no_grad():
            values = layer.kernel(fine[:, None])[:, 0] * layer.window([fine])
            bound = float(layer.kernel.max_frequency() + layer.window.max_frequency())
            axes.plot(fine, values, color=style.CONTROL, linewidth=0.9)
            axes.plot(taps, layer.weight[0, 0], "o", color=BLUE, markersize=3.5)
        nyquist = layer.nyquist()[0]
        title = f"input_scale {scale:g}: up to {bound:.1f} cycles, taps hold {nyquist:g}"
        axes.set(title=title, xlabel="coordinate r", ylabel="kernel", xlim=(-0.85, 0.85))
    return _clean(figure)


def niff_filter() -> Figure:
    """Both networks over frequency, the part that acts, and the kernel that it is."""
    layer, size = _fitted_niff(), (28, 28)
    shifted = torch.fft.fftshift(layer.frequencies(size), dim=(0, 1))
    with torch.no_grad():
        real, imag = layer.real(shifted)[..., 0], layer.imag(shifted)[..., 0]
        kernel = layer.spatial_kernel(size)[0, 0]
        acting = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(kernel)))
    figure, panels = style.panels(4, columns=4, height=2.5)
    _image(panels[0], real, "real network $f_R$")
    _image(panels[1], imag, "imaginary network $f_I$")
    _image(panels[2], acting.abs(), "what acts, $|\\hat W_H|$", cmap="Greys", low=0.0)
    _image(panels[3], kernel, "the kernel in space")
    for axes in panels[:3]:
        axes.set_xlabel("cycles per map")
    panels[3].set_xlabel("samples")
    return _clean(figure, frame=True)


def niff_maps() -> Figure:
    """One filter on maps of four sizes, in both units of frequency."""
    per_map = _fitted_niff()
    per_pixel = sizeless.NIFFConv2d(1, 1, frequency_unit="cycles/pixel")
    per_pixel.load_state_dict(per_map.state_dict())
    with torch.no_grad():
        for network in (per_pixel.real, per_pixel.imag):
            network.linears[0].weight.mul_(28)  # the same filter on a map of 28
    figure, panels = style.panels(8, columns=4, height=2.4)
    for place, side in enumerate((14, 28, 42, 56)):
        for row, (layer, unit) in enumerate(((per_map, "map"), (per_pixel, "pixel"))):
            with torch.no_grad():
                kernel = layer.spatial_kernel(side)[0, 0]
            _image(panels[4 * row + place], kernel, f"{side} px, cycles/{unit}")
    return figure


def _fitted_niff() -> sizeless.NIFFConv2d:
    """A filter of one channel, fitted to a Gabor patch on a map of 28 pixels."""
    layer = _niff(2)
    rows, columns = torch.meshgrid(*[torch.arange(28.0) - 14] * 2, indexing="ij")
    angle = torch.tensor(35.0).deg2rad()
    along = angle.cos() * columns + angle.sin() * rows
    across = angle.cos() * rows - angle.sin() * columns
    target = (-0.5 * ((along / 3.2) ** 2 + (across / 1.6) ** 2)).exp()
    target *= (2 * torch.pi * across / 6 + 1).cos()
    with torch.no_grad():
        for network in (layer.real, layer.imag):
            network.linears[0].weight.mul_(0.3)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=300, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = (layer.spatial_kernel(28)[0, 0] - target).square().mean()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return layer


def niff_untrained() -> Figure:
    """Share of the magnitude of fresh kernels within a centred window."""
    figure, (axes,) = style.panels(1, columns=1, height=2.9)
    figure.set_size_inches(6.0, 2.9)
    for color, side in zip(style.shades(4), (7, 14, 28, 56), strict=True):
        curves = [_mass_within(_niff(seed, 64), side) for seed in range(10)]
        windows = np.arange(1, side + 1, 2)
        axes.plot(windows, np.mean(curves, axis=0), "o-", color=color, markersize=3, linewidth=1.2)
        label = f"map of {side}"
        axes.plot([], [], color=color, label=label)
    axes.set_xlim(0, 30)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, fontsize=8, labelcolor=style.INK, loc="lower right")
    title = "Nothing was trained here"
    axes.set(title=title, xlabel="side of the window, samples", ylabel="share of the magnitude")
    return _clean(figure)


def _mass_within(layer: sizeless.NIFFConv2d, side: int) -> list[float]:
    with torch.no_grad():
        kernel = layer.spatial_kernel(side).abs()[:, 0]
    away = (torch.arange(side) - side // 2).abs()
    distance = torch.maximum(away[:, None], away[None])
    total = kernel.sum((1, 2))
    shares = [(kernel * (distance <= n // 2)).sum((1, 2)) / total for n in range(1, side + 1, 2)]
    return [float(share.mean()) for share in shares]


def _niff(seed: int, channels: int = 1) -> sizeless.NIFFConv2d:
    torch.manual_seed(seed)
    return sizeless.NIFFConv2d(channels, channels, groups=channels)


def diffstride_window() -> Figure:
    """Windows of both rules over frequency, at three strides."""
    figure, panels = style.panels(2, columns=2, height=2.9)
    for axes, rule in zip(panels, ("paper", "exact"), strict=True):
        for color, stride in zip((BLUE, GREEN, ORANGE), (1.5, 2.0, 4.0), strict=True):
            layer = sizeless.DiffStride1d(stride, size_rule=rule)
            edge, ramp = 64 / (2 * stride), 4.0
            if rule == "exact":
                ramp = max(0.25 * edge, 1.0)
                edge -= ramp
            window = low_pass_window(33, edge, ramp, torch.zeros(1))
            label = f"S = {stride:g}: 64 → {layer.output_size(64)[0]} samples"
            axes.plot(window, "o-", color=color, markersize=2.5, linewidth=1.3, label=label)
            axes.axvline(32 / stride, color=color, linestyle=":", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8, labelcolor=style.INK)
        axes.set(title=f'size_rule="{rule}"', xlabel="frequency k, cycles per map", ylabel="m(k)")
        axes.set(ylim=(-0.04, 1.45), yticks=(0, 0.5, 1))
    return _clean(figure)


def diffstride_image() -> Figure:
    """One photograph, made smaller in seven ways."""
    photo = _photograph()
    ways: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("as it is", lambda x: x),
        ("every 4th pixel", lambda x: x[..., ::4, ::4]),
        ("average pool of 4", lambda x: F.avg_pool2d(x, 4)),
        ("SpectralPool2d(4)", sizeless.SpectralPool2d(4.0)),
        ("DiffStride, exact, S = 4", sizeless.DiffStride2d(4.0, size_rule="exact")),
        ("DiffStride, exact, S = 2.6", sizeless.DiffStride2d(2.6, size_rule="exact")),
        ("DiffStride, exact, S = 5.7", sizeless.DiffStride2d(5.7, size_rule="exact")),
        ("DiffStride, paper, S = 4", sizeless.DiffStride2d(4.0)),
    ]
    figure, panels = style.panels(8, columns=4, height=2.45)
    for axes, (name, way) in zip(panels, ways, strict=True):
        with torch.no_grad():
            small = way(photo)[0, 0]
        axes.imshow(small.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}\n{small.shape[0]} × {small.shape[1]}", color=style.INK, fontsize=8)
        axes.set_axis_off()
    return figure


def _photograph() -> Tensor:
    """A part of a photograph with fine texture, in levels of grey, ``(1, 1, 192, 192)``."""
    from sklearn.datasets import load_sample_image

    pixels = torch.from_numpy(load_sample_image("china.jpg").copy()).float().mean(-1) / 255
    return pixels[120:312, 250:442][None, None]


def diffstride_sizes() -> Figure:
    """Size of the output against the stride, for both rules."""
    figure, panels = style.panels(2, columns=2, height=2.9)
    strides = np.linspace(1, 5, 801)
    for axes, size in zip(panels, (32, 64), strict=True):
        for color, rule in ((ORANGE, "paper"), (BLUE, "exact")):
            layers = (sizeless.DiffStride1d(float(s), size_rule=rule) for s in strides)
            sizes = [layer.output_size(size)[0] for layer in layers]
            axes.plot(strides, sizes, color=color, linewidth=1.3, label=f'size_rule="{rule}"')
        axes.plot(strides, size / strides, ":", color=style.INK, linewidth=1, label="D / S")
        axes.legend(frameon=False, fontsize=8, labelcolor=style.INK)
        axes.set(title=f"A map of {size} samples", xlabel="stride S", ylabel="samples left")
        axes.set_ylim(0, None)
    return _clean(figure)


def _smooth(values: list[float]) -> np.ndarray:
    padded = np.pad(values, (0, 19), mode="edge")
    return np.convolve(padded, np.full(20, 0.05), mode="valid")


def _image(
    axes: Any, values: Tensor, title: str, cmap: str | None = None, low: float | None = None
) -> None:
    """Draw values over positions relative to the middle, on a scale that is symmetric about 0."""
    peak = float(values.abs().max())
    height, width = values.shape
    axes.imshow(
        values.numpy(),
        cmap=cmap or style.DIVERGING,
        vmin=-peak if low is None else low,
        vmax=peak,
        interpolation="nearest",
        extent=(
            -(width // 2) - 0.5,
            width - width // 2 - 0.5,
            height - height // 2 - 0.5,
            -(height // 2) - 0.5,
        ),
    )
    axes.set_title(title, color=style.INK, fontsize=8)
    axes.tick_params(color=style.AXIS, labelcolor=style.INK, labelsize=7)
    for spine in axes.spines.values():
        spine.set_color(style.FAINT)


def _clean(figure: Figure, *, frame: bool = False) -> Figure:
    for axes in figure.axes:
        if not frame:
            style.clean(axes)
        axes.title.set(fontsize=9)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=style.INK, fontsize=8)
    return figure


FIGURES: tuple[Callable[[], Figure], ...] = (
    flexconv_window,
    flexconv_kernel,
    flexconv_look_ahead,
    flexconv_frequency,
    niff_filter,
    niff_maps,
    niff_untrained,
    diffstride_window,
    diffstride_image,
    diffstride_sizes,
)


def draw(folder: Path = FOLDER) -> list[Path]:
    """Draw all pictures into a folder, and return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with torch.random.fork_rng():
        for make in FIGURES:
            path = folder / f"theory_{make.__name__}.png"
            # No version of matplotlib in the file: the same picture is the same bytes.
            make().savefig(path, dpi=110, metadata={"Software": None})
            paths.append(path)
    return paths


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:2]))
