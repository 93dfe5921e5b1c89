"""What the products of a convolution cost in each method: a model in nanoseconds.

The numbers are fits to timings of float32 on two cores of a processor with 512-bit vectors, torch
2.15 with oneDNN and MKL. Their ratios decide, so they serve other processors of that kind; where
plans were measured (``functional.tuning``), these are followed instead.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from sizeless.functional.blocks import Blocks
from sizeless.functional.direct import LANES, is_passed_over, pads_first
from sizeless.functional.geometry import Geometry
from sizeless.functional.partial_transform import by_matrix, matrix_work

_LARGE = {1: 14, 2: 14, 3: 9}
"""Longest side of a kernel whose weight gradient has a fast implementation."""

_UNEVEN = {1: 1600.0, 2: 1100.0, 3: 550.0}
"""Picoseconds per multiply-add of such a gradient's largest kernels that outputs share."""

_UNEVEN_CHANNELS = 1.5
"""Time in torch's usual layout where outputs fill neither whole vectors nor the half of one."""

_NARROW_GRADIENT = 20.0
"""Picoseconds per multiply-add of torch's own gradient of the input, of full vectors, where there
are fewer channels than a vector holds."""

_IMAGE = 3

_PLAIN_GRADIENT = 250.0
"""Picoseconds per multiply-add where torch leaves its fast library aside."""

_CHANNELS_LAST_SHARE = {1: 0.4, 2: 0.75, 3: 0.9}
"""What the same takes with channels last."""

_PER_SAMPLE = {1: (0.3, 0.6), 2: (0.3, 0.6), 3: (0.45, 0.85)}
"""Nanoseconds per sample read or written: in torch's usual layout, and with channels last."""


class Spectral(NamedTuple):
    """Nanoseconds per unit of the parts of a product of spectra."""

    forward: float
    """Per point and factor of two of a transform of maps."""
    inverse: float
    exchange: float
    """Per point of a spectrum that is turned to put its frequencies first, and back."""
    product: float
    """Per multiply-add between channels (matrices), or per point (elements)."""
    kernels: float
    """Per point of the kernels' spectra, written and read."""
    columns: float
    """Per multiply-add with parts of the Fourier matrix."""
    kernel_transform: float
    """Per point and factor of two of a transform of padded kernels."""
    start: float


_MATRICES = {
    1: Spectral(0.07, 0.04, 2.8, 0.024, 0.15, 0.02, 0.18, 3e5),
    2: Spectral(0.02, 0.06, 5.0, 0.016, 0.7, 0.014, 0.2, 1e5),
    3: Spectral(0.02, 0.05, 8.0, 0.021, 0.6, 0.02, 0.2, 1e5),
}
_ELEMENTS = {
    1: Spectral(0.045, 0.01, 0.0, 2.5, 0.0, 0.0, 0.2, 1e5),
    2: Spectral(0.025, 0.01, 0.0, 5.9, 0.0, 0.0, 0.06, 5e4),
    3: Spectral(0.01, 0.01, 0.0, 9.4, 0.0, 0.0, 0.07, 5e4),
}


_WHOLE = {1: 1.0, 2: 1.3, 3: 1.0}
"""Time of a whole product by matrices over the sum of its parts, each fitted alone: there are
caches to be filled again between them."""

_CUT = 0.3
"""Nanoseconds per point of overlapping blocks that are copied out, or added up."""


_REAL_PRODUCT = 0.012
"""Nanoseconds per multiply-add of a large matrix product."""

_ALL_MAPS = 3.0
"""Nanoseconds per sample of all maps, held at once where they could be taken in turn."""


_PADDING = 0.2
"""Nanoseconds per sample of a map that is padded beforehand."""


