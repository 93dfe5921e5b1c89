"""Layers with a stride against their twins and the rules of ``layer_case``."""

from __future__ import annotations

from torch import nn

from sizeless.functional import naive
from sizeless.nn import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    DiffStrideResidual1d,
    DiffStrideResidual2d,
    DiffStrideResidual3d,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
)

from . import references
from .layer_case import Compiled, EndsInConv3d, LayerCase, SizedLayerCase


class DiffStrideCase(SizedLayerCase):
    maps = ((12, 11), (11, 10), (1, 9))

    def prepare(self, layer):
        super().prepare(layer)
        # Away from the initial stride.
        layer.log2_stride.data += 0.03

    def twin(self, layer, input):
        return references.diffstride(layer, input)

    def shown(self, layer):
        return f"stride={tuple(round(stride, 2) for stride in layer.stride)}"


class TestDiffStride1d(DiffStrideCase):
    maps = ((24,), (21,), (1,))

    def make(self, **factory):
        return DiffStride1d(2.3, **factory)


class TestDiffStride1dExact(DiffStrideCase):
    maps = ((24,), (21,), (1,))

    def make(self, **factory):
        return DiffStride1d(3.1, size_rule="exact", **factory)


class TestDiffStride1dByFourier(Compiled, DiffStrideCase):
    maps = ((168,), (163,))

    def make(self, **factory):
        return DiffStride1d(5.3, size_rule="exact", transition=0.4, **factory)

    def twin(self, layer, input):
        return references.diffstride_long(layer, input)


class TestDiffStride1dAtItsLimit(DiffStrideCase):
    """A map smaller than the ramp: the stride is used at its limit, and still learns."""

    maps = ((4,), (5,), (3,))

    def make(self, **factory):
        return DiffStride1d(1.3, **factory)

    def twin(self, layer, input):
        return references.diffstride_long(layer, input)

    def test_first_and_second_derivatives_match_finite_differences(self):
        """At a limit they do not: gradients pass by decree, as the twin has it."""


class TestDiffStride2d(Compiled, DiffStrideCase):
    def make(self, **factory):
        return DiffStride2d((2.3, 2.6), smoothness=1.5, **factory)


class TestDiffStride2dSum(DiffStrideCase):
    def make(self, **factory):
        return DiffStride2d(2.3, smoothness=2, shared=True, amplitude="sum", **factory)


class TestDiffStride2dExact(Compiled, DiffStrideCase):
    def make(self, **factory):
        return DiffStride2d((1.7, 2.6), size_rule="exact", transition=0.5, **factory)


class TestDiffStride3d(DiffStrideCase):
    maps = ((6, 7, 8), (1, 8, 5))

    def make(self, **factory):
        return DiffStride3d((1.9, 2.3, 1.7), smoothness=1.0, **factory)


class TestDiffStride3dExact(DiffStrideCase):
    maps = ((6, 7, 8), (1, 8, 7))

    def make(self, **factory):
        return DiffStride3d(1.7, size_rule="exact", shared=True, **factory)


class SpectralPoolCase(LayerCase):
    def twin(self, layer, input):
        sizes = layer.output_size(tuple(input.shape[2:]))
        return naive.resample(input, sizes, amplitude=layer.amplitude)

    def shown(self, layer):
        return f"stride={layer.stride}"


class TestSpectralPool1d(SpectralPoolCase):
    maps = ((12,), (11,), (1,))

    def make(self, **_factory):
        return SpectralPool1d(1.7)


class TestSpectralPool1dFixed(SpectralPoolCase):
    maps = ((12,), (11,), (1,), (6,), (5,))

    def make(self, **_factory):
        return SpectralPool1d(output_size=6)

    def shown(self, layer):
        return "output_size=(6,)"


class TestSpectralPool2d(Compiled, SpectralPoolCase):
    maps = ((6, 9), (5, 8), (1, 3))

    def make(self, **_factory):
        return SpectralPool2d((2, 2.5))


class TestSpectralPool2dSum(SpectralPoolCase):
    maps = ((6, 9), (5, 8), (1, 3))

    def make(self, **_factory):
        return SpectralPool2d(1.5, amplitude="sum")


class TestSpectralPool3d(SpectralPoolCase):
    maps = ((3, 4, 5), (1, 2, 3))

    def make(self, **_factory):
        return SpectralPool3d(2)


class DiffStrideResidualCase(SizedLayerCase):
    def twin(self, layer, input):
        return references.residual(layer, input)

    def shown(self, layer):
        return f"stride={tuple(round(stride, 2) for stride in layer.pool.stride)}"


class TestDiffStrideResidual1d(DiffStrideResidualCase):
    maps = ((12,), (9,), (1,))

    def make(self, **factory):
        pool = DiffStride1d(2.3, size_rule="exact", **factory)
        return DiffStrideResidual1d(2, 3, pool, kernel_size=5, **factory)


class TestDiffStrideResidual2d(Compiled, DiffStrideResidualCase):
    maps = ((8, 7), (5, 8), (1, 6))

    def make(self, **factory):
        return DiffStrideResidual2d(2, 2, **factory)

    def prepare(self, layer):
        super().prepare(layer)
        # At stride 2, frequencies lie on the ramp's very end.
        nn.init.constant_(layer.pool.log2_stride, 0.77)


class TestDiffStrideResidual3d(EndsInConv3d, DiffStrideResidualCase):
    maps = ((4, 5, 6), (1, 4, 5))

    def make(self, **factory):
        pool = DiffStride3d(1.7, size_rule="exact", shared=True, **factory)
        return DiffStrideResidual3d(2, 3, pool, kernel_size=1, **factory)
