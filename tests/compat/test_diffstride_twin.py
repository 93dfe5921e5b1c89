"""The authors' DiffStride and spectral pooling against explicit DFT matrices."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeless.compat.diffstride import OfficialDiffStride2d, OfficialSpectralPool2d


def signed(index: int, length: int) -> int:
    """Return the frequency of a DFT bin, from ``-length // 2`` up."""
    return index if index < (length + 1) // 2 else index - length


def row_position(frequency: int, height: int) -> int:
    """Return the ramp's position of a signed frequency."""
    if frequency < 0:
        return -frequency - 1
    # Odd heights: one bin further out, except the highest frequency, which has no room.
    return min(frequency + height % 2, height // 2)


class Twin:
    """DiffStride by explicit DFT matrices and its gradients by their closed formulas."""

    def __init__(
        self,
        x: np.ndarray,
        strides: tuple[float, float],
        smoothness: float,
        crop: bool,
        limits: tuple[float, float] = (1.0, math.inf),
    ) -> None:
        self.x, self.smoothness = x, smoothness
        extents = x.shape[-2:]
        self.ramps, self.slopes, self.bins = [], [], []
        for axis, extent in enumerate(extents):
            raised = strides[axis]
            if extent > smoothness:
                raised = max(raised, extent / (extent - smoothness))
            used = min(max(raised, limits[0]), limits[1])
            end = max(extent / used, 2.0) / 2 + axis
            if axis == 0:
                frequencies = [signed(i, extent) for i in range(extent)]
                positions = [row_position(f, extent) for f in frequencies]
            else:
                frequencies = positions = list(range(extent // 2 + 1))
            ramp = (smoothness + end - np.array(positions)) * (1 / smoothness)
            slope = -extent / (2 * smoothness * used**2) * ((ramp >= 0) & (ramp <= 1))
            if extent / used < 2 or not limits[0] <= raised <= limits[1]:
                slope = slope * 0
            keep = ramp > 0 if crop else np.ones(len(ramp), dtype=bool)
            self.ramps.append(ramp.clip(0, 1)[keep])
            self.slopes.append(slope[keep])
            self.bins.append(np.array(frequencies)[keep])
        self.size = len(self.bins[0]), 2 * (len(self.bins[1]) - 1)

    def factors(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Return analysis (kept bins x input) and synthesis (output x kept bins), unweighted."""
        extent, size, bins = self.x.shape[-2:][axis], self.size[axis], self.bins[axis]
        analysis = np.exp(-2j * np.pi * np.outer(bins, np.arange(extent)) / extent)
        synthesis = np.exp(2j * np.pi * np.outer(np.arange(size), np.arange(len(bins))) / size)
        if axis == 1:
            synthesis[:, 1:-1] *= 2
        return analysis, synthesis / size

    def run(self, w: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Return the output or, given the loss weights, the three gradients."""
        (rows_in, rows_out), (columns_in, columns_out) = self.factors(0), self.factors(1)
        weights = np.outer(*self.ramps)
        if w is None:
            spectrum = np.einsum("ih,nchw,jw->ncij", rows_in, self.x, columns_in)
            y = np.einsum("qi,ncij,vj->ncqv", rows_out, spectrum * weights, columns_out)
            return (y.real,)
        back = np.einsum("qi,ncqv,vj->ncij", rows_out, w, columns_out)
        gx = np.einsum("ih,ncij,jw->nchw", rows_in, back * weights, columns_in).real
        spectrum = np.einsum("ih,nchw,jw->ncij", rows_in, self.x, columns_in)
        share = (spectrum * back).real.sum((0, 1))
        vertical = self.slopes[0] @ share @ self.ramps[1]
        horizontal = self.ramps[0] @ share @ self.slopes[1]
        return gx, np.array([vertical, horizontal])


STRIDES = st.one_of(st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.0]), st.floats(1.0, 7.0))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 19),
    width=st.integers(2, 19),
    strides=st.tuples(STRIDES, STRIDES),
    smoothness=st.sampled_from([0.5, 1.25, 2.0, 3.0, 4.0]),
    crop=st.booleans(),
    shared=st.booleans(),
    limits=st.sampled_from([(None, None), (1.75, None), (None, 2.5), (1.5, 3.0)]),
)
def test_equals_the_naive_twin(
    height: int,
    width: int,
    strides: tuple[float, float],
    smoothness: float,
    crop: bool,
    shared: bool,
    limits: tuple[float | None, float | None],
) -> None:
    if smoothness in (height, width):
        smoothness += 0.25
    if shared:
        strides = (strides[0], strides[0])
    layer = OfficialDiffStride2d(strides, smoothness, crop, shared, *limits).double()
    with torch.no_grad():
        layer.strides.copy_(torch.tensor(strides[: len(layer.strides)], dtype=torch.float64))
    random = np.random.default_rng(height * 100 + width)
    array = random.standard_normal((2, 2, height, width))
    if shared:
        raised = [d / (d - smoothness) for d in (height, width)]
        strides = (max(strides[0], *raised),) * 2
    twin = Twin(array, strides, smoothness, crop, (limits[0] or 1.0, limits[1] or math.inf))
    assert layer.output_size((height, width)) == twin.size
    x = torch.from_numpy(array).requires_grad_()
    y = layer(x)
    w = random.standard_normal(twin.size)[None, None].repeat(2, 0).repeat(2, 1)
    (y * torch.from_numpy(w)).sum().backward()
    assert x.grad is not None
    assert layer.strides.grad is not None
    gx, gs = twin.run(w)
    expected_gs = gs.sum(keepdims=True) if shared else gs
    scale = float(np.abs(w).max()) * height * width
    np.testing.assert_allclose(y.detach().numpy(), twin.run()[0], rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(x.grad.numpy(), gx, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(layer.strides.grad.numpy(), expected_gs, rtol=0, atol=1e-9 * scale)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(height=st.integers(2, 20), width=st.integers(2, 20), strides=st.tuples(STRIDES, STRIDES))
def test_spectral_pool_equals_explicit_matrices(
    height: int, width: int, strides: tuple[float, float]
) -> None:
    layer = OfficialSpectralPool2d(strides)
    rows, columns = layer.output_size((height, width))
    array = np.random.default_rng(0).standard_normal((1, 2, height, width))
    half, last = rows // 2, columns // 2
    frequencies = np.r_[0:half, -half:0]
    analysis = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(height)) / height)
    synthesis = np.exp(2j * np.pi * np.outer(np.arange(rows), frequencies) / rows) / rows
    across = np.exp(-2j * np.pi * np.outer(np.arange(last + 1), np.arange(width)) / width)
    counts = np.where(
        (np.arange(last + 1) % columns == 0) | (np.arange(last + 1) * 2 == columns), 1, 2
    )
    back = np.exp(2j * np.pi * np.outer(np.arange(columns), np.arange(last + 1)) / columns)
    operator = synthesis @ analysis
    expected = (operator @ array @ (across.T * counts) @ back.T).real / columns
    actual = layer(torch.from_numpy(array)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10)