def direct_cost(geometry: Geometry, product: str, *, channels_last: bool) -> float:
    """Nanoseconds of a product by torch's own operation."""
    samples = geometry.batch * (
        geometry.in_channels * math.prod(geometry.size)
        + geometry.out_channels * math.prod(geometry.output_size)
    )
    if product == "weight_gradient" and is_passed_over(geometry):
        picoseconds = _PLAIN_GRADIENT
    elif product == "weight_gradient":
        picoseconds = _gradient_rate(geometry, channels_last=channels_last)
    else:
        picoseconds = _rate(geometry, product, channels_last=channels_last)
    if product == "input_gradient" and max(geometry.stride) > 1:
        picoseconds *= 2
    macs: float = geometry.macs
    per_sample = _PER_SAMPLE[geometry.ndim][channels_last]
    if product != "weight_gradient":
        if pads_first(geometry, channels_last=channels_last):
            per_sample += _PADDING
        else:
            macs *= geometry.inside
    return picoseconds * 1e-3 * macs + per_sample * samples + 2e4


def step_cost(geometry: Geometry, *, channels_last: bool) -> float:
    """Nanoseconds of a training step by torch's own operation and its own derivative."""
    cost = sum(
        direct_cost(geometry, product, channels_last=channels_last)
        for product in ("output", "input_gradient", "weight_gradient")
    )
    if channels_last:
        usual, last = _PER_SAMPLE[geometry.ndim]
        samples = geometry.in_channels * math.prod(geometry.size)
        samples += geometry.out_channels * math.prod(geometry.output_size)
        # Input and gradient are each turned once for two products.
        return cost - (last - usual) * geometry.batch * samples
    inputs, outputs = geometry.in_channels, geometry.out_channels
    if geometry.groups == 1 and min(inputs, outputs) < LANES:
        rate = _NARROW_GRADIENT * _idle(inputs) * _idle(outputs)
        usually = _rate(geometry, "input_gradient", channels_last=False)
        cost += 1e-3 * (rate - usually) * geometry.macs * geometry.inside
    return cost


@lru_cache(maxsize=4096)
def is_better_turned(geometry: Geometry, *, in_training: bool) -> bool:
    """Whether torch's own operation, or a training step with it, is faster with channels last.

    Not where channels are not mixed, nor with the few of an image, for which torch has operations
    of its own.
    """
    few = geometry.in_channels <= _IMAGE or geometry.out_channels == 1
    if few or geometry.group_inputs == 1 or is_passed_over(geometry):
        return False
    usual, last = (
        step_cost(geometry, channels_last=turned)
        if in_training
        else direct_cost(geometry, "output", channels_last=turned)
        for turned in (False, True)
    )
    return last < usual


def _rate(geometry: Geometry, product: str, *, channels_last: bool) -> float:
    """Picoseconds per multiply-add of a forward convolution, or the one that is its adjoint."""
    outputs, inputs = geometry.group_outputs, geometry.group_inputs
    if product == "input_gradient":
        outputs, inputs = inputs, outputs
    if geometry.groups == 1:
        rate = _dense_rate(geometry, channels_last=channels_last) * _idle(outputs)
        return rate * _unevenness(outputs, channels_last=channels_last)
    if inputs > 1 or outputs > 1:
        if min(inputs, outputs) == 1:
            return 80.0 if inputs == 1 else 180.0
        return 9.5 * (LANES / outputs if outputs < 4 else max(8 / outputs, 1.0))
    if geometry.ndim == 3:
        return 15.0 if channels_last else 17.5
    return 14.5


def _dense_rate(geometry: Geometry, *, channels_last: bool) -> float:
    if geometry.ndim == 3:
        return 10.0 if channels_last else 14.0
    return 10.0 if channels_last else 9.0


