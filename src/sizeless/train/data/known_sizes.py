"""Tasks whose best size is known beforehand: a lag, a kernel size, a bandwidth and a stride."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sizeless._validate import float_tuple, int_at_least, number, positive_int
from sizeless.train.data.base import Split
from sizeless.train.data.synthetic import SyntheticData


class KnownLag(SyntheticData):
    r"""Causal sequences whose class is the sign of one sample, ``lag`` steps before the last.

    Inputs ``(N, 1, length)`` of -1 and 1, drawn independently; the class is 1 where sample
    ``length - 1 - lag`` is 1.

    Best size: a causal network that answers at the last step has to see ``lag`` steps back, a
    kernel of ``lag + 1`` in a single layer. The samples after that one say nothing of the class, so
    with a shorter reach no network is better than chance; those before it say nothing either, so a
    longer one only adds noise.

    Args:
        lag: How many steps before the last the sample lies.
        length: Steps of a sequence.
        **options: As in ``SyntheticData``: ``samples``, ``test_samples``, ``batch_size``,
            ``validation``, ``split_seed``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Examples:
        >>> data = KnownLag(lag=20, length=64)
        >>> data.setup("fit")
        >>> data.splits.train.inputs.shape, data.best_size
        (torch.Size([4500, 1, 64]), 21)
    """

    num_classes = 2

    def __init__(self, lag: int = 20, length: int = 64, **options: Any) -> None:
        super().__init__(**options)
        self.lag = int_at_least("lag", lag, 0)
        self.length = positive_int("length", length)
        if lag >= length:
            raise ValueError(f"lag must be below length={length}, got {lag}")

    @property
    def best_size(self) -> int:
        """Samples of a causal kernel that sees just far enough."""
        return self.lag + 1

    def draw(self, count: int, generator: torch.Generator) -> Split:
        """Return sequences and classes."""
        bits = torch.randint(2, (count, self.length), generator=generator)
        return (2.0 * bits - 1.0).unsqueeze(1), bits[:, self.length - 1 - self.lag]


class KnownKernelSize(SyntheticData):
    r"""Images with two patterns of ``kernel_size`` pixels, whose ends agree or differ.

    A pattern is two dots, 1 or -1, at the upper left and the lower right corner of a square of
    ``kernel_size`` pixels (in 1-D: at the ends of a stretch). In class 1 the dots of one pattern
    are both 1 and those of the other both -1; in class 0 each pattern has one of either. The
    patterns lie at random, apart from each other and from the border.

    Best size: ``kernel_size``. Every image has two dots of either sign, and no square window of
    fewer pixels sees two of them: all such windows of an image, without their places, are the same
    in both classes. So a layer with a smaller kernel, followed by anything that pools over places,
    is no better than chance; a window of ``kernel_size`` sees a pattern whole, and a larger one
    nothing more that it needs, but more noise. Several layers have to see as far together.

    Args:
        kernel_size: Pixels from end to end of a pattern, ends included.
        size: Pixels of an image along each axis; at least ``5 * kernel_size - 3``.
        ndim: 1 for sequences ``(N, 1, size)``, 2 for images ``(N, 1, size, size)``.
        noise: Standard deviation of Gaussian noise on every pixel.
        **options: As in ``SyntheticData``: ``samples``, ``test_samples``, ``batch_size``,
            ``validation``, ``split_seed``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Examples:
        >>> data = KnownKernelSize(kernel_size=7, size=32)
        >>> data.setup("fit")
        >>> data.splits.train.inputs.shape, data.best_size
        (torch.Size([4500, 1, 32, 32]), 7)
    """

    num_classes = 2

    def __init__(
        self,
        kernel_size: int = 7,
        size: int = 32,
        ndim: int = 2,
        noise: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kernel_size = int_at_least("kernel_size", kernel_size, 2)
        self.size = int_at_least("size", size, 5 * kernel_size - 3)
        if ndim not in {1, 2}:
            raise ValueError(f"ndim must be 1 or 2, got {ndim!r}")
        self.ndim = ndim
        self.noise = number("noise", noise, minimum=0)

    @property
    def best_size(self) -> int:
        """Pixels of a kernel that sees a pattern whole, and no more."""
        return self.kernel_size

    def draw(self, count: int, generator: torch.Generator) -> Split:
        """Return images and classes."""
        targets = torch.randint(2, (count,), generator=generator)
        corners = self._corners(count, generator)
        places = torch.stack([corners, corners + self.kernel_size - 1], dim=2).flatten(1, 2)
        first = 2.0 * torch.randint(2, (count,), generator=generator) - 1.0
        second = first * (2 * targets - 1)
        dots = torch.stack([first, second, -first, -second], dim=1)
        images = self.noise * torch.randn(count, *[self.size] * self.ndim, generator=generator)
        index = (torch.arange(count)[:, None], *places.unbind(-1))
        return images.index_put(index, dots, accumulate=True).unsqueeze(1), targets

    def _corners(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the first corners of both patterns, ``(count, 2, ndim)``."""
        reach = self.kernel_size - 1
        shape = (count, 2, self.ndim)
        low, high = reach, self.size - 2 * reach
        corners = torch.randint(low, high, shape, generator=generator)
        while True:
            near = ((corners[:, 0] - corners[:, 1]).abs() <= 2 * reach).all(1)
            if not near.any():
                return corners
            shape = (int(near.sum()), 2, self.ndim)
            corners[near] = torch.randint(low, high, shape, generator=generator)


