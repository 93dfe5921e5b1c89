"""DiffStride: pooling that learns its stride."""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sizeless._validate import boolean, feature_map, int_tuple, one_of
from sizeless.functional.constants import constant, tensors_last
from sizeless.functional.fft import no_autocast, spectral_dtype
from sizeless.functional.limits import clamp_straight_through
from sizeless.functional.low_pass import cutoff
from sizeless.functional.resampling import AMPLITUDES, Resampling
from sizeless.nn._diffstride_arguments import check_limits, check_ramp, check_stride
from sizeless.nn.sized import (
    Size,
    SizeParameters,
    read_floats,
    shown_size,
    size_dtype,
    sizes_are_readable,
)
from sizeless.nn.spectral_pool import ROUNDING

SIZE_RULES = ("paper", "exact")

MOST_OCTAVES = 24.0
"""Base-2 logarithm of the stride at which one without ``max_stride`` ends, beyond any map."""


HYSTERESIS = 0.25
"""Samples by which an unrounded output size must pass a boundary before a graph is compiled."""

MOST_KEPT = 8
"""Resamplings that a layer keeps in evaluation."""


def _table(
    values: tuple[float, ...] | tuple[tuple[float, ...], ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _read_after_loading(module: Any, _incompatible_keys: object) -> None:
    """Give compiled forwards, too, the output sizes of the strides that were loaded."""
    module._read_strides()


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
        self.smoothness, self.transition = check_ramp(size_rule, smoothness, transition)
        self.min_stride, self.max_stride = check_limits(min_stride, max_stride)
        self.shared = boolean("shared", shared)
        limits = self.min_stride, self.max_stride
        self.init_stride = check_stride(stride, self.ndim, self.shared, limits)
        count = 1 if self.shared else self.ndim
        self.log2_stride = nn.Parameter(torch.empty(count, device=device, dtype=size_dtype(dtype)))
        self._stride = self.init_stride
        self._read: tuple[float, ...] = ()
        self._compiled_sizes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._revision = 0
        self._resamplings: dict[Hashable, Resampling] = {}
        self.register_load_state_dict_post_hook(_read_after_loading)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the initial stride."""
        initial = [math.log2(s) for s in self.init_stride[: len(self.log2_stride)]]
        with torch.no_grad():
            self.log2_stride.copy_(torch.tensor(initial, device="cpu", dtype=torch.float64))
        self._read_strides()

    def refresh_size(self) -> tuple[float, ...]:
        """Read the strides, from which integer sizes follow, and return them.

        Every eager forward does this. A compiled forward uses the output sizes as they were last
        read: call this between steps, outside the graph. An output size of the graph changes, which
        costs a compilation, only when its unrounded value has passed the rounding boundary by more
        than a quarter of a sample; the low-pass window always follows the stride.
        """
        return self._read_strides(HYSTERESIS)

    def _read_strides(self, slack: float = 0.0) -> tuple[float, ...]:
        if not sizes_are_readable(self.log2_stride):
            return self._stride
        low, high = self._octaves()
        octaves = read_floats(self.log2_stride, "the stride")
        self._read = tuple(octaves)
        # Seven digits are what float32 holds.
        strides = tuple(float(f"{2.0 ** min(max(o, low), high):.7g}") for o in octaves)
        self._stride = strides * self.ndim if self.shared else strides
        for sizes, before in self._compiled_sizes.items():
            least, most = self._output_size(sizes, -slack), self._output_size(sizes, slack)
            now = tuple(sorted(bounds)[1] for bounds in zip(least, before, most, strict=True))
            if now != before:
                self._compiled_sizes[sizes] = now
                self._revision += 1
        return self._stride

    def _octaves(self) -> tuple[float, float]:
        """Logarithms of the smallest and largest stride."""
        high = MOST_OCTAVES if self.max_stride is None else math.log2(self.max_stride)
        return math.log2(self.min_stride), high

    def _limited(self) -> Tensor:
        """Logarithms of the strides within ``min_stride`` and ``max_stride``."""
        return clamp_straight_through(self.log2_stride, *self._octaves())

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

    def _output_size(self, sizes: Sequence[int], shift: float = 0.0) -> tuple[int, ...]:
        """Output size where the unrounded one is larger by ``shift``."""
        output = []
        for size, stride in zip(sizes, self._stride, strict=True):
            low, high = self._map_limits(size)
            usable = min(max(stride, low), high)
            if self.size_rule == "exact":
                rounded = max(math.ceil(size / usable + shift - ROUNDING), 1)
            else:
                band = math.ceil(self.smoothness + (size / usable + shift) / 2 - ROUNDING)
                rounded = 2 * band - size % 2
            output.append(min(size, rounded))
        return tuple(output)

    @torch.compiler.assume_constant_result
    def _compiled_size(self, _revision: int, *sizes: int) -> tuple[int, ...]:
        """Output size in a compiled forward, which is compiled again for another revision."""
        return self._compiled_sizes.setdefault(sizes, self._output_size(sizes))

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
        return self._map_octaves(sizes).exp2()

    def _map_octaves(self, sizes: Sequence[int]) -> Tensor:
        least, most, _ = self._limits(sizes)
        # In octaves, so that the gradient is that of the limit however far beyond it the stride is.
        return clamp_straight_through(self.log2_stride.expand(self.ndim), least, most)

    def _limits(self, sizes: Sequence[int]) -> Tensor:
        """Least and most octaves that a map can use, and half its size, for each axis."""
        low, high = self._octaves()
        columns = []
        for size in sizes:
            least, most = map(math.log2, self._map_limits(size))
            columns.append((min(max(low, least), most), min(max(high, least), most), size / 2))
        like = self.log2_stride
        return constant(_table, tuple(zip(*columns, strict=True)), like.dtype, like.device)

    def _window(self, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """End and width of the ramp of each axis, in cycles per map."""
        octaves = self.log2_stride.expand(self.ndim)
        edge = cutoff(octaves, self._limits(sizes))
        if self.size_rule == "paper":
            width = (self.smoothness,) * self.ndim
            return edge + self.smoothness, constant(_table, width, edge.dtype, edge.device)
        return edge, (self.transition * edge).clamp_min(1.0)

    def resampling(self, input: Tensor) -> Resampling:
        """Set up what ``forward`` does to maps of the size of ``input``.

        Hand it to several calls of the layer with such maps, and it is set up once.
        """
        feature_map("input", input, self.ndim)
        # A compiler makes one graph for each size of the maps.
        sizes = tuple(operator.index(size) for size in input.shape[2:])
        dtype, device = spectral_dtype(input), input.device
        self.refresh_size()
        if torch.is_grad_enabled() or not tensors_last():
            return self._set_up(sizes, dtype, device)
        key = (self._read, sizes, dtype, device, self.log2_stride.device)
        if key not in self._resamplings:
            if len(self._resamplings) == MOST_KEPT:
                self._resamplings.clear()
            with torch.inference_mode(False), torch.no_grad():
                self._resamplings[key] = self._set_up(sizes, dtype, device, keep=True)
        return self._resamplings[key]

    def _set_up(
        self, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device, keep: bool = False
    ) -> Resampling:
        if torch.compiler.is_compiling():
            output_sizes = self._compiled_size(self._revision, *sizes)
        else:
            output_sizes = self._output_size(sizes)
        with no_autocast(device.type):
            window = self._window(sizes)
        if self.size_rule == "paper":
            widest = [self.smoothness] * self.ndim
        else:
            # A ramp that begins where frequencies are kept has at least this share of them below.
            widest = [max(self.transition * size / 2, 1.0) for size in output_sizes]
        return Resampling(
            sizes,
            output_sizes,
            window,
            widest=widest,
            amplitude=self.amplitude,
            method="auto",
            dtype=dtype,
            device=device,
            keep=keep,
        )

    def forward(self, input: Tensor, resampling: Resampling | None = None) -> Tensor:
        """Resize ``(N, C, *spatial)`` to ``(N, C, *output_size(spatial))``."""
        return (self.resampling(input) if resampling is None else resampling)(input)

    def __getstate__(self) -> dict[str, Any]:
        """State without what is rebuilt when it is needed."""
        return {**self.__dict__, "_resamplings": {}}

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