def _idle(channels: int) -> float:
    return -(-channels // LANES) * LANES / channels


def _unevenness(outputs: int, *, channels_last: bool) -> float:
    full = outputs % LANES == 0 or outputs == LANES // 2
    return 1.0 if full or channels_last else _UNEVEN_CHANNELS


def _gradient_rate(geometry: Geometry, *, channels_last: bool) -> float:
    """Picoseconds per multiply-add of torch's weight gradient."""
    ndim, outputs = geometry.ndim, geometry.group_outputs
    large = max(geometry.kernel) > _LARGE[ndim]
    if geometry.groups > 1 and geometry.group_inputs == 1:
        return _depthwise_gradient_rate(geometry, large, channels_last=channels_last)
    if geometry.groups > 1 and outputs < 8:
        return (90.0 if large else 45.0) if channels_last else 400.0 / outputs + 40.0
    if large:
        # Past about a million multiply-adds per pair of channels the channels-last operation
        # leaves its fast implementation, and takes a hundred times as long.
        lost = ndim == 2 and geometry.taps * math.prod(geometry.output_size) > 5e5
        if channels_last and lost:
            return 2500.0
        share = _CHANNELS_LAST_SHARE[ndim] if channels_last else 1.0
        return share * (8.0 + _UNEVEN[ndim] / outputs)
    if ndim == 3:
        full = outputs % LANES == geometry.group_inputs % LANES == 0
        rates = (15.0, 13.0) if full else (40.0, 20.0)
        return rates[channels_last]
    dense = 10.5 * _idle(outputs) * _unevenness(outputs, channels_last=channels_last)
    return 13.0 if geometry.groups > 1 else dense


def _depthwise_gradient_rate(geometry: Geometry, large: bool, *, channels_last: bool) -> float:
    if geometry.ndim == 3:
        return 115.0 if channels_last else 340.0
    if max(geometry.kernel) < 5:
        return 140.0 if channels_last else 60.0
    if not channels_last:
        return 370.0
    return 450.0 if large or geometry.ndim == 1 else 160.0


def spectral_cost(geometry: Geometry, blocks: Blocks, products: tuple[str, ...]) -> float:
    """Nanoseconds of one product, or of both gradients at once, through the transform."""
    inputs, outputs = geometry.in_channels, geometry.out_channels
    back = "input_gradient" in products
    weights = "weight_gradient" in products
    forward = (inputs if weights or not (back or weights) else 0) + (
        outputs if back or weights else 0
    )
    inverse = outputs if "output" in products else inputs if back else 0
    kernels = ("output" in products or back) + weights
    rows, points = geometry.batch * blocks.per_map, math.prod(blocks.lengths)
    doublings = max(math.log2(points), 1.0)
    pairs = outputs * geometry.group_inputs
    elements = geometry.group_inputs == 1
    rates = (_ELEMENTS if elements else _MATRICES)[geometry.ndim]
    cost = rows * points * doublings * (forward * rates.forward + inverse * rates.inverse)
    if blocks.per_map > 1:
        cost += _CUT * rows * points * (forward + inverse)
    if elements:
        cost += rates.product * len(products) * rows * outputs * blocks.frequencies
    else:
        cost += rates.exchange * rows * (forward + inverse) * blocks.frequencies
        cost += rates.product * len(products) * 4 * blocks.frequencies * rows * pairs
        cost += rates.kernels * (kernels + len(products)) * blocks.frequencies * pairs
    cost += kernels * pairs * _kernel_transform(geometry, blocks, rates)
    return (cost + rates.start) * (1.0 if elements else _WHOLE[geometry.ndim])


def _kernel_transform(geometry: Geometry, blocks: Blocks, rates: Spectral) -> float:
    """Nanoseconds of the transform of one kernel, there or back."""
    if geometry.group_inputs > 1 and by_matrix(geometry.kernel, blocks.lengths):
        return rates.columns * 4 * matrix_work(geometry.kernel, blocks.half)
    points = math.prod(blocks.lengths)
    return rates.kernel_transform * points * max(math.log2(points), 1.0)


def factored_saves(geometry: Geometry, blocks: Blocks, functions: int) -> bool:
    """Whether spectra of ``functions`` shared functions cost less than those of all kernels.

    Counted is what differs in a training step: rendering kernels, transforming them forward twice
    and back once, against four products at each frequency.
    """
    if geometry.group_inputs == 1:
        return False
    pairs = geometry.out_channels * geometry.group_inputs
    rates = _MATRICES[geometry.ndim]
    transform = _kernel_transform(geometry, blocks, rates) + rates.kernels * blocks.frequencies
    rendered = 3 * pairs * (transform + _REAL_PRODUCT * functions * geometry.taps)
    factored = 4 * pairs * 4 * _REAL_PRODUCT * functions * blocks.frequencies
    samples = geometry.batch * geometry.in_channels * blocks.per_map * math.prod(blocks.lengths)
    factored += _ALL_MAPS * samples
    return factored < rendered
