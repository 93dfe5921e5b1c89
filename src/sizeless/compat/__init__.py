"""The authors' checkpoints and exact layers."""

from sizeless.compat.diffstride import OfficialDiffStride2d, OfficialSpectralPool2d
from sizeless.compat.flexconv import load_official_flexconv
from sizeless.compat.niff import OfficialFullNIFF2d, niff_from_official

__all__ = [
    "OfficialDiffStride2d",
    "OfficialFullNIFF2d",
    "OfficialSpectralPool2d",
    "load_official_flexconv",
    "niff_from_official",
]
