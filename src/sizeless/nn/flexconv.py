"""FlexConv: convolution that learns the size of its kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sizeless._validate import (
    boolean,
    channels,
    feature_map,
    int_at_least,
    int_tuple,
    number,
    one_of,
    parameter_dtype,
)
from sizeless.functional.convolution import convolve, convolve_factored, plan
from sizeless.functional.padding import PADDING_MODES
from sizeless.functional.plans import Plan
from sizeless.kernels import MAGNet
from sizeless.nn import _flexconv_arguments as arguments
from sizeless.nn import crop
from sizeless.nn._flexconv_arguments import KernelFactory, Padding
from sizeless.nn.evaluated import evaluate, is_evaluated
from sizeless.nn.sized import Size, shown_size, size_dtype, sizes_are_readable
from sizeless.nn.window import GaussianWindow
from sizeless.nn.windowed import WindowedKernelNd

PLACEMENT = 1.667
"""Spread of the kernel network's units around the window's centre, in initial widths."""


class FlexConvNd(WindowedKernelNd):
    r"""Convolution in any number of dimensions; see ``FlexConv2d`` for the arguments."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = "same",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        init_size: float | Sequence[float] | None = None,
        min_size: int | None = None,
        kernel: KernelFactory | None = None,
        causal: bool = False,
        learn_center: bool = True,
        init: str = "variance",
        look_ahead: int = 0,
    ) -> None:
        super().__init__()
        counts = channels(in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = counts
        self.causal = arguments.check_causal(causal, self.ndim, type(self).__name__)
        self.kernel_size = arguments.check_kernel_size(kernel_size, self.ndim, causal)
        self.stride = int_tuple("stride", stride, self.ndim)
        self.dilation = int_tuple("dilation", dilation, self.ndim)
        self.padding = arguments.check_padding(padding, self.ndim, causal)
        self.padding_mode = one_of("padding_mode", padding_mode, PADDING_MODES)
        self.init = one_of("init", init, ("variance", "paper"))
        self.look_ahead = int_at_least("look_ahead", look_ahead, 0)
        init_sizes = arguments.initial_sizes(init_size, self.kernel_size, causal)
        self.window = GaussianWindow(
            self.kernel_size,
            init_sizes,
            causal=causal,
            learn_center=boolean("learn_center", learn_center),
            min_sizes=arguments.minimal_sizes(min_size, init_sizes, causal),
            device=device,
            dtype=size_dtype(dtype),
        )
        features = out_channels * in_channels // groups
        factory = MAGNet if kernel is None else kernel
        self.kernel = arguments.make_kernel(factory, self.ndim, features, device, dtype)
        self.bias = (
            nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
            if boolean("bias", bias)
            else None
        )
        self._kept = tuple(crop.largest(n, self.causal) for n in self.kernel_size)
        self._bucket = self._kept
        self.register_load_state_dict_post_hook(_choose_bucket_after_loading)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel network anew around the window, which returns to its initial size."""
        self.window.reset_parameters()
        self.kernel.reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if not sizes_are_readable(self.window.log_sigma):
            return
        self.renew_bucket()
        self._place_kernel()
        if self.init == "variance":
            with torch.no_grad():
                energy = self.weight.square().sum() / self.out_channels
            self.kernel.scale_output_(float(energy.clamp_min(1e-12)) ** -0.5)

    def _place_kernel(self) -> None:
        """Draw the network's localised units where the window is, so that it sees them."""
        centers = self.window.center.tolist()
        spreads = [PLACEMENT * sigma for sigma in self.window.sigma.tolist()]
        if self.causal:
            spreads = [spread / 2 for spread in spreads]
            centers = [c - spread for c, spread in zip(centers, spreads, strict=True)]
        self.kernel.place(centers, spreads)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(N, in_channels, *spatial)`` into ``(N, out_channels, *spatial)``."""
        if self.padding == "same" and is_evaluated(input):
            return evaluate(self, input, self.out_channels, self.stride)
        feature_map("input", input, self.ndim, self.in_channels)
        parameter_dtype("input", input, self.kernel.output.weight)
        parts = self._filter()
        size = tuple(parts[-1].shape[-self.ndim :])
        input, padding = arguments.fit_padding(
            input, self.padding, self.kernel_size, size, self.dilation
        )
        convolution: Callable[..., Tensor] = convolve if len(parts) == 1 else convolve_factored
        return convolution(
            input,
            *parts,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            causal=self.causal,
        )

    def plan(self, input_shape: Sequence[int]) -> Plan:
        """How a training step would compute the convolution of a map, at the present size.

        Args:
            input_shape: ``(N, in_channels, *spatial)``.

        Raises:
            ValueError: If the shape does not fit the layer.
        """
        like = torch.empty(tuple(input_shape), device="meta")
        feature_map("input_shape", like, self.ndim, self.in_channels)
        like, padding = arguments.fit_padding(
            like, self.padding, self.kernel_size, self.size, self.dilation
        )
        return plan(
            tuple(like.shape),
            (self.out_channels, self.in_channels // self.groups, *self.size),
            self.stride,
            padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            causal=self.causal,
            device_type=self.window.log_sigma.device.type,
        )

    def change_resolution_(self, factor: float) -> None:
        r"""Keep the kernel's extent in the world when the sampling rate changes, in place.

        The largest kernel goes from $N$ to about $(N - 1) \cdot$ ``factor`` + 1 taps,
        the window keeps its share of it, and the weights of the kernel network's last layer are
        multiplied by $\prod_d (N_d - 1) / (N'_d - 1)$, so that sums over the finer grid keep
        their size. The state dict then belongs to a layer of the new size.

        Args:
            factor: New sampling rate divided by the present one: 2 for images twice as large.

        Raises:
            TypeError: If ``factor`` is no number.
            ValueError: If ``factor`` is not positive or ``padding`` is not ``"same"``.

        Source: Romero et al. 2022, arXiv 2110.08059, section 3.3 and Table 4.
        """
        number("factor", factor, above=0)
        if self.padding != "same":
            raise ValueError(
                f"change_resolution_ needs padding='same', got padding={self.padding!r}: with a "
                "fixed number of pixels the output would not scale with the input"
            )
        step = 1 if self.causal else 2
        new = tuple(step * round((n - 1) * factor / step) + 1 for n in self.kernel_size)
        for before, after in zip(self.kernel_size, new, strict=True):
            self.kernel.scale_output_(max(before - 1, 1) / max(after - 1, 1))
        self.window.resize_(new)
        self.kernel_size = new
        self._cache.clear()
        self.renew_bucket()

    def nyquist(self) -> tuple[float, ...]:
        """Highest frequency that the taps can hold, in cycles per unit coordinate, per axis."""
        return tuple((n - 1) / 4 for n in self.kernel_size)

    def describe_size(self) -> Size:
        """Return what the layer has learned about its size; see ``sizeless.sizes``."""
        size = self.size
        half = [(n - 1) / 2 for n in self.kernel_size]
        origin = 1.0 if self.causal else 0.0
        centers = self.window.center.tolist()
        return Size(
            kind="kernel size",
            size=size,
            window=tuple(s * h for s, h in zip(self.window.sigma.tolist(), half, strict=True)),
            center=tuple((c - origin) * h for c, h in zip(centers, half, strict=True)),
            limits=tuple(zip(self.window.min_sizes, self.kernel_size, strict=True)),
            cost=self.out_channels * self.in_channels // self.groups * math.prod(size),
        )

    def extra_repr(self) -> str:
        """Show the channels, the maximum and present size, and what is not the default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", size={shown_size(lambda: self.size)}"
        shown = {
            "stride": (1,) * self.ndim,
            "padding": "same",
            "dilation": (1,) * self.ndim,
            "groups": 1,
            "padding_mode": "zeros",
            "causal": False,
            "look_ahead": 0,
        }
        for name, default in shown.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)!r}"
        return text if self.bias is not None else text + ", bias=False"


