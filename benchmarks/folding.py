"""Time folded layers in ONNX Runtime beside the same layers with Fourier transforms.

    pip install -e '.[bench,export]'
    python benchmarks/folding.py

One thread of the CPU, one sample. Contenders of a case take turns, in an order that changes from
round to round; times are medians over the rounds, and ratios are medians of the ratios within a
round. Each is compared with the learned layer first. Writes ``folding.csv`` beside this file.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sizeless
from sizeless import models
from sizeless._files import write_text
from sizeless.bench.machine import now
from sizeless.bench.timing import Plan, Timing, measure, paired_ratio
from sizeless.export import to_onnx
from sizeless.export.onnx_file import session
from sizeless.functional.plan_table import processor
from sizeless.surgery import architecture

SIDE, OTHER_SIDE, CHANNELS, DENSE, KERNEL = 32, 28, 64, 16, 15
ALLOWED = 1e-4
"""Largest relative error of a contender."""

Case = tuple[str, nn.Module, Tensor, dict[str, nn.Module]]

FILE = Path(__file__).with_suffix(".csv")


class Transforms(nn.Module):
    """A convolution as the product of spectra, with ``torch.fft``: what fold spares ONNX.

    Args:
        weight: Kernel of a correlation, ``(out, in / groups, *taps)``.
        groups: Groups of channels: 1, or as many as there are.
        size: Spatial size of the maps.
        circular: Whether maps wrap around; else there are zeros around them.
    """

    def __init__(self, weight: Tensor, groups: int, size: tuple[int, int], circular: bool) -> None:
        super().__init__()
        taps = tuple(weight.shape[2:])
        # Padded to a power of two, for which ONNX Runtime has a fast transform.
        linear = (n + k - 1 for n, k in zip(size, taps, strict=True))
        self.period = size if circular else tuple(1 << (n - 1).bit_length() for n in linear)
        self.starts = (0, 0) if circular else tuple((k - 1) // 2 for k in taps)
        self.size, self.depthwise = size, groups > 1
        kernel = weight.flip((2, 3))
        if circular:
            # The middle tap, which is at 0.
            kernel = kernel.roll(tuple(-(k // 2) for k in taps), (2, 3))
        spectrum = torch.fft.rfft2(kernel, s=self.period)
        # Real and imaginary part: ONNX has no complex constants.
        self.register_buffer("spectrum", torch.view_as_real(spectrum).contiguous())

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, in, H, W)`` to ``(N, out, H, W)``."""
        spectra = torch.view_as_real(torch.fft.rfft2(input, s=self.period))
        ours, theirs = spectra.unbind(-1), self.spectrum.unbind(-1)
        if self.depthwise:
            real, imag = (part[:, 0] for part in theirs)
            product = (ours[0] * real - ours[1] * imag, ours[0] * imag + ours[1] * real)
        else:
            product = (
                _mix(ours[0], theirs[0]) - _mix(ours[1], theirs[1]),
                _mix(ours[0], theirs[1]) + _mix(ours[1], theirs[0]),
            )
        spectrum = torch.view_as_complex(torch.stack(product, dim=-1))
        output = torch.fft.irfft2(spectrum, s=self.period)
        top, left = self.starts
        return output[..., top : top + self.size[0], left : left + self.size[1]]


