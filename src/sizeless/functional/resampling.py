"""Spectral resizing: low-pass, crop or extend the spectrum, and transform back.

The whole operation is linear and separable, so it is one small real matrix per axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sizeless._validate import (
    float_tuple,
    int_tuple,
    number,
    one_of,
    positive_int,
    real_tensor,
)
from sizeless.functional.constants import constant
from sizeless.functional.direct import CONVOLUTIONS
from sizeless.functional.fft import no_autocast, result_dtype, spectral_dtype
from sizeless.functional.limits import ramp
from sizeless.functional.operands import has_channels_last, spatial_dims
from sizeless.functional.resampled import correlate_resampled, pays
from sizeless.functional.separable import along
from sizeless.functional.waves import from_waves, to_waves, waves

AMPLITUDES = ("mean", "sum")
METHODS = ("auto", "matrix", "fft")

MATRIX_LIMIT = 160
"""Longest axis for which ``auto`` takes the matrix: beyond it the FFT does less work."""

Edge = float | Sequence[float] | Tensor | None


def low_pass_window(
    frequencies: int, cutoff: Tensor | float, transition: Tensor | float, like: Tensor
) -> Tensor:
    r"""Weights of the frequencies 0, 1, ..., ``frequencies - 1`` (cycles per map) of one axis.

    $$
    m_k = \operatorname{ramp}\big((c + t - k) / t\big), \qquad m_0 = 1
    $$

    Args:
        frequencies: How many frequencies, counted from 0.
        cutoff: End of the pass band $c$, in cycles per map.
        transition: Width of the linear ramp $t$, in cycles per map.
        like: Tensor that gives dtype and device.

    Returns:
        Tensor of shape ``(frequencies,)``, differentiable in ``cutoff`` and ``transition``.

    Raises:
        TypeError: If ``frequencies`` is no int, an edge no number, or a tensor not floating-point.
        ValueError: If a count, number or shape is out of range. The values of tensors are not read.

    Examples:
        >>> import torch
        >>> low_pass_window(6, 2.0, 2.0, torch.zeros(1))
        tensor([1.0000, 1.0000, 1.0000, 0.5000, 0.0000, 0.0000])
    """
    positive_int("frequencies", frequencies)
    real_tensor("like", like)
    _check_edge("cutoff", cutoff)
    _check_edge("transition", transition, above=0)
    cycles = torch.arange(1, frequencies, dtype=like.dtype, device=like.device)
    weights = ramp((cutoff + transition - cycles) / transition).to(like.dtype)
    return torch.cat([torch.ones(1, dtype=like.dtype, device=like.device), weights])


def _check_edge(name: str, value: Tensor | float, above: float = -math.inf) -> None:
    if not isinstance(value, Tensor):
        number(name, value, above=above)
    elif real_tensor(name, value).dim() > 1 or value.numel() != 1:
        raise ValueError(
            f"{name} must hold one number, got a tensor of shape {tuple(value.shape)}; make one "
            "window per axis"
        )


def _count(size: int, output_size: int) -> int:
    """How many waves of an axis of ``size`` samples a resampling keeps."""
    return min(2 * (min(size, output_size) // 2) + 1, size)


def _plain_gains(
    sizes: tuple[int, ...],
    output_sizes: tuple[int, ...],
    amplitude: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Factor of every kept wave of every axis where there is no window; beyond, 0."""
    pairs = list(zip(sizes, output_sizes, strict=True))
    rows = []
    for size, output_size in pairs:
        factor = math.sqrt(output_size / size if amplitude == "mean" else size / output_size)
        row = [factor] * _count(size, output_size)
        if len(row) == size and size % 2 == 0:
            row[-1] /= 2
        rows.append(row + [0.0] * (max(_count(*pair) for pair in pairs) - len(row)))
    return torch.tensor(rows, dtype=dtype, device=device)