def _choose_bucket_after_loading(layer: FlexConvNd, _incompatible_keys: object) -> None:
    # Sizes must be known at once: a compiled forward that comes next does not read them.
    layer.renew_bucket()


class FlexConv2d(FlexConvNd):
    r"""2-D convolution that learns the size of its kernel.

    $$
    y[o, p] = b_o + \sum_c \sum_t K[o, c, t]\, x[c, p + t], \qquad
    K[o, c, t] = w(r_t)\, \psi(r_t)_{o, c}
    $$

    The kernel is a small network $\psi$ of the coordinates $r_t \in [-1, 1]^D$ of its
    taps, times a Gaussian window $w$ whose widths and centres are learned
    (``GaussianWindow``). Taps that the window suppresses below 0.1 are cropped,
    so the work shrinks with the window. ``kernel_size`` taps span the whole of [-1, 1].

    The layer equals ``torch.nn.functional.conv2d`` with its ``weight``. Padding in pixels is meant
    for the largest kernel: as the kernel shrinks, the padding shrinks with it and the output keeps
    its size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Largest size of the kernel in taps: an odd int, or one per axis. The paper
            takes the image side plus 1.
        stride: Fixed stride of the convolution.
        padding: ``"same"`` (with a stride: as padded, then strided), ``"valid"``, or pixels.
        dilation: Spacing of the taps in pixels.
        groups: Channel groups; ``in_channels`` is depthwise.
        bias: Whether to add a trained bias, initially 0.
        padding_mode: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``.
        device: Where the parameters live.
        dtype: Their dtype; sizes are never below float32.
        init_size: Size at the start in taps; fractions are allowed. ``None``: the paper's 16 % of
            the largest size (sigma 0.075), and at least 3.
        min_size: Smallest size that training can reach. ``None``: 3 taps (causal: 2), or
            ``init_size`` where that is smaller; one tap passes no gradient to its width.
        kernel: Class or function ``(ndim, out_features, device, dtype)`` that makes the kernel
            network. ``None``: ``MAGNet``.
        causal: Only for ``FlexConv1d``.
        learn_center: Whether the window's centre is learned (as in the paper) or stays put.
        init: ``"variance"`` scales the initial kernel so that white input keeps its variance;
            ``"paper"`` leaves it as the network is drawn, and relies on normalisation.
        look_ahead: Taps beyond the crop, on every side that has any, that pass gradients in
            training although their value is 0. The crop tells a window nothing about what it cuts
            off; with a look-ahead, a window that is too small grows towards taps that would
            help. Outputs do not change. 0 is the paper's layer.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H', W')``, as ``torch.nn.Conv2d``.

    Raises:
        TypeError: If a size is no int or ``kernel`` makes no kernel network.
        ValueError: If a value is out of range; the message says what is allowed.

    Source: Romero et al. 2022, "FlexConv", ICLR, arXiv 2110.08059, section 3.

    Examples:
        >>> import torch
        >>> layer = FlexConv2d(3, 8, kernel_size=33, init_size=5)
        >>> layer(torch.randn(2, 3, 32, 32)).shape, layer.size, layer.weight.shape
        (torch.Size([2, 8, 32, 32]), (5, 5), torch.Size([8, 3, 5, 5]))
    """

    ndim = 2


