"""Continuous kernels: small networks from coordinates to kernel values."""

from sizeless.kernels.base import ContinuousKernel
from sizeless.kernels.grid import coordinate_axis, coordinate_grid
from sizeless.kernels.multiplicative import Fourier, Gabor, MAGNet, MultiplicativeNetwork
from sizeless.kernels.perceptrons import MLP, NSIREN, SIREN

__all__ = [
    "MLP",
    "NSIREN",
    "SIREN",
    "ContinuousKernel",
    "Fourier",
    "Gabor",
    "MAGNet",
    "MultiplicativeNetwork",
    "coordinate_axis",
    "coordinate_grid",
]
