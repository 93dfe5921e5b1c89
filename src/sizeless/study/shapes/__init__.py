"""Widths, axes and contours of kernels."""

from sizeless.study.shapes.shape import Shapes, shapes

__all__ = ["Shapes", "shapes"]