def _cycles(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cycles per map of every wave but the constant."""
    return ((torch.arange(1, count, device=device) + 1) // 2).to(dtype)


def _matrix(gain: Tensor, size: int, output_size: int) -> Tensor:
    count, dtype, device = len(gain), gain.dtype, gain.device
    there = waves(size, count, dtype, device)
    back = waves(output_size, count, dtype, device)
    with no_autocast(device.type):
        return (back * gain[:, None]).t() @ there


def resampling_matrix(
    size: int,
    output_size: int,
    *,
    window: Tensor | None = None,
    amplitude: str = "mean",
    like: Tensor | None = None,
) -> Tensor:
    r"""Real matrix that resizes one axis from ``size`` to ``output_size`` samples.

    $$
    A_{qp} = \frac{1}{n} \sum_{k=0}^{K} c_k\, m_k
    \cos 2\pi k \Big(\frac{q}{n'} - \frac{p}{n}\Big), \qquad
    K = \lfloor \min(n, n') / 2 \rfloor
    $$

    with $c_0 = 1$, $c_k = 2$, and $c_{n/2} = 1$ for even $n$: the samples
    of the band-limited interpolant of the input at the new positions. See ``resample``.

    Args:
        size: Samples of the input $n$.
        output_size: Samples of the output $n'$.
        window: Weights $m_k$ of shape ``(K + 1,)``, or ``None`` for 1.
        amplitude: ``"mean"`` or ``"sum"``, see ``resample``.
        like: Tensor that gives dtype and device; default: ``window``, else float32 on the CPU.

    Returns:
        Tensor of shape ``(output_size, size)``, differentiable in ``window``.

    Raises:
        TypeError: If a size is no int, or ``window`` or ``like`` no floating-point tensor.
        ValueError: If a size is below 1, ``window`` has another shape, or the amplitude is unknown.

    Examples:
        >>> resampling_matrix(4, 2).sum(dim=1).round(decimals=4)
        tensor([1., 1.])
    """
    highest = min(positive_int("size", size), positive_int("output_size", output_size)) // 2
    one_of("amplitude", amplitude, AMPLITUDES)
    if window is not None and tuple(real_tensor("window", window).shape) != (highest + 1,):
        raise ValueError(
            f"window must have one weight for each of the frequencies 0 to {highest}, got shape "
            f"{tuple(window.shape)}; make it with low_pass_window({highest + 1}, ...)"
        )
    if like is None:
        like = torch.zeros(()) if window is None else window
    real_tensor("like", like)
    gain = constant(_plain_gains, (size,), (output_size,), amplitude, like.dtype, like.device)[0]
    if window is not None:
        gain = gain * window.repeat_interleave(2)[1 : len(gain) + 1]
    return _matrix(gain, size, output_size)


class Resampling:
    """A resampling of maps of one size, set up once and applied to any number of tensors.

    Args:
        sizes: Spatial size of the maps.
        output_sizes: Spatial size of the results.
        window: End and width of the low-pass ramp in cycles per map, ``(ndim,)`` each, or ``None``.
        amplitude: ``"mean"`` or ``"sum"``, see ``resample``.
        method: ``"auto"``, ``"matrix"`` or ``"fft"``.
        dtype: float32, or float64 for maps in float64: matrices are never built in less.
        device: Where the maps are.
        keep: Whether to keep matrices for the next call. Not where they need a gradient.

    Attributes:
        gains: For each axis the factor of every wave that is kept, differentiable in the window;
            ``None`` for an axis that stays as it is.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        output_sizes: tuple[int, ...],
        window: tuple[Tensor, Tensor] | None,
        *,
        amplitude: str,
        method: str,
        dtype: torch.dtype,
        device: torch.device,
        keep: bool = False,
    ) -> None:
        self.sizes, self.output_sizes = sizes, output_sizes
        self.amplitude, self.method = amplitude, method
        gains = constant(_plain_gains, sizes, output_sizes, amplitude, dtype, device)
        if window is not None:
            end, width = window
            cycles = constant(_cycles, gains.shape[1], dtype, device)
            weights = ramp((end[:, None] - cycles) / width[:, None]).to(dtype)
            gains = torch.cat([gains[:, :1], gains[:, 1:] * weights], dim=1)
        self.gains: list[Tensor | None] = [
            None if window is None and size == output_size else gain[: _count(size, output_size)]
            for size, output_size, gain in zip(sizes, output_sizes, gains.unbind(), strict=True)
        ]
        self._kept: dict[tuple[int, torch.dtype], Tensor] | None = {} if keep else None

    def __call__(self, input: Tensor) -> Tensor:
        """Resample ``(N, C, *sizes)`` to ``(N, C, *output_sizes)``."""
        if all(gain is None for gain in self.gains):
            return input
        last = has_channels_last(input)
        output = input.movedim(1, -1) if last else input
        for i in range(len(self.sizes)):
            output = self._resize(output, i, i - len(self.sizes) - last)
        return output.movedim(-1, 1) if last else output

    def _resize(self, input: Tensor, i: int, axis: int) -> Tensor:
        size, output_size, gain = self.sizes[i], self.output_sizes[i], self.gains[i]
        if gain is None:
            return input
        dtype = result_dtype(input)
        if self._takes_matrix(i):
            return along(input.to(dtype), self._matrix(i, gain, dtype), axis)
        gain = gain[: min(size, output_size)]
        amplitudes = to_waves(input.to(gain.dtype), len(gain), axis)
        amplitudes = amplitudes * gain.reshape(-1, *[1] * (-1 - axis))
        return from_waves(amplitudes, output_size, axis).to(dtype)

    def _takes_matrix(self, i: int) -> bool:
        longest = max(self.sizes[i], self.output_sizes[i])
        return self.method == "matrix" or (self.method == "auto" and longest <= MATRIX_LIMIT)

    def after_convolution(self, input: Tensor, weight: Tensor) -> Tensor:
        """Convolve, with zeros around the map so that it keeps its size, and resample the output.

        In one step where that should be faster.

        Args:
            input: ``(N, C, *sizes)``.
            weight: ``(out, C, *kernel)`` with odd sizes.
        """
        kernel = tuple(weight.shape[2:])
        gains = [
            gain for i, gain in enumerate(self.gains) if gain is not None and self._takes_matrix(i)
        ]
        channels = weight.shape[1], weight.shape[0]
        if len(gains) < len(kernel) or not pays(self.sizes, self.output_sizes, kernel, *channels):
            return self(CONVOLUTIONS[len(kernel)](input, weight, padding="same"))
        dtype = result_dtype(input)
        matrices = [self._matrix(i, gain, dtype) for i, gain in enumerate(gains)]
        with no_autocast(input.device.type):
            return correlate_resampled(input.to(dtype), weight.to(dtype), matrices)

    def matrices(self, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
        """The matrix ``(output_size, size)`` of each axis, ``None`` for one that stays as it is."""
        return [
            None if gain is None else self._matrix(i, gain, dtype)
            for i, gain in enumerate(self.gains)
        ]

    def _matrix(self, i: int, gain: Tensor, dtype: torch.dtype) -> Tensor:
        if self._kept is None:
            return _matrix(gain, self.sizes[i], self.output_sizes[i]).to(dtype)
        if (i, dtype) not in self._kept:
            # A tensor made in inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                matrix = _matrix(gain, self.sizes[i], self.output_sizes[i])
                self._kept[i, dtype] = matrix.to(dtype)
        return self._kept[i, dtype]


def _edges(name: str, value: Edge, ndim: int, like: Tensor) -> Tensor | None:
    """The edge of each axis as a tensor ``(ndim,)``."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        if real_tensor(name, value).dim() > 1 or (value.dim() == 1 and len(value) not in (1, ndim)):
            raise ValueError(
                f"{name} must hold one number or {ndim}, got a tensor of shape {tuple(value.shape)}"
            )
        return value.to(like).expand(ndim)
    edges = float_tuple(name, value, ndim)
    if name == "transition" and min(edges) <= 0:
        raise ValueError(f"transition must be above 0 cycles per map, got {value!r}")
    return like.new_tensor(edges)


def _window(
    cutoff: Edge, transition: Edge, ndim: int, like: Tensor
) -> tuple[Tensor, Tensor] | None:
    """End and width of the ramp of each axis."""
    low, width = _edges("cutoff", cutoff, ndim, like), _edges("transition", transition, ndim, like)
    if low is None and width is None:
        return None
    if low is None or width is None:
        raise ValueError(
            "cutoff and transition describe one low-pass window: give both or neither, got "
            f"cutoff={cutoff!r} and transition={transition!r}"
        )
    return low + width, width


def resample(
    input: Tensor,
    output_size: int | Sequence[int],
    *,
    cutoff: Edge = None,
    transition: Edge = None,
    amplitude: str = "mean",
    method: str = "auto",
) -> Tensor:
    r"""Resize a map in the frequency domain, up or down, to any size.

    Along each axis, with $X$ the discrete Fourier transform of the input,

    $$
    y_q = \frac{1}{n} \sum_{|k| \le K} m_{|k|}\, X_k\, e^{2 \pi i k q / n'},
    \qquad K = \lfloor \min(n, n') / 2 \rfloor,
    $$

    the band-limited interpolant of the input, low-passed and sampled at the new positions.
    Separable and linear; equal on every axis.

    *Nyquist.* The Nyquist component of an even input counts half at $+n/2$ and half at
    $-n/2$. A smaller even output takes the sum of both of its edge frequencies, the value
    of the interpolant at its samples. So enlarging and then shrinking gives the input back, and
    the result equals ``scipy.signal.resample``.

    *Amplitude.* ``"mean"`` keeps the mean of the map: a constant stays what it was. ``"sum"``
    keeps its sum, as an inverse transform of the cropped spectrum does (Rippel et al. 2015,
    DiffStride): it multiplies by $n / n'$ on every axis.

    *Window.* With ``cutoff`` $c$ and ``transition`` $t$ (cycles per map) each
    frequency has the weight $m_k = \operatorname{ramp}((c + t - k) / t)$: 1 up to
    $c$, 0 from $c + t$. Both may be tensors that need a gradient.

    Args:
        input: Tensor of shape ``(N, C, *spatial)`` with one to three spatial axes.
        output_size: New spatial size; one int serves every axis.
        cutoff: End of the pass band in cycles per map: a number, one per axis, or a tensor of
            shape ``()``, ``(1,)`` or ``(ndim,)``. ``None``: no window.
        transition: Width of the ramp in cycles per map, like ``cutoff``.
        amplitude: ``"mean"`` or ``"sum"``.
        method: ``"matrix"`` (one real matrix product per axis), ``"fft"``, or ``"auto"``, which
            takes the matrix for axes of up to 160 samples.

    Returns:
        Tensor of shape ``(N, C, *output_size)`` in the memory layout of ``input``, and of its dtype
        (under ``torch.autocast``: the dtype of a convolution).

    Raises:
        TypeError: If a tensor is not floating-point or ``output_size`` holds no ints.
        ValueError: If a shape, size, window or name is out of range. The values of tensors are not
            read.

    Source: Rippel et al. 2015, arXiv 1506.03767; Riad et al. 2022, arXiv 2202.01653, section 2.

    Examples:
        >>> import torch
        >>> resample(torch.ones(1, 3, 32, 28), (16, 21)).shape
        torch.Size([1, 3, 16, 21])
    """
    ndim = spatial_dims(input)
    sizes = int_tuple("output_size", output_size, ndim)
    one_of("amplitude", amplitude, AMPLITUDES)
    one_of("method", method, METHODS)
    dtype = spectral_dtype(input)
    like = torch.empty(0, dtype=dtype, device=input.device)
    resampling = Resampling(
        tuple(input.shape[2:]),
        sizes,
        _window(cutoff, transition, ndim, like),
        amplitude=amplitude,
        method=method,
        dtype=dtype,
        device=input.device,
    )
    return resampling(input)
