"""Layers that learn their own size."""

from sizeless.nn.caching import cached_kernels
from sizeless.nn.diffstride import DiffStride1d, DiffStride2d, DiffStride3d, DiffStrideNd
from sizeless.nn.flexconv import FlexConv1d, FlexConv2d, FlexConv3d, FlexConvNd
from sizeless.nn.niff import NIFFConv1d, NIFFConv2d, NIFFConv3d, NIFFConvNd
from sizeless.nn.pooled import (
    PooledNIFFConv1d,
    PooledNIFFConv2d,
    PooledNIFFConv3d,
    PooledNIFFConvNd,
)
from sizeless.nn.residual import (
    DiffStrideResidual1d,
    DiffStrideResidual2d,
    DiffStrideResidual3d,
    DiffStrideResidualNd,
)
from sizeless.nn.separable import (
    SeparableFlexConv1d,
    SeparableFlexConv2d,
    SeparableFlexConv3d,
    SeparableNIFFConv1d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
)
from sizeless.nn.sized import Size, SizeParameters
from sizeless.nn.spectral_pool import (
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
    SpectralPoolNd,
)
from sizeless.nn.window import GaussianWindow

__all__ = [
    "DiffStride1d",
    "DiffStride2d",
    "DiffStride3d",
    "DiffStrideNd",
    "DiffStrideResidual1d",
    "DiffStrideResidual2d",
    "DiffStrideResidual3d",
    "DiffStrideResidualNd",
    "FlexConv1d",
    "FlexConv2d",
    "FlexConv3d",
    "FlexConvNd",
    "GaussianWindow",
    "NIFFConv1d",
    "NIFFConv2d",
    "NIFFConv3d",
    "NIFFConvNd",
    "PooledNIFFConv1d",
    "PooledNIFFConv2d",
    "PooledNIFFConv3d",
    "PooledNIFFConvNd",
    "SeparableFlexConv1d",
    "SeparableFlexConv2d",
    "SeparableFlexConv3d",
    "SeparableNIFFConv1d",
    "SeparableNIFFConv2d",
    "SeparableNIFFConv3d",
    "Size",
    "SizeParameters",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "SpectralPoolNd",
    "cached_kernels",
]
