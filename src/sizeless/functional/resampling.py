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
from sizeless.functional.fft import irfftn, no_autocast, result_dtype, rfftn, spectral_dtype
from sizeless.functional.limits import ramp
from sizeless.functional.operands import keep_layout, spatial_dims

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
    k = torch.arange(1, frequencies, dtype=like.dtype, device=like.device)
    weights = ramp((cutoff + transition - k) / transition)
    return torch.cat([torch.ones(1, dtype=like.dtype, device=like.device), weights.to(like.dtype)])


def _check_edge(name: str, value: Tensor | float, above: float = -math.inf) -> None:
    if not isinstance(value, Tensor):
        number(name, value, above=above)
    elif real_tensor(name, value).dim() > 1 or value.numel() != 1:
        raise ValueError(
            f"{name} must hold one number, got a tensor of shape {tuple(value.shape)}; make one "
            "window per axis"
        )


def _axis_weights(
    size: int, output_size: int, window: Tensor | None, amplitude: str, like: Tensor
) -> Tensor:
    """Weight of each frequency 0..K in the sum of cosines that is the resampling matrix."""
    highest = min(size, output_size) // 2
    weights = torch.full((highest + 1,), 2.0, dtype=like.dtype, device=like.device)
    weights[0] = 1.0
    if size % 2 == 0 and highest == size // 2:
        weights[highest] = 1.0
    if window is not None:
        weights = weights * window
    return weights * (1.0 / output_size if amplitude == "sum" else 1.0 / size)


def _phases(size: int, frequencies: int, like: Tensor) -> Tensor:
    """Angles 2 pi k n / size, reduced modulo one turn in integers so that they stay exact."""
    k = torch.arange(frequencies, device=like.device)
    n = torch.arange(size, device=like.device)
    return torch.outer(k, n).remainder(size).to(like.dtype) * (2 * math.pi / size)


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
        >>> resampling_matrix(4, 2).sum(dim=1)
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
    weights = _axis_weights(size, output_size, window, amplitude, like)
    p = _phases(size, len(weights), like)
    q = _phases(output_size, len(weights), like)
    with no_autocast(like.device.type):
        even = (q.cos() * weights[:, None]).T @ p.cos()
        return even + (q.sin() * weights[:, None]).T @ p.sin()


def _resample_axis_matrix(
    input: Tensor, axis: int, output_size: int, window: Tensor | None, amplitude: str, like: Tensor
) -> Tensor:
    matrix = resampling_matrix(
        input.shape[axis], output_size, window=window, amplitude=amplitude, like=like
    ).to(input.dtype)
    if axis == input.dim() - 1:
        return input @ matrix.T
    output = matrix @ input.flatten(axis + 1)
    return output.unflatten(-1, input.shape[axis + 1 :])


def _resample_axis_fft(
    input: Tensor, axis: int, output_size: int, window: Tensor | None, amplitude: str, like: Tensor
) -> Tensor:
    size = input.shape[axis]
    weights = _axis_weights(size, output_size, window, amplitude, like)
    # irfft already counts each interior frequency twice and divides by its length.
    counted = torch.full_like(weights, 2.0)
    counted[0] = 1.0
    if output_size % 2 == 0 and len(weights) - 1 == output_size // 2:
        counted[-1] = 1.0
    weights = weights * output_size / counted
    with no_autocast(input.device.type):
        spectrum = rfftn(input.transpose(axis, -1).to(like.dtype), [size], [-1])[
            ..., : len(weights)
        ]
        real, imag = spectrum.real * weights, spectrum.imag * weights
        if output_size % 2 == 0 and len(weights) - 1 == output_size // 2:
            # The output's Nyquist bin is real; an imaginary part would mean different things to
            # different FFT libraries.
            imag = torch.cat([imag[..., :-1], torch.zeros_like(imag[..., -1:])], dim=-1)
        output = irfftn(torch.complex(real, imag), [output_size], [-1])
    return output.to(result_dtype(input)).transpose(axis, -1).contiguous()


def _edges(name: str, value: Edge, ndim: int) -> list[Tensor | float] | None:
    if value is None:
        return None
    if isinstance(value, Tensor):
        if real_tensor(name, value).dim() > 1 or (value.dim() == 1 and len(value) not in (1, ndim)):
            raise ValueError(
                f"{name} must hold one number or {ndim}, got a tensor of shape {tuple(value.shape)}"
            )
        return list(value.expand(ndim).unbind())
    return list(float_tuple(name, value, ndim))


def _check_edges(
    cutoff: Edge, transition: Edge, ndim: int
) -> list[tuple[Tensor | float, Tensor | float]]:
    cutoffs, transitions = _edges("cutoff", cutoff, ndim), _edges("transition", transition, ndim)
    if cutoffs is None and transitions is None:
        return []
    if cutoffs is None or transitions is None:
        raise ValueError(
            "cutoff and transition describe one low-pass window: give both or neither, got "
            f"cutoff={cutoff!r} and transition={transition!r}"
        )
    for value in transitions:
        if not isinstance(value, Tensor) and not value > 0:
            raise ValueError(f"transition must be above 0 cycles per map, got {transition!r}")
    return list(zip(cutoffs, transitions, strict=True))


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
    edges = _check_edges(cutoff, transition, ndim)
    # Windows and matrices are never built in half precision.
    like = torch.zeros((), dtype=spectral_dtype(input), device=input.device)
    output = input
    for axis, size in enumerate(sizes, start=2):
        length = input.shape[axis]
        if size == length and not edges:
            continue
        window = None
        if edges:
            cut, ramp_width = edges[axis - 2]
            window = low_pass_window(min(size, length) // 2 + 1, cut, ramp_width, like)
        by_matrix = method == "matrix" or (method == "auto" and max(size, length) <= MATRIX_LIMIT)
        step = _resample_axis_matrix if by_matrix else _resample_axis_fft
        output = step(output, axis, size, window, amplitude, like)
    return keep_layout(output, input)
