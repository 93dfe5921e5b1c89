"""PyTorch layers that learn their own size.

Kernel size (``FlexConv2d``), filter extent in frequency (``NIFFConv2d``) and stride
(``DiffStride2d``) are parameters, trained by gradient descent with the weights, in one, two
and three dimensions.
"""

from sizeless import compat, functional, kernels, models, nn, surgery
from sizeless.budget import CostBudget
from sizeless.cost import Cost, CostRow, cost
from sizeless.machine import Machine
from sizeless.nn import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    DiffStrideResidual1d,
    DiffStrideResidual2d,
    DiffStrideResidual3d,
    FlexConv1d,
    FlexConv2d,
    FlexConv3d,
    NIFFConv1d,
    NIFFConv2d,
    NIFFConv3d,
    PooledNIFFConv1d,
    PooledNIFFConv2d,
    PooledNIFFConv3d,
    SeparableFlexConv1d,
    SeparableFlexConv2d,
    SeparableFlexConv3d,
    SeparableNIFFConv1d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
    cached_kernels,
)
from sizeless.penalties import aliasing_penalty, complexity_penalty
from sizeless.sizes import (
    SizeRow,
    change_resolution_,
    param_groups,
    project_sizes_,
    refresh_sizes,
    sizes,
)
from sizeless.surgery import convert, fold

__version__ = "0.1.0"

__all__ = [
    "Cost",
    "CostBudget",
    "CostRow",
    "DiffStride1d",
    "DiffStride2d",
    "DiffStride3d",
    "DiffStrideResidual1d",
    "DiffStrideResidual2d",
    "DiffStrideResidual3d",
    "FlexConv1d",
    "FlexConv2d",
    "FlexConv3d",
    "Machine",
    "NIFFConv1d",
    "NIFFConv2d",
    "NIFFConv3d",
    "PooledNIFFConv1d",
    "PooledNIFFConv2d",
    "PooledNIFFConv3d",
    "SeparableFlexConv1d",
    "SeparableFlexConv2d",
    "SeparableFlexConv3d",
    "SeparableNIFFConv1d",
    "SeparableNIFFConv2d",
    "SeparableNIFFConv3d",
    "SizeRow",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "aliasing_penalty",
    "cached_kernels",
    "change_resolution_",
    "compat",
    "complexity_penalty",
    "convert",
    "cost",
    "fold",
    "functional",
    "kernels",
    "models",
    "nn",
    "param_groups",
    "project_sizes_",
    "refresh_sizes",
    "sizes",
    "surgery",
]
