"""DiffStride: pooling that learns its stride."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from sizeless._validate import boolean, feature_map, float_tuple, int_tuple, number, one_of
from sizeless.functional.fft import no_autocast
from sizeless.functional.limits import clamp_straight_through
from sizeless.functional.resampling import AMPLITUDES, resample
from sizeless.nn.sized import (
    Size,
    SizeParameters,
    read_floats,
    refresh_after_loading,
    shown_size,
    size_dtype,
    sizes_are_readable,
)
from sizeless.nn.spectral_pool import ROUNDING, exact_size

SIZE_RULES = ("paper", "exact")

TRANSITION = 0.25
"""Default width of the exact rule's ramp, as a share of the cutoff."""

MOST_OCTAVES = 24.0
"""Base-2 logarithm of the stride at which one without ``max_stride`` ends, beyond any map."""


class DiffStrideNd(SizeParameters):
    r"""Learnable stride in any number of dimensions; see ``DiffStride2d``."""

    ndim: ClassVar[int]

    def __init__(
        self,
        stride: float | Sequence[float] = 2.0,
        *,
        smoothness: float = 4.0,
        size_rule: str = "paper",
        transition: float | None = None,
        shared: bool = False,
        min_stride: float = 1.0,
        max_stride: float | None = None,
        amplitude: str = "mean",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.size_rule = one_of("size_rule", size_rule, SIZE_RULES)
        self.amplitude = one_of("amplitude", amplitude, AMPLITUDES)
        self.smoothness, self.transition = self._check_ramp(smoothness, transition)
        self.min_stride, self.max_stride = self._check_limits(min_stride, max_stride)
        self.shared = boolean("shared", shared)
        self.init_stride = self._check_stride(stride)
        count = 1 if self.shared else self.ndim
        self.log2_stride = nn.Parameter(torch.empty(count, device=device, dtype=size_dtype(dtype)))
        self._stride = self.init_stride
        self.register_load_state_dict_post_hook(refresh_after_loading)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the initial stride."""
        initial = [math.log2(s) for s in self.init_stride[: len(self.log2_stride)]]
        with torch.no_grad():
            self.log2_stride.copy_(torch.tensor(initial, device="cpu", dtype=torch.float64))
        self.refresh_size()

    def refresh_size(self) -> tuple[float, ...]:
        """Read the strides, from which integer sizes follow, and return them.

        Every eager forward does this. A compiled forward uses the sizes as they were last read:
        call this between steps, outside the graph.
        """
        if sizes_are_readable(self.log2_stride):
            octaves = read_floats(self._limited(), "the stride")
            # Seven digits are what float32 holds.
            strides = tuple(float(f"{2.0**octave:.7g}") for octave in octaves)
            self._stride = strides * self.ndim if self.shared else strides
        return self._stride

    def _limited(self) -> Tensor:
        """Logarithms of the strides within ``min_stride`` and ``max_stride``."""
        high = MOST_OCTAVES if self.max_stride is None else math.log2(self.max_stride)
        return clamp_straight_through(self.log2_stride, math.log2(self.min_stride), high)

    @property
    def stride(self) -> tuple[float, ...]:
        """The learned stride of each axis, within its limits."""
        return self.refresh_size()

    def project_(self) -> None:
        """Move the strides back into their limits, in place."""
        with torch.no_grad():
            self.log2_stride.copy_(self._limited())

    def _map_limits(self, size: int) -> tuple[float, float]:
        """Strides between which a map of ``size`` samples has a frequency on the ramp."""
        high = max(size / 2, 1.0)
        if self.size_rule == "exact":
            return 1.0, high
        return min(size / (size - self.smoothness), high) if size > self.smoothness else high, high

    def output_size(self, input_size: int | Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for an input of ``input_size``, at the present stride.

        Args:
            input_size: Spatial size; one int serves every axis.

        Returns:
            One int per axis.
        """
        self.refresh_size()
        return self._output_size(int_tuple("input_size", input_size, self.ndim))

    def _output_size(self, sizes: Sequence[int]) -> tuple[int, ...]:
        output = []
        for size, stride in zip(sizes, self._stride, strict=True):
            low, high = self._map_limits(size)
            usable = min(max(stride, low), high)
            if self.size_rule == "exact":
                output.append(exact_size(size, usable))
            else:
                band = math.ceil(self.smoothness + max(size / usable, 2) / 2 - ROUNDING)
                output.append(min(size, 2 * band - size % 2))
        return tuple(output)

    def relaxed_size(self, input_size: Sequence[int]) -> Tensor:
        """Output size before rounding, ``(ndim,)``, differentiable in the strides."""
        sizes = int_tuple("input_size", input_size, self.ndim)
        relaxed = self.log2_stride.new_tensor(sizes) / self._map_strides(sizes)
        return relaxed + 2 * self.smoothness if self.size_rule == "paper" else relaxed

    def inverse_area(self) -> Tensor:
        """Output positions per input position, the product of 1 / stride; differentiable."""
        return (-self._limited().expand(self.ndim)).exp2().prod()

    def _map_strides(self, sizes: Sequence[int]) -> Tensor:
        """Strides ``(ndim,)`` as a map of ``sizes`` can use them."""
        limits = self.log2_stride.new_tensor([self._map_limits(size) for size in sizes])
        low, high = limits.unbind(dim=1)
        # In octaves, so that the gradient is that of the limit however far beyond it the stride is.
        octaves = clamp_straight_through(self._limited().expand(self.ndim), low.log2(), high.log2())
        return clamp_straight_through(octaves.exp2(), low, high)

    def _window(self, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """End of the pass band and width of the ramp of each axis, in cycles per map."""
        edge = self.log2_stride.new_tensor(sizes) / (2 * self._map_strides(sizes))
        if self.size_rule == "paper":
            return edge, torch.full_like(edge, self.smoothness)
        width = (self.transition * edge).clamp_min(1.0)
        return edge - width, width

    def forward(self, input: Tensor) -> Tensor:
        """Resize ``(N, C, *spatial)`` to ``(N, C, *output_size(spatial))``."""
        feature_map("input", input, self.ndim)
        self.refresh_size()
        sizes = tuple(input.shape[2:])
        with no_autocast(input.device.type):
            cutoff, transition = self._window(sizes)
        return resample(
            input,
            self._output_size(sizes),
            cutoff=cutoff,
            transition=transition,
            amplitude=self.amplitude,
        )

    def describe_size(self) -> Size:
        """Return the learned stride; see ``sizeless.sizes``."""
        stride = self.stride
        return Size(
            kind="stride",
            size=stride,
            window=None,
            center=None,
            limits=((self.min_stride, self.max_stride or math.inf),) * self.ndim,
            cost=1 / math.prod(stride),
        )

    def _check_ramp(self, smoothness: float, transition: float | None) -> tuple[float, float]:
        width = number("smoothness", smoothness)
        if width < 1:
            raise ValueError(
                f"smoothness must be at least 1 cycle per map, got {smoothness!r}: no frequency "
                "may lie on a narrower ramp, and the stride would not learn"
            )
        if self.size_rule == "exact" and width != 4.0:
            raise ValueError(
                f"smoothness={smoothness!r} belongs to size_rule='paper'; with size_rule='exact' "
                "set transition, the width of the ramp as a share of the cutoff"
            )
        if transition is None:
            return width, TRANSITION
        if self.size_rule == "paper":
            raise ValueError(
                f"transition={transition!r} belongs to size_rule='exact'; with size_rule='paper' "
                "set smoothness, the width of the ramp in cycles per map"
            )
        share = number("transition", transition)
        if not 0 < share <= 1:
            raise ValueError(f"transition must be above 0 and at most 1, got {transition!r}")
        return width, share

    def _check_limits(self, low: float, high: float | None) -> tuple[float, float | None]:
        minimum = number("min_stride", low)
        if minimum < 1:
            raise ValueError(f"min_stride must be at least 1, got {low!r}")
        if high is None:
            return minimum, None
        maximum = number("max_stride", high)
        if maximum < minimum:
            raise ValueError(f"max_stride must be at least min_stride={minimum}, got {high!r}")
        return minimum, maximum

    def _check_stride(self, stride: float | Sequence[float]) -> tuple[float, ...]:
        strides = float_tuple("stride", stride, self.ndim)
        if any(s < 1 for s in strides):
            raise ValueError(
                f"stride must be at least 1 on every axis, got {stride!r}; to enlarge a map use "
                "sizeless.functional.resample"
            )
        if self.shared and len(set(strides)) > 1:
            raise ValueError(
                f"stride must be the same on every axis when shared=True, got {stride!r}"
            )
        highest = math.inf if self.max_stride is None else self.max_stride
        if any(not self.min_stride <= s <= highest for s in strides):
            raise ValueError(
                f"stride must lie between min_stride={self.min_stride} and "
                f"max_stride={self.max_stride}, got {stride!r}"
            )
        return strides

    def extra_repr(self) -> str:
        """Show the present stride and the rule."""
        stride = shown_size(self.refresh_size)
        ramp = (
            f"smoothness={self.smoothness}"
            if self.size_rule == "paper"
            else f"transition={self.transition}"
        )
        return f"stride={stride}, size_rule={self.size_rule!r}, {ramp}, shared={self.shared}"


class DiffStride2d(DiffStrideNd):
    r"""2-D pooling with a learnable stride: low-pass window, crop of the spectrum, inverse.

    $$
    y = \mathcal F^{-1}\big(\operatorname{crop}(m_h \otimes m_w \odot \mathcal F(x))\big),
    \qquad m(k) = \operatorname{ramp}\Big(\frac{c + t - |k|}{t}\Big)
    $$

    The window passes frequencies up to $c$ and falls to 0 over a ramp of width $t$
    (cycles per map). For a map of $D$ samples and stride $S$:

    * ``size_rule="paper"``: $c = D / 2S$, $t$ = ``smoothness``; the output keeps all
      of the ramp and has about $D / S + 2t$ samples,
      $\min(D, 2 \lceil c + t \rceil - D \bmod 2)$. At stride 2, 32 samples become 24.
    * ``size_rule="exact"``: the ramp ends at $D / 2S$ and begins at $(1 - u)\, D / 2S$ with $u$ =
      ``transition`` (at least one cycle per map earlier); the output has $\lceil D / S \rceil$
      samples. Scale-free: recommended for new networks.

    Both axes are treated alike (the authors' row window is not symmetric; see
    ``sizeless.compat.OfficialDiffStride2d`` for theirs), and the mean of the map is kept.
    The operator is real: two small matrix products for maps up to 160 samples, FFTs beyond.

    The stride is stored as $\log_2 S$ and used within its limits, and within what the map
    allows ($D / (D - t) \le S$ in the paper's rule, $S \le D / 2$). Gradients pass at
    every limit, so no stride gets stuck; a forward pass never changes a parameter.

    Args:
        stride: Initial stride, at least 1: one number or one per axis.
        smoothness: Width of the ramp in cycles per map, at least 1, for ``size_rule="paper"``.
        size_rule: ``"paper"`` or ``"exact"``.
        transition: Width of the ramp as a share of the cutoff, for ``size_rule="exact"``;
            ``None`` is 0.25.
        shared: Whether all axes share one stride.
        min_stride: Smallest stride, at least 1.
        max_stride: Largest stride, or ``None``.
        amplitude: ``"mean"`` keeps the mean of the map; ``"sum"`` is the paper's, which multiplies
            by (input size / output size) and relies on the normalisation that follows.
        device: Where the parameter lives.
        dtype: Its dtype; sizes are never below float32.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, *output_size((H, W)))``.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If a stride or limit is below 1, or an argument does not belong to the rule.

    Source: Riad et al. 2022, arXiv 2202.01653, section 2 and algorithm 1.

    Examples:
        >>> import torch
        >>> pool = DiffStride2d(2.0, size_rule="exact")
        >>> pool(torch.randn(1, 3, 32, 28)).shape, pool.stride
        (torch.Size([1, 3, 16, 14]), (2.0, 2.0))
    """

    ndim = 2


class DiffStride1d(DiffStrideNd):
    """1-D pooling with a learnable stride; formula and arguments as in ``DiffStride2d``.

    Shape:
        ``(N, C, L)`` to ``(N, C, *output_size(L))``.

    Examples:
        >>> import torch
        >>> DiffStride1d(4.0, size_rule="exact")(torch.randn(1, 3, 100)).shape
        torch.Size([1, 3, 25])
    """

    ndim = 1


class DiffStride3d(DiffStrideNd):
    """3-D pooling with a learnable stride; formula and arguments as in ``DiffStride2d``.

    Shape:
        ``(N, C, D, H, W)`` to ``(N, C, *output_size((D, H, W)))``.

    Examples:
        >>> import torch
        >>> DiffStride3d(2.0, size_rule="exact")(torch.randn(1, 2, 8, 9, 10)).shape
        torch.Size([1, 2, 4, 5, 5])
    """

    ndim = 3
