"""NIFF with a pooling against its twin and the rules of ``layer_case``."""

from __future__ import annotations

import pytest

from sizeless.functional import circular_spectra, naive
from sizeless.nn import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    PooledNIFFConv1d,
    PooledNIFFConv2d,
    PooledNIFFConv3d,
    SpectralPool2d,
)

from . import references
from .layer_case import Compiled, LayerCase, SizedLayerCase


class PooledCase(LayerCase):
    maps = ((8, 7), (7, 8), (1, 6))

    def prepare(self, layer):
        super().prepare(layer)
        # Away from the initial stride.
        layer.pool.log2_stride.data += 0.03

    def twin(self, layer, input):
        return references.diffstride(layer.pool, references.niff(layer.conv, input))

    def shown(self, layer):
        return f"stride={tuple(round(stride, 2) for stride in layer.pool.stride)}"


class TestPooledNIFFConv1d(PooledCase, SizedLayerCase):
    maps = ((24,), (21,), (1,))

    def make(self, **factory):
        pool = DiffStride1d(2.3, size_rule="exact", **factory)
        return PooledNIFFConv1d(2, 3, bias=True, pool=pool, **factory)


class TestPooledNIFFConv2dDepthwise(PooledCase, SizedLayerCase, Compiled):
    maps = ((8, 7), (7, 8), (8, 8), (1, 6), (6, 1))

    def make(self, **factory):
        pool = DiffStride2d((1.9, 1.7), size_rule="exact", **factory)
        return PooledNIFFConv2d(2, 2, groups=2, bias=True, pool=pool, **factory)


class TestPooledNIFFConv2dTransformed(PooledCase, SizedLayerCase):
    """As on maps that are too large for a matrix."""

    @pytest.fixture(autouse=True)
    def _no_map_is_small(self, monkeypatch):
        monkeypatch.setattr(circular_spectra, "SMALL", 0)

    def make(self, **factory):
        pool = DiffStride2d((1.9, 1.7), size_rule="exact", **factory)
        return PooledNIFFConv2d(2, 4, groups=2, pool=pool, **factory)


class TestPooledNIFFConv2dFull(PooledCase, SizedLayerCase):
    maps = ((12, 11), (11, 10), (1, 9))

    def make(self, **factory):
        pool = DiffStride2d((2.3, 2.6), smoothness=1.5, amplitude="sum", **factory)
        options = {"hidden": (4,), "frequency_unit": "cycles/pixel"}
        return PooledNIFFConv2d(2, 3, bias=True, pool=pool, **options, **factory)


class TestPooledNIFFConv2dZeros(PooledCase, SizedLayerCase):
    """Zeros around the map: one layer after the other."""

    maps = ((6, 5), (1, 4))

    def make(self, **factory):
        pool = DiffStride2d((1.9, 1.7), size_rule="exact", **factory)
        return PooledNIFFConv2d(2, 2, groups=2, boundary="zeros", pool=pool, **factory)


class TestPooledNIFFConv2dFixed(PooledCase):
    def prepare(self, layer):
        LayerCase.prepare(self, layer)

    def make(self, **factory):
        return PooledNIFFConv2d(2, 2, groups=2, pool=SpectralPool2d(1.7), **factory)

    def twin(self, layer, input):
        sizes = layer.pool.output_size(tuple(input.shape[2:]))
        return naive.resample(references.niff(layer.conv, input), sizes)

    def shown(self, layer):
        return f"stride={layer.pool.stride}"


class TestPooledNIFFConv3d(PooledCase, SizedLayerCase):
    maps = ((4, 5, 6), (5, 1, 4))

    def make(self, **factory):
        pool = DiffStride3d(1.7, size_rule="exact", **factory)
        return PooledNIFFConv3d(2, 2, pool=pool, **factory)
