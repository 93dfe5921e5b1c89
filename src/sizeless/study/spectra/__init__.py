"""Which frequencies kernels let through."""

from sizeless.study.spectra.responses import Spectra, spectra

__all__ = ["Spectra", "spectra"]