class KnownBand(SyntheticData):
    r"""Base of noise whose class is where a band lies: just below an edge of frequency, or above.

    Along each axis frequencies are counted in cycles per signal. Signals of class 1 have a band
    ``edge - width, ..., edge - 1``, those of class 0 ``edge, ..., edge + width - 1`` in its place,
    with random phases and the power 1; on two axes both coordinates lie in the band. All other
    frequencies hold white noise, the same for both.

    Args:
        size: Samples along each axis.
        edge: End of the lower band along each axis, in cycles per signal.
        width: Frequencies of a band along each axis.
        noise: Standard deviation of the white noise, before the bands are cut out of it.
        **options: As in ``SyntheticData``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the bands do not lie between 0 and half of the samples, both excluded.
    """

    num_classes = 2

    def __init__(
        self,
        size: tuple[int, ...],
        edge: tuple[int, ...],
        width: int,
        noise: float,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.size = tuple(positive_int("size", samples) for samples in size)
        self.edge = edge
        self.width = positive_int("width", width)
        self.noise = number("noise", noise, minimum=0)
        for samples, end in zip(self.size, edge, strict=True):
            if end - width < 1 or end + width > (samples + 1) // 2:
                raise ValueError(
                    f"width must leave the bands within the frequencies 1 to "
                    f"{(samples - 1) // 2} of {samples} samples, got width={width} around {end}"
                )

    def draw(self, count: int, generator: torch.Generator) -> Split:
        """Return signals and classes."""
        targets = torch.randint(2, (count,), generator=generator)
        dims = list(range(1, len(self.size) + 1))
        signals = torch.randn(count, *self.size, generator=generator)
        spectrum = torch.fft.fftn(signals, dim=dims)
        above, below = self._band(0), self._band(-self.width)
        band = torch.where(targets.view(-1, *[1] * len(dims)) == 1, below, above)
        # The frequencies of a band have random phases, and together the power 1.
        strength = below.numel() / below.sum().sqrt()
        tones = band * strength * spectrum.sgn()
        spectrum = torch.where(above | below, tones, self.noise * spectrum)
        return torch.fft.ifftn(spectrum, dim=dims).real.unsqueeze(1), targets

    def _band(self, offset: int) -> Tensor:
        """Return which frequencies lie in the band that begins ``offset`` from the edge."""
        chosen = torch.ones(self.size, dtype=torch.bool)
        for axis, (samples, edge) in enumerate(zip(self.size, self.edge, strict=True)):
            cycles = (torch.fft.fftfreq(samples) * samples).round().abs()
            start = edge + offset
            inside = (cycles >= start) & (cycles < start + self.width)
            chosen &= inside.view(*[1] * axis, -1, *[1] * (len(self.size) - axis - 1))
        return chosen


class KnownBandwidth(KnownBand):
    r"""Sequences of noise with a band just below ``bandwidth``, or just above; a class each.

    Best size: the frequencies 0 to ``bandwidth - 1`` (cycles per sequence), the smallest range that
    holds a band of either class whole and tells it from its absence. What is left below
    ``bandwidth - width`` is the same noise in both classes, so a network behind such a low-pass is
    no better than chance. This holds of a low-pass that comes before all nonlinearities.

    Args:
        bandwidth: End of the lower band, in cycles per sequence.
        width: Frequencies of a band.
        length: Samples of a sequence.
        noise: Standard deviation of the white noise at all other frequencies; that of the band is
            1.
        **options: As in ``SyntheticData``: ``samples``, ``test_samples``, ``batch_size``,
            ``validation``, ``split_seed``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Examples:
        >>> data = KnownBandwidth(bandwidth=12, length=64)
        >>> data.setup("fit")
        >>> data.splits.train.inputs.shape, data.best_size
        (torch.Size([4500, 1, 64]), 12)
    """

    def __init__(
        self,
        bandwidth: int = 12,
        width: int = 1,
        length: int = 64,
        noise: float = 1.0,
        **options: Any,
    ) -> None:
        positive_int("bandwidth", bandwidth)
        super().__init__((length,), (bandwidth,), width, noise, **options)

    @property
    def best_size(self) -> int:
        """Frequencies to keep, counted from 0."""
        return self.edge[0]


class KnownStride(KnownBand):
    r"""Images that can be told apart after down-sampling by ``stride``, and not by much more.

    Along each axis, ``size / (2 * stride)`` cycles per image, rounded down, are the edge between
    the bands of ``KnownBand``: down-sampled by ``stride``, images keep the lower band, that of
    class 1, and lose the upper one.

    Best size: ``stride``, the largest that keeps the band whole; one axis cannot stand in for the
    other, as bands lie high on both. Above ``vanishing_stride``, along either axis, nothing of them
    is left, and no network is better than chance. This holds of a low-pass and resampling
    (``SpectralPool2d``, ``DiffStride2d``, images of lower resolution) that comes before all
    nonlinearities.

    Args:
        stride: One number, or one for each axis; any number above 1.
        size: Pixels of an image along each axis.
        width: Frequencies of a band along each axis.
        noise: Standard deviation of the white noise at all other frequencies; that of the band is
            1.
        **options: As in ``SyntheticData``: ``samples``, ``test_samples``, ``batch_size``,
            ``validation``, ``split_seed``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Examples:
        >>> data = KnownStride(stride=2.0, size=32)
        >>> data.setup("fit")
        >>> data.splits.train.inputs.shape, data.best_size
        (torch.Size([4500, 1, 32, 32]), (2.0, 2.0))
    """

    def __init__(
        self,
        stride: float | tuple[float, float] = 2.0,
        size: int = 32,
        width: int = 1,
        noise: float = 1.0,
        **options: Any,
    ) -> None:
        positive_int("size", size)
        self.stride = float_tuple("stride", stride, 2)
        for value in self.stride:
            number("stride", value, above=1)
        edge = tuple(math.floor(size / (2 * value) + 1e-9) for value in self.stride)
        super().__init__((size, size), edge, width, noise, **options)

    @property
    def best_size(self) -> tuple[float, ...]:
        """The stride along each axis."""
        return self.stride

    @property
    def vanishing_stride(self) -> tuple[float, ...]:
        """The stride along each axis above which nothing of the bands is left."""
        pairs = zip(self.size, self.edge, strict=True)
        return tuple(samples / (2 * (edge - self.width)) for samples, edge in pairs)