def _mix(input: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("nihw,oihw->nohw", input, weight)


class Cropped(nn.Module):
    """Spectral pooling as its paper does it: crop the spectrum, with ``torch.fft``."""

    def __init__(self, stride: sizeless.DiffStride2d, size: tuple[int, int]) -> None:
        super().__init__()
        self.output = stride.output_size(size)
        self.shares = size[0] / self.output[0] * size[1] / self.output[1]
        rows, columns = (
            # Of the waves, in the order constant, cosine, sine, ..., one for each frequency.
            torch.cat([gain[:1], gain[1::2]]) / gain[0]
            for gain in stride.resampling(torch.zeros(1, 1, *size)).gains
        )
        self.top, self.left, self.height = self.output[0] // 2, self.output[1] // 2, size[0]
        rows = torch.cat([rows[: (self.output[0] + 1) // 2], rows[1 : self.top + 1].flip(0)])
        self.register_buffer("gain", (rows[:, None] * columns[: self.left + 1]).detach())

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H', W')``."""
        spectra = torch.view_as_real(torch.fft.rfft2(input))[..., : self.left + 1, :]
        low = spectra[..., : (self.output[0] + 1) // 2, :, :]
        high = spectra[..., self.height - self.top :, :, :]
        kept = torch.cat([low, high], dim=-3) * self.gain[..., None]
        return torch.fft.irfft2(torch.view_as_complex(kept), s=self.output) / self.shares


def flexconv(channels: int, groups: int) -> sizeless.FlexConv2d:
    """A layer whose kernel has the size that is timed."""
    return sizeless.FlexConv2d(
        channels, channels, SIDE + 1, init_size=KERNEL, groups=groups, bias=False
    )


def cases() -> Iterator[Case]:
    """Yield name, learned layer, example, and the contenders of the folded layer."""
    for name, channels, groups in (("depthwise", CHANNELS, CHANNELS), ("dense", DENSE, 1)):
        flex = flexconv(channels, groups)
        transforms = Transforms(flex.weight.detach(), groups, (SIDE, SIDE), circular=False)
        yield (
            f"FlexConv, {name}, {KERNEL} taps, {channels} channels, {SIDE} px",
            flex,
            torch.randn(1, channels, SIDE, SIDE),
            {"transforms": transforms},
        )
        for side in (SIDE, OTHER_SIDE):
            niff = sizeless.NIFFConv2d(channels, channels, groups=groups)
            kernel = niff.spatial_kernel((side, side)).detach().flip((2, 3))
            yield (
                f"NIFF, {name}, {channels} channels, {side} px",
                niff,
                torch.randn(1, channels, side, side),
                {"transforms": Transforms(kernel, groups, (side, side), circular=True)},
            )
    stride = sizeless.DiffStride2d(2.2, size_rule="exact")
    cropped = Cropped(stride, (SIDE, SIDE))
    image = torch.randn(1, CHANNELS, SIDE, SIDE)
    yield f"DiffStride, {CHANNELS} channels, {SIDE} px", stride, image, {"transforms": cropped}
    yield network()


def network() -> Case:
    """A FlexNet, and an ordinary network of the same kernel sizes and weights."""
    net = models.flexnet3(3, 10).eval()
    ordinary = deepcopy(net)
    for path, entry in architecture(net).items():
        conv = getattr(nn, entry["class"])(**entry["arguments"])
        with torch.no_grad():
            conv.weight.copy_(net.get_submodule(path).weight)
            conv.bias.copy_(net.get_submodule(path).bias)
        ordinary.set_submodule(path, conv)
    return f"FlexNet-3, {SIDE} px", net, torch.randn(1, 3, SIDE, SIDE), {"ordinary": ordinary}


def exported(model: nn.Module, example: Tensor) -> bytes:
    """The ONNX file of a model that may have transforms."""
    made: Any = torch.onnx.export(model.eval(), (example,), dynamo=True, verbose=False)
    content: bytes = made.model_proto.SerializeToString()
    return content


def folded(model: nn.Module, example: Tensor, **options: Any) -> bytes:
    """The ONNX file of a folded model."""
    plain, _ = sizeless.fold(model, example, **options)
    with tempfile.TemporaryDirectory() as folder:
        return to_onnx(plain, example, Path(folder) / "model.onnx").path.read_bytes()


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row for each contender of each case."""
    for name, layer, example, others in cases():
        with torch.no_grad():
            expected = layer.eval()(example)
        files = {"folded": folded(layer, example)}
        if isinstance(layer, sizeless.NIFFConv2d):
            files["folded, 99 % of the energy"] = folded(layer, example, energy=0.99)
        files |= {other: exported(model, example) for other, model in others.items()}
        runs: dict[str, Callable[[], object]] = {}
        errors = {}
        for contender, content in files.items():
            run = session(content)
            (output,) = run(example)
            errors[contender] = float((output - expected).norm() / expected.norm())
            if "energy" not in contender and errors[contender] > ALLOWED:
                raise RuntimeError(f"{name}: {contender} is off by {errors[contender]:.1e}")
            runs[contender] = lambda run=run, example=example: run(example)
        timings = measure(runs, Plan(budget=20.0, least=15, most=200))
        for contender, timing in timings.items():
            first = timings["folded"]
            if not (isinstance(timing, Timing) and isinstance(first, Timing)):
                raise RuntimeError(f"{name}: {contender} cannot be timed: {timing}")
            yield {
                "case": name,
                "contender": contender,
                "ms": f"{1000 * timing.median:.4f}",
                "over_folded": f"{paired_ratio(timing, first):.3f}",
                "relative_error": f"{errors[contender]:.1e}",
                "bytes": len(files[contender]),
            }


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = {
        "processor": processor(),
        "threads": 1,
        "torch": version("torch"),
        "onnxruntime": version("onnxruntime"),
        "date": now()[:10],
    }
    text = io.StringIO()
    table = [{**row, **machine} for row in rows()]
    writer = csv.DictWriter(text, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(FILE, text.getvalue())


if __name__ == "__main__":
    main()