class FlexConv1d(FlexConvNd):
    r"""1-D convolution that learns the length of its kernel, centred or causal.

    Formula and arguments as in ``FlexConv2d``. With ``causal=True`` an output sees no later
    input: the window starts at the last tap and looks back, ``kernel_size`` may be even (the paper
    takes the length of the sequence), and the crop cuts the far past.

    Shape:
        ``(N, in_channels, L)`` to ``(N, out_channels, L')``.

    Examples:
        >>> import torch
        >>> layer = FlexConv1d(1, 4, kernel_size=100, init_size=8, causal=True)
        >>> layer(torch.randn(2, 1, 100)).shape, layer.size
        (torch.Size([2, 4, 100]), (8,))
    """

    ndim = 1


class FlexConv3d(FlexConvNd):
    """3-D convolution that learns the size of its kernel; see ``FlexConv2d``.

    Shape:
        ``(N, in_channels, D, H, W)`` to ``(N, out_channels, D', H', W')``.

    Examples:
        >>> import torch
        >>> layer = FlexConv3d(2, 4, kernel_size=(3, 9, 9), init_size=3)
        >>> layer(torch.randn(1, 2, 4, 8, 8)).shape, layer.size
        (torch.Size([1, 4, 4, 8, 8]), (3, 3, 3))
    """

    ndim = 3
