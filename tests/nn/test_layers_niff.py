"""NIFF against its twin and the rules of ``layer_case``."""

from __future__ import annotations

import pytest

from sizeless.functional import circular_spectra, naive
from sizeless.nn import (
    NIFFConv1d,
    NIFFConv2d,
    NIFFConv3d,
    SeparableNIFFConv1d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
)

from . import references
from .layer_case import Compiled, EndsInConv3d, LayerCase


class NIFFConvCase(LayerCase):
    maps = ((4, 3), (3, 4), (1, 2))

    def twin(self, layer, input):
        return references.niff(layer, input)

    def shown(self, layer):
        return f"boundary={layer.boundary!r}, frequency_unit={layer.frequency_unit!r}"


class TestNIFFConv1d(NIFFConvCase):
    maps = ((8,), (7,), (1,), (2,))

    def make(self, **factory):
        return NIFFConv1d(2, 3, bias=True, **factory)


class TestNIFFConv1dZeros(Compiled, NIFFConvCase):
    maps = ((8,), (7,), (1,))

    def make(self, **factory):
        return NIFFConv1d(2, 2, 2, boundary="zeros", **factory)


class TestNIFFConv2dDepthwise(Compiled, NIFFConvCase):
    maps = ((4, 5), (5, 4), (4, 4), (3, 3), (1, 4), (4, 1))

    def make(self, **factory):
        return NIFFConv2d(2, 2, groups=2, **factory)


class TestNIFFConv2dTransformed(Compiled, NIFFConvCase):
    """As on maps that are too large for a matrix."""

    @pytest.fixture(autouse=True)
    def _no_map_is_small(self, monkeypatch):
        monkeypatch.setattr(circular_spectra, "SMALL", 1)

    def make(self, **factory):
        return NIFFConv2d(2, 2, groups=2, bias=True, **factory)


class TestNIFFConv2dFull(NIFFConvCase):
    def make(self, **factory):
        return NIFFConv2d(2, 3, hidden=(4,), bias=True, frequency_unit="cycles/pixel", **factory)


class TestNIFFConv2dGroupedZeros(NIFFConvCase):
    channels = 4

    def make(self, **factory):
        options = {"boundary": "zeros", "frequency_unit": "cycles/pixel", "hidden": (3, 4, 2)}
        return NIFFConv2d(4, 2, groups=2, bias=True, **options, **factory)


class TestNIFFConv3d(NIFFConvCase):
    maps = ((2, 3, 4), (1, 4, 3))

    def make(self, **factory):
        return NIFFConv3d(2, 2, groups=1, **factory)


class TestNIFFConv3dZeros(NIFFConvCase):
    maps = ((2, 3, 2), (3, 1, 2))

    def make(self, **factory):
        return NIFFConv3d(2, 2, groups=2, boundary="zeros", **factory)


class SeparableNIFFConvCase(NIFFConvCase):
    def twin(self, layer, input):
        hidden = references.niff(layer.depthwise, input)
        return naive.convolve(hidden, layer.pointwise.weight, layer.pointwise.bias)

    def shown(self, layer):
        return super().shown(layer.depthwise)


class TestSeparableNIFFConv1d(SeparableNIFFConvCase):
    maps = ((6,), (5,))

    def make(self, **factory):
        return SeparableNIFFConv1d(2, 3, bias=True, **factory)


class TestSeparableNIFFConv2d(SeparableNIFFConvCase):
    def make(self, **factory):
        return SeparableNIFFConv2d(2, 3, hidden=(4,), **factory)


class TestSeparableNIFFConv3d(EndsInConv3d, SeparableNIFFConvCase):
    maps = ((2, 3, 3), (1, 2, 3))

    def make(self, **factory):
        return SeparableNIFFConv3d(2, 3, boundary="zeros", **factory)
