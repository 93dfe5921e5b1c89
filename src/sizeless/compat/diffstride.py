"""The layers of the DiffStride authors' TensorFlow program, to float precision.

Use these to reproduce published numbers or to run weights trained with that program. For new
networks prefer [`sizeless.DiffStride2d`][], whose window is symmetric and whose forward pass leaves
its parameters alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sizeless import _validate
from sizeless._precision import at_least_float32
from sizeless.functional.fft import no_autocast
from sizeless.nn.sized import SizeParameters, read_floats


def _clip(value: Tensor, low: float, high: float) -> Tensor:
    """Clip to ``[low, high]`` with gradient 1 inside and AT both limits, 0 outside.

    ``torch.clamp`` has gradient 0 at the limits in recent versions, TensorFlow has 1. It matters:
    a bin sits exactly on the ramp's end whenever ``D / (2 S)`` is an integer.
    """
    inside = (value >= low) & (value <= high)
    return torch.where(inside, value, value.detach().clamp(low, high))


def _row_positions(height: int) -> Tensor:
    """Return the ramp's position of every row, in DFT order (row 0 is the mean).

    The reference's list is symmetric about frequency -1/2, not 0: ``+k`` has position ``k`` and
    ``-k`` has ``k - 1``. An odd height's nonnegative frequencies are one bin further out: the mean
    has position 1 and ``+k`` has ``k + 1``, except the highest one, which keeps ``k``.
    """
    rows = torch.arange(height, device="cpu")
    return torch.where(rows < height // 2, rows + height % 2, height - 1 - rows)


def _inverse(spectrum: Tensor, width: int) -> Tensor:
    """Return the real map of ``width`` columns of a half spectrum that need not be Hermitian.

    The inverse runs over the rows first. Then only the real parts of the mean's column and, for
    an even ``width``, of the last one count. Their imaginary parts are dropped here, because FFT
    libraries disagree about what they do with them.
    """
    half = torch.fft.ifft(spectrum, dim=-2)
    weight = half.real.new_ones(half.shape[-1])
    weight[0] = 0
    if width % 2 == 0:
        weight[-1] = 0
    return torch.fft.irfft(torch.complex(half.real, half.imag * weight), n=width, dim=-1)


def _working_copy(input: Tensor) -> Tensor:
    """Return ``input`` in the precision of the computation: its own, and at least float32."""
    return input.to(at_least_float32(input.dtype))


def _like(output: Tensor, input: Tensor) -> Tensor:
    """Return ``output`` with the dtype and the memory format of ``input``."""
    channels_last = not input.is_contiguous() and input.is_contiguous(
        memory_format=torch.channels_last
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return output.to(input.dtype).contiguous(memory_format=memory_format)


def _empty(input: Tensor, height: int, width: int) -> Tensor:
    """Return the output for an empty batch, whose transform some builds of torch refuse."""
    return input.reshape(*input.shape[:2], height, width)


def _number(name: str, value: Any) -> float:
    """Return ``value`` if it is one finite number."""
    if isinstance(value, Sequence):
        raise TypeError(f"{name} must be one number for both axes, got {value!r}")
    return _validate.float_tuple(name, value, 1)[0]


def _initial_strides(stride: Any) -> tuple[float, ...]:
    """Return the two initial strides, each at least 1."""
    strides = _validate.float_tuple("stride", stride, 2)
    if min(strides) < 1:
        raise ValueError(
            f"stride must be at least 1 on every axis, got {stride!r}; "
            "these layers shrink a map, they cannot enlarge it"
        )
    return strides


def _spatial_size(input_size: int | Sequence[int], smallest: tuple[int, int]) -> tuple[int, int]:
    """Return ``(height, width)`` after checking that both are large enough."""
    height, width = _validate.int_tuple("input_size", input_size, 2)
    if height < smallest[0] or width < smallest[1]:
        raise ValueError(
            f"the map must be at least {smallest[0]} high and {smallest[1]} wide, got "
            f"{height} x {width}; pad it or leave this layer out"
        )
    return height, width


class OfficialDiffStride2d(SizeParameters):
    r"""DiffStride exactly as the authors' TensorFlow layer computes it.

    With the clipped strides $s_d$, the smoothness $R$ and a map of $D$ bins along axis $d$, the
    unnormalised spectrum is multiplied by one ramp per axis,

    $$m_d(p) = \mathrm{clip}\big((R + T_d - p) / R,\ 0,\ 1\big), \qquad
      T_h = \tfrac12 \max(H / s_h, 2), \quad T_w = \tfrac12 \max(W / s_w, 2) + 1,$$

    cropped to the bins where it is positive, and transformed back with the norm of the OUTPUT
    size, so a constant map is multiplied by $HW / (H'W')$. The output has about $H/S + 2R$ rows,
    see [`output_size`][sizeless.compat.diffstride.OfficialDiffStride2d.output_size].

    What the reference does and this layer therefore does too:

    - **The forward pass writes to the parameter**, in training and in evaluation: every call first
      raises ``strides`` in place to $D / (D - R)$ (no gradient), so that the ramp's foot stays
      within the spectrum. One small map is enough to change trained strides for good. An axis
      shorter than $R$ is not raised. No other layer of this library writes in ``forward``.
    - The rows' ramp is asymmetric about the mean, and shifted by one bin for an odd height; the
      columns' ramp starts one bin later. The two axes are not interchangeable.
    - Only the real parts of the mean's column and of the last kept column reach the output. The
      width of the output is even: an odd width loses at least one column.
    - Gradients are inclusive: a bin on the ramp's upper end, a stride on a limit and
      $D / s_d = 2$ pass the whole gradient. The crop passes none. Beyond $s_d = D / 2$, and
      strictly outside the limits, a stride's gradient is zero.

    Half-precision maps are computed in float32 and cast back; float64 maps in float64, with the
    ramps in the precision of ``strides`` (the reference casts everything to float32). Sizes depend
    on the values of ``strides``, so every call copies them to the CPU.

    Args:
        stride: initial stride, a number or ``(vertical, horizontal)``; each at least 1.
        smoothness: length $R$ of the ramp in frequency bins; above 0.
        crop: whether to drop the bins of weight zero. Without it the height is kept, and so is
            the width if it is even.
        shared: whether one number is the stride of both axes; the initial strides must be equal.
        min_stride: lower limit of both strides; ``None`` means 1.
        max_stride: upper limit of both strides; ``None`` means none. The in-place raise ignores
            it, the clip does not.
        device: where to put the parameter.

    Attributes:
        strides: the only parameter, float32 of shape ``(2,)``, (vertical, horizontal), or of
            shape ``(1,)`` when shared.

    Shape:
        - Input: ``(N, C, H, W)`` with ``W`` at least 2 and neither ``H`` nor ``W`` equal to $R$.
        - Output: ``(N, C, H', W')``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or a map is too small.

    Source: Riad, Teboul, Grangier and Zeghidour, "Learning strides in convolutional neural
    networks", ICLR 2022, Algorithm 1, in the form of the authors' program.

    Examples:
        >>> import torch
        >>> from sizeless.compat.diffstride import OfficialDiffStride2d
        >>> layer = OfficialDiffStride2d((2.0, 4.0))
        >>> layer(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 3, 40, 24])
    """

    def __init__(
        self,
        stride: float | Sequence[float] = 2.0,
        smoothness: float = 4.0,
        crop: bool = True,
        shared: bool = False,
        min_stride: float | None = None,
        max_stride: float | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        strides = _initial_strides(stride)
        if _validate.boolean("shared", shared) and strides[0] != strides[1]:
            raise ValueError(
                f"stride must be equal on both axes when shared=True, got {stride!r}; "
                "pass one number or shared=False"
            )
        self.smoothness = _number("smoothness", smoothness)
        if self.smoothness <= 0:
            raise ValueError(
                f"smoothness must be above 0, got {smoothness!r}; "
                "for a hard cut use OfficialSpectralPool2d"
            )
        self.min_stride = 1.0 if min_stride is None else _number("min_stride", min_stride)
        if self.min_stride < 1:
            raise ValueError(
                f"min_stride must be at least 1, got {min_stride!r}; pass None for no further limit"
            )
        self.max_stride = math.inf if max_stride is None else _number("max_stride", max_stride)
        if self.max_stride < self.min_stride:
            raise ValueError(
                f"max_stride must be at least min_stride ({self.min_stride}), got {max_stride!r}"
            )
        self.crop = _validate.boolean("crop", crop)
        self.shared = shared
        self.strides = nn.Parameter(
            torch.tensor(strides[: 1 if shared else 2], dtype=torch.float32, device=device)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return the resampled map; raises ``strides`` in place first, as the reference does."""
        _validate.feature_map("input", input, ndim=2)
        height, width = _spatial_size(input.shape[2:], (1, 2))
        self._raise_strides_(height, width)
        rows, columns = self._ramps(self.strides.cpu(), height, width)
        kept_rows, kept_columns = self._kept(rows), self._kept(columns)
        if not input.numel():
            return _empty(input, len(kept_rows), 2 * (len(kept_columns) - 1))
        with no_autocast(input.device.type):
            work = _working_copy(input)
            row_weight = rows[kept_rows].to(work)
            column_weight = columns[kept_columns].to(work)
            # Weights never grow along the columns, so the kept ones are the first ones.
            half = torch.fft.rfft(work, dim=-1)[..., : len(kept_columns)]
            spectrum = torch.fft.fft(half, dim=-2)[..., kept_rows.to(input.device), :]
            spectrum = spectrum * (row_weight[:, None] * column_weight)
            return _like(_inverse(spectrum, 2 * (len(kept_columns) - 1)), input)

    def output_size(self, input_size: int | Sequence[int]) -> tuple[int, int]:
        r"""Return the size that the next call gives a map of this size; changes no parameter.

        With $T_d = \tfrac12 \max(D / s_d, 2)$ on both axes:
        $H' = \min(H,\ 2 \lceil R + T_h \rceil - (H \bmod 2))$ and
        $W' = \min(2 \lfloor W / 2 \rfloor,\ 2 \lceil R + T_w \rceil)$. Without ``crop`` the first
        term of each alone.

        Args:
            input_size: height and width of the map; one int for a square map.

        Returns:
            Height and width of the output.

        Raises:
            TypeError: ``input_size`` does not hold ints.
            ValueError: the map is too small.

        Examples:
            >>> from sizeless.compat.diffstride import OfficialDiffStride2d
            >>> OfficialDiffStride2d(2.0).output_size((32, 31))
            (24, 24)
        """
        height, width = _spatial_size(input_size, (1, 2))
        strides = self.strides.detach().cpu()
        raised = torch.maximum(strides, self._bound(height, width, strides))
        rows, columns = self._ramps(raised, height, width)
        return len(self._kept(rows)), 2 * (len(self._kept(columns)) - 1)

    @torch.no_grad()
    def project_(self) -> None:
        """Clip ``strides`` to the limits in place; call it after every optimiser step.

        The reference declares this as a constraint of the variable, which its optimiser applies.
        """
        self.strides.clamp_(self.min_stride, self.max_stride)

    def extra_repr(self) -> str:
        """Return the strides and the settings for ``repr``."""
        return (
            f"strides={self.strides.tolist()}, smoothness={self.smoothness}, crop={self.crop}, "
            f"shared={self.shared}, min_stride={self.min_stride}, max_stride={self.max_stride}"
        )

    def _bound(self, height: int, width: int, strides: Tensor) -> Tensor:
        """Return the ``D / (D - R)`` below which no stride may lie, shaped like ``strides``."""
        for name, extent in (("height", height), ("width", width)):
            if extent == self.smoothness:
                raise ValueError(
                    f"the {name} of the map must not equal smoothness ({self.smoothness}), got "
                    f"{height} x {width}: the stride would be raised to infinity; pad the map or "
                    "change smoothness"
                )
        bounds = [extent / (extent - self.smoothness) for extent in (height, width)]
        return strides.new_tensor([max(bounds)] if self.shared else bounds)

    @torch.no_grad()
    def _raise_strides_(self, height: int, width: int) -> None:
        """Raise ``strides`` in place; nothing is written when they are large enough."""
        bound = self._bound(height, width, self.strides)
        if bool((self.strides < bound).any()):
            self.strides.copy_(torch.maximum(self.strides, bound))

    def _ramps(self, strides: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the weight of every row and of every column of the half spectrum."""
        read_floats(strides, "strides")
        strides = strides.to(at_least_float32(strides.dtype))
        strides = _clip(strides, self.min_stride, self.max_stride)
        # A number over a tensor would be its reciprocal times the number: one rounding more, and
        # another size where the ramp's foot meets a bin.
        extents = torch.tensor([height, width], dtype=strides.dtype, device="cpu")
        ends = _clip(extents / strides, 2.0, math.inf) / 2
        rows = self._ramp(ends[0], _row_positions(height))
        return rows, self._ramp(ends[1] + 1, torch.arange(width // 2 + 1, device="cpu"))

    def _ramp(self, end: Tensor, positions: Tensor) -> Tensor:
        """Return the weights: 1 up to ``end``, then falling to 0 over ``smoothness`` bins."""
        return _clip((self.smoothness + end - positions) * (1 / self.smoothness), 0.0, 1.0)

    def _kept(self, weight: Tensor) -> Tensor:
        """Return the indices of the bins that the crop keeps."""
        keep = weight > 0 if self.crop else torch.ones_like(weight, dtype=torch.bool)
        return keep.nonzero().flatten()


class OfficialSpectralPool2d(nn.Module):
    r"""Fixed spectral pooling as the DiffStride authors' baseline computes it.

    The spectrum is cut to the lowest $h = 2 \lfloor \lfloor H / S_h \rfloor / 2 \rfloor$ rows
    ($-h/2$ to $h/2 - 1$) and to the columns $0$ to $\lfloor w / 2 \rfloor$ of the half spectrum,
    $w = \lfloor W / S_w \rfloor$, and transformed back at ``(h, w)``, both at least 2. There is no
    mask and no care for the highest bins; a constant map is multiplied by $HW / (hw)$. The width
    may be odd, the height may not.

    Sizes follow the input at every call. The reference fixes them by the first map it sees, and
    then keeps wrong rows of a map of another height without a word; that is not imitated.
    Half-precision maps are computed in float32 and cast back. There are no parameters; the
    strides count as float32 numbers, as they do in the reference.

    Args:
        stride: a number or ``(vertical, horizontal)``, each at least 1; fractions are allowed.

    Shape:
        - Input: ``(N, C, H, W)``, both axes at least 2.
        - Output: ``(N, C, h, w)``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a stride is below 1, or a map is too small.

    Source: Riad et al., ICLR 2022, baseline; Rippel, Snoek and Adams, "Spectral representations
    for convolutional neural networks", NeurIPS 2015, Algorithm 1, without its corner cases.

    Examples:
        >>> import torch
        >>> from sizeless.compat.diffstride import OfficialSpectralPool2d
        >>> OfficialSpectralPool2d((1.7, 2.3))(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 3, 18, 13])
    """

    def __init__(self, stride: float | Sequence[float] = 2.0) -> None:
        super().__init__()
        self.stride = _initial_strides(stride)

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled map of size ``output_size(input.shape[2:])``."""
        _validate.feature_map("input", input, ndim=2)
        size = (input.shape[2], input.shape[3])
        height, width = self.output_size(size)
        if not input.numel():
            return _empty(input, height, width)
        with no_autocast(input.device.type):
            half = torch.fft.rfft(_working_copy(input), dim=-1)[..., : width // 2 + 1]
            spectrum = torch.fft.fft(half, dim=-2)
            low, high = spectrum[..., : height // 2, :], spectrum[..., size[0] - height // 2 :, :]
            return _like(_inverse(torch.cat((low, high), dim=-2), width), input)

    def output_size(self, input_size: int | Sequence[int]) -> tuple[int, int]:
        """Return the size that a map of this size is pooled to.

        Args:
            input_size: height and width of the map; one int for a square map.

        Returns:
            Height (even) and width of the output, at least 2 each.

        Raises:
            TypeError: ``input_size`` does not hold ints.
            ValueError: the map is too small.
        """
        size = torch.tensor(_spatial_size(input_size, (2, 2)), dtype=torch.float32, device="cpu")
        height, width = (size / torch.tensor(self.stride, device="cpu")).int().tolist()
        return max(height - height % 2, 2), max(width, 2)

    def extra_repr(self) -> str:
        """Return the strides for ``repr``."""
        return f"stride={self.stride}"
