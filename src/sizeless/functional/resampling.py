"""Spectral resizing: low-pass, crop or extend the spectrum, and transform back.

The whole operation is linear and separable, so it is one small real matrix per axis.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from sizeless._validate import float_tuple, int_tuple, one_of, positive_int, real_tensor
from sizeless.functional.constants import constant, tensors_last
from sizeless.functional.direct import CONVOLUTIONS
from sizeless.functional.fft import no_autocast, result_dtype, spectral_dtype
from sizeless.functional.low_pass import (
    all_waves,
    count_waves,
    plain_gains,
    waves_on_ramp,
    windowed,
)
from sizeless.functional.operands import has_channels_last, spatial_dims
from sizeless.functional.resampled import correlate_resampled, pays
from sizeless.functional.separable import Waves, along, along_waves
from sizeless.functional.waves import from_waves, to_waves, waves

AMPLITUDES = ("mean", "sum")
METHODS = ("auto", "matrix", "fft")

MATRIX_LIMIT = 160
"""Longest axis for which ``auto`` takes the matrix: beyond it the FFT does less work."""

Edge = float | Sequence[float] | Tensor | None


def _waves(size: int, output_size: int, dtype: torch.dtype, device: torch.device) -> Waves:
    count = count_waves(size, output_size)
    there, back = (waves(n, count, dtype, device) for n in (size, output_size))
    return Waves(there, back, all_waves(count, device))


def _plain_matrix(
    size: int, output_size: int, amplitude: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The matrix of an axis where there is no window."""
    gain = plain_gains((size,), (output_size,), amplitude, dtype, device)[0]
    return _waves(size, output_size, dtype, device).matrix(gain)


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
    gain = constant(plain_gains, (size,), (output_size,), amplitude, like.dtype, like.device)[0]
    if window is not None:
        gain = gain * window.repeat_interleave(2)[1 : len(gain) + 1]
    return _waves(size, output_size, like.dtype, like.device).matrix(gain)


def _may_learn(window: Sequence[Tensor]) -> bool:
    """Whether a gradient may be asked for; within a transformation it cannot be known."""
    return not tensors_last() or any(edge.requires_grad for edge in window)


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
        widest: Upper bound of the width of each ramp, where there is one: only the waves that it
            can hold are followed for the gradient of the window.
        keep: Whether to keep matrices for the next call. Not where they need a gradient.
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
        widest: Sequence[float] | None = None,
        keep: bool = False,
    ) -> None:
        self.sizes, self.output_sizes = sizes, output_sizes
        self.amplitude, self.method = amplitude, method
        self.dtype, self.device = dtype, device
        self._counts = list(map(count_waves, sizes, output_sizes))
        self._is_plain = window is None
        # Where no gradient is wanted, a matrix is all that a window comes to.
        self._learns = window is not None and torch.is_grad_enabled() and _may_learn(window)
        self._gains = constant(plain_gains, sizes, output_sizes, amplitude, dtype, device)
        self._learned: list[Tensor] | None = None
        if window is not None:
            self._gains = windowed(self._gains, *window)
            if self._learns and widest is not None:
                self._learned = waves_on_ramp(window, widest, self._counts)
        self._kept: dict[tuple[int, torch.dtype], Tensor] | None = {} if keep else None

    @property
    def gains(self) -> Tensor:
        """Gain of every kept wave of every axis, ``(ndim, waves)``; beyond, 0."""
        return self._gains

    def __call__(self, input: Tensor) -> Tensor:
        """Resample ``(N, C, *sizes)`` to ``(N, C, *output_sizes)``."""
        changed = [i for i in range(len(self.sizes)) if self._changes(i)]
        if not changed:
            return input
        last = has_channels_last(input)
        dtype, before = result_dtype(input), len(self.sizes) + last
        output = input.movedim(1, -1) if last else input
        by_matrix = [i for i in changed if self._takes_matrix(i)]
        if by_matrix and self._learns:
            gains = self._gains if len(by_matrix) == len(self.sizes) else self._gains[by_matrix]
            waves = [self._waves(i) for i in by_matrix]
            output = along_waves(output.to(dtype), gains, waves, [i - before for i in by_matrix])
        elif by_matrix:
            output = output.to(dtype)
            for i in by_matrix:
                output = along(output, self._matrix(i, dtype), i - before)
        for i in changed:
            if i not in by_matrix:
                output = self._by_transform(output, i, i - before)
        return output.movedim(-1, 1).to(dtype) if last else output.to(dtype)

    def _changes(self, i: int) -> bool:
        return not (self._is_plain and self.sizes[i] == self.output_sizes[i])

    def _by_transform(self, input: Tensor, i: int, axis: int) -> Tensor:
        output_size = self.output_sizes[i]
        gain = self._gains[i, : min(self._counts[i], output_size)]
        amplitudes = to_waves(input.to(gain.dtype), len(gain), axis)
        amplitudes = amplitudes * gain.reshape(-1, *[1] * (-1 - axis))
        return from_waves(amplitudes, output_size, axis)

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
        every = range(len(kernel))
        at_once = all(self._changes(i) and self._takes_matrix(i) for i in every)
        channels = weight.shape[1], weight.shape[0]
        if not at_once or not pays(self.sizes, self.output_sizes, kernel, *channels):
            return self(CONVOLUTIONS[len(kernel)](input, weight, padding="same"))
        dtype, waves = result_dtype(input), [self._waves(i) for i in every]
        with no_autocast(input.device.type):
            return correlate_resampled(input.to(dtype), weight.to(dtype), self._gains, waves)

    def matrices(self, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
        """The matrix ``(output_size, size)`` of each axis, ``None`` for one that stays as it is."""
        every = range(len(self.sizes))
        return [self._matrix(i, dtype) if self._changes(i) else None for i in every]

    def _waves(self, i: int) -> Waves:
        waves = _waves(self.sizes[i], self.output_sizes[i], self.dtype, self.device)
        return waves if self._learned is None else waves._replace(learned=self._learned[i])

    def _matrix(self, i: int, dtype: torch.dtype) -> Tensor:
        shape = self.sizes[i], self.output_sizes[i]
        if self._is_plain and max(shape) <= MATRIX_LIMIT:
            return constant(_plain_matrix, *shape, self.amplitude, self.dtype, self.device).to(
                dtype
            )
        if self._kept is None:
            return self._waves(i).matrix(self._gains[i]).to(dtype)
        if (i, dtype) not in self._kept:
            # A tensor made in inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                self._kept[i, dtype] = self._waves(i).matrix(self._gains[i]).to(dtype)
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
    new_sizes = int_tuple("output_size", output_size, ndim)
    one_of("amplitude", amplitude, AMPLITUDES)
    one_of("method", method, METHODS)
    dtype = spectral_dtype(input)
    like = torch.empty(0, dtype=dtype, device=input.device)
    resampling = Resampling(
        # A compiler makes one graph for each size of the maps.
        tuple(operator.index(size) for size in input.shape[2:]),
        tuple(operator.index(size) for size in new_sizes),
        _window(cutoff, transition, ndim, like),
        amplitude=amplitude,
        method=method,
        dtype=dtype,
        device=input.device,
    )
    return resampling(input)
