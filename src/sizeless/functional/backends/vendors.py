"""The back ends of this package: causal depthwise convolutions of sequences, on NVIDIA's devices.

They are written to the signatures that the libraries document, and have been compared with our own
products through stand-ins of the same signature only: nothing here has been run on a GPU yet.
Every kind of call is compared with ours at its first use, and a back end that differs is dropped.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sizeless.functional.backends.registry import Backend, Call
from sizeless.functional.geometry import Geometry

MOST_SAMPLES = 2**31 - 1
"""Samples of a map, as it is handed over, that 32-bit indices reach."""


class CausalDepthwise(Backend):
    """Depthwise convolutions of a sequence, by an operation that computes causal ones.

    Other padding is made of it: zeros after the sequence delay its end, and outputs that come too
    early are cut off.
    """

    library: str
    operation: tuple[str, str]
    """Its module and name; it takes the sequences ``(N, C, size)`` and the taps ``(C, taps)``."""
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16)
    kernels: tuple[int, int]
    """Fewest and most taps."""

    def available(self) -> bool:
        """Return whether the library can be imported, and its device is there."""
        return (
            torch.cuda.is_available()
            and find_spec(self.library) is not None
            and self.accepts(import_module(self.library))
        )

    def accepts(self, library: Any) -> bool:
        """Return whether the library has the operation, and note its version."""
        self.version = str(library.__version__)
        return True

    def supports(self, call: Call) -> bool:
        """Return whether the sequence, its kernels and their dtype are what the library takes."""
        geometry = call.geometry
        fewest, most = self.kernels
        return (
            geometry.ndim == 1
            and call.is_depthwise
            and geometry.stride == geometry.dilation == (1,)
            and call.dtype in self.dtypes
            and fewest <= geometry.taps <= most
            and geometry.batch * geometry.in_channels * self.length(geometry) <= MOST_SAMPLES
        )

    def length(self, geometry: Geometry) -> int:
        """Return the samples of a sequence as the library works on it."""
        ((before, after),) = geometry.amounts
        return geometry.size[0] + max(before - geometry.reach[0], 0) + after

    def run(self, input: Tensor, weight: Tensor, call: Call) -> Tensor:
        """Return the outputs ``(N, C, size)``."""
        ((before, after),) = call.geometry.amounts
        early = call.geometry.reach[0] - before
        if after or early < 0:
            input = F.pad(input, (max(-early, 0), after))
        module, name = self.operation
        causal = getattr(import_module(module), name)
        with torch.cuda.device_of(input):
            output: Tensor = causal(input.contiguous(), self.ordered(weight.squeeze(1)))
        return output[..., early:] if early > 0 else output

    def ordered(self, taps: Tensor) -> Tensor:
        """Return ``(C, taps)`` in the library's order: ours ends with the present sample."""
        return taps.contiguous()


class Cudnn(CausalDepthwise):
    """An operation of cuDNN, through the Python bindings of nvidia-cudnn-frontend."""

    library = "cudnn"
    since: int
    """First version of cuDNN that has the operation."""

    def accepts(self, library: Any) -> bool:
        """Return whether cuDNN is new enough, with bindings of the operation."""
        self.version = f"{library.__version__}/{library.backend_version()}"
        bound = hasattr(library, f"{self.operation[1]}_forward")
        return bound and library.backend_version() >= self.since


class CudnnFFT(Cudnn):
    """``cudnn.ops.fft_causal_conv1d``, by transforms: nvidia-cudnn-frontend 1.32, cuDNN 9.26.

    It pads kernels to a power of two of at least 128. Kernels that are longer than its blocks
    (16384 taps, 4096 in float64, 8192 on devices before Hopper) go through one transform of the
    sequence, padded to a power of two of up to 2 ** 23 samples.
    """

    name = "cudnn"
    operation = "cudnn.ops", "fft_causal_conv1d"
    since = 92600
    dtypes = (torch.float64, *CausalDepthwise.dtypes)
    kernels = (1, 2**23)

    def supports(self, call: Call) -> bool:
        """Return whether the sequence also fits in the longest transform."""
        return super().supports(call) and self.length(call.geometry) <= self.kernels[1]

    def length(self, geometry: Geometry) -> int:
        """Return the samples of a sequence that was padded to a power of two."""
        longest = max(super().length(geometry), *geometry.kernel, 128)
        return 1 << (longest - 1).bit_length()

    def ordered(self, taps: Tensor) -> Tensor:
        """Return the taps as an impulse response, which begins with the present sample."""
        return taps.flip(-1)


class CudnnDirect(Cudnn):
    """``cudnn.ops.causal_conv1d``, sums of 2 to 256 taps: cuDNN 9.22."""

    name = "cudnn-direct"
    operation = "cudnn.ops", "causal_conv1d"
    since = 92200
    kernels = (2, 256)


class CausalConv1d(CausalDepthwise):
    """``causal_conv1d_fn`` of Dao-AILab's causal-conv1d 1.7, sums of 2 to 4 taps."""

    name = "causal-conv1d"
    library = "causal_conv1d"
    operation = "causal_conv1d", "causal_conv1d_fn"
    kernels = (2, 4)


VENDORS = (CudnnFFT, CudnnDirect, CausalConv1d)
