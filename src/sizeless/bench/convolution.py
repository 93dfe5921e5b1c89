"""The suite ``convolve``: our choice of method against every other way to the same sum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sizeless.bench import literal, peers
from sizeless.bench.case import MODES, OURS, Case, Contender, Step, Transforms, one_line
from sizeless.bench.grid import GRID, QUICK, Point
from sizeless.bench.rows import Row, by
from sizeless.functional import convolve

SUITE = "convolve"
KEPT = "torch channels_last"
"""Torch with input, weight and gradient in another layout than ours from the start."""

AGAIN = "sizeless again"
"""The very call of ours once more, on inputs of its own: how far apart equals are measured."""

LIMIT = "bare transforms"
ROLES = {
    OURS: "ours",
    AGAIN: "again",
    "sizeless direct": "forced",
    "sizeless fft": "forced",
    "torch": "baseline",
    "torch converted": "baseline",
    KEPT: "layout",
    "textbook fft": "baseline",
    **dict.fromkeys(peers.PACKAGES, "peer"),
    LIMIT: "limit",
}

HOPELESS = 5.0
"""A contender slower than the best by this factor is measured once."""

GROWING = ("sizeless direct", "torch", "torch converted", KEPT, "DCLS")
"""Contenders whose work grows with the kernel."""

ABSURD, LONG = 30.0, 0.2
"""One of these that must be expected to be slower by this factor, and to take more than so many
seconds, is not tried: from some size on, torch's own take half a minute."""

ROOM = 3 * 2**30
"""Bytes that a contender's largest intermediate tensors may take."""

TOLERANCE = 1e-3
"""Largest error of a contender, relative to the largest value."""


class Prepared(NamedTuple):
    """A contender with its inputs.

    Attributes:
        forward: Computes the output.
        inputs: Leaves: the input, and weights.
        reference: The same output, by torch's direct convolution.
    """

    forward: Callable[[], Tensor]
    inputs: tuple[Tensor, ...]
    reference: Callable[[], Tensor]


def prepare(point: Point, name: str, mode: str, device: str) -> Prepared:
    """Build the inputs of a contender."""
    wanted = mode == "training"
    generator = torch.Generator(device).manual_seed(0)
    make = partial(torch.randn, generator=generator, device=device)
    input = make(point.input_shape).contiguous(memory_format=point.memory_format)
    if name == "DCLS":
        layer = peers.dcls_layer(point.weight_shape, point.groups, device)
        input.requires_grad_(wanted)
        return Prepared(
            lambda: layer(input),
            (input, *layer.parameters()),
            lambda: _torch(input, peers.dcls_kernel(layer), point.groups),
        )
    weight = make(point.weight_shape) / math.sqrt(math.prod(point.weight_shape[1:]))
    weight = weight.contiguous(memory_format=point.memory_format)
    if name == KEPT:
        input, weight = _channels_last(input, weight)
    input, weight = input.requires_grad_(wanted), weight.requires_grad_(wanted)
    return Prepared(
        partial(FUNCTIONS[name], input, weight, point.groups),
        (input, weight),
        partial(_reference, input, weight, point.groups),
    )


def _channels_last(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sequences have no such layout: they become images one pixel high."""
    if input.dim() == 3:
        input, weight = input.unsqueeze(2), weight.unsqueeze(2)
    layout = torch.channels_last_3d if input.dim() == 5 else torch.channels_last
    return input.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)


def _reference(input: Tensor, weight: Tensor, groups: int) -> Tensor:
    return _torch(input.contiguous(), weight.contiguous(), groups)


def _converted(input: Tensor, weight: Tensor, groups: int) -> Tensor:
    """By torch in the other memory layout, and back."""
    if input.is_contiguous():
        output = _torch(*_channels_last(input, weight), groups)
        return output.reshape(*output.shape[:2], *input.shape[2:]).contiguous()
    output = _torch(input.contiguous(), weight.contiguous(), groups)
    layout = torch.channels_last_3d if input.dim() == 5 else torch.channels_last
    return output.contiguous(memory_format=layout)


def _torch(input: Tensor, weight: Tensor, groups: int) -> Tensor:
    padding: Any = tuple(k // 2 for k in weight.shape[2:])
    return literal.DIRECT[input.dim() - 2](input, weight, padding=padding, groups=groups)


def _ours(input: Tensor, weight: Tensor, groups: int, method: str) -> Tensor:
    return convolve(input, weight, padding="same", groups=groups, method=method)


def _textbook(input: Tensor, weight: Tensor, groups: int) -> Tensor:
    return literal.fft_convolve(input, weight, [k // 2 for k in weight.shape[2:]], groups)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    OURS: partial(_ours, method="auto"),
    AGAIN: partial(_ours, method="auto"),
    "sizeless direct": partial(_ours, method="direct"),
    "sizeless fft": partial(_ours, method="fft"),
    "torch": _torch,
    "torch converted": _converted,
    KEPT: _torch,
    "textbook fft": _textbook,
    **{name: partial(peers.fft_convolve, name) for name in peers.PACKAGES if name != "DCLS"},
}


def transforms(point: Point, mode: str, device: str) -> Transforms:
    """Return the transforms that an FFT convolution cannot do without."""
    signals, spectra = [point.input_shape, point.weight_shape], [point.input_shape]
    if mode == "training":
        signals, spectra = [*signals, point.input_shape], [*spectra, *signals]
    return Transforms(signals, spectra, point.lengths, device)


def make_run(point: Point, name: str, mode: str, device: str) -> Callable[[], object]:
    """Build the inputs of a contender and return its run."""
    if name == LIMIT:
        return transforms(point, mode, device)
    prepared = prepare(point, name, mode, device)
    return Step(prepared.forward, prepared.inputs, mode, prepared.inputs[1:])


@cache
def disagreement(name: str, ndim: int, kind: str, layout: str, device: str) -> str:
    """Say how a contender's output or gradients differ from torch's on a small case, or ``""``."""
    try:
        prepared = prepare(Point(ndim, kind, 2, 8, 9, 5, layout), name, "training", device)
        outputs = prepared.forward(), prepared.reference()
        gradient = torch.randn_like(outputs[1])
        values = [
            (output, *torch.autograd.grad(output, prepared.inputs, gradient)) for output in outputs
        ]
    except Exception as error:
        return one_line(error)
    for place, (got, wanted) in enumerate(zip(*values, strict=True)):
        scale = wanted.detach().abs().max().clamp_min(1e-6)
        distance = float((got - wanted).detach().abs().max() / scale)
        if not distance <= TOLERANCE:
            what = "output" if place == 0 else f"gradient {place}"
            return f"{what} differs from torch's by {distance:.2g} of its largest value"
    return ""


class Skips:
    """Which contenders need not be tried on the larger kernels of a line."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._seen: dict[tuple[str, ...], tuple[Row, float]] = {}
        self.learn(rows)

    def learn(self, rows: Iterable[Row]) -> None:
        """Take note of how much slower than the best the growing contenders are."""
        rows = [row for row in rows if row.suite == SUITE]
        best: dict[tuple[str, str], float] = {}
        for row in rows:
            if row.median_ms and row.role not in {"limit", "layout"}:
                key = row.case, row.mode
                best[key] = min(best.get(key, math.inf), row.median_ms)
        for row in rows:
            if row.median_ms and row.contender in GROWING:
                times = row.median_ms / best[row.case, row.mode]
                line = row.kind, row.shape, row.layout, row.mode, row.contender
                self._seen[line] = row, times

    def apply(self, case: Case) -> Case:
        """Return the case without what need not be tried."""
        contenders = (replace(c, **self._skipped(case, c)) for c in case.contenders)
        return replace(case, contenders=tuple(contenders))

    def _skipped(self, case: Case, contender: Contender) -> dict[str, Any]:
        line = case.kind, by(case.shape), case.layout, case.mode, contender.name
        if case.suite != SUITE or contender.make is None or line not in self._seen:
            return {}
        row, times = self._seen[line]
        growth = ((case.kernel or 1) / (row.kernel or 1)) ** (len(case.shape) - 2)
        if growth * times < ABSURD or growth * (row.median_ms or 0.0) < 1e3 * LONG:
            return {}
        note = f"{times:.3g} times slower than the best at k={row.kernel}, and growing"
        return {"make": None, "status": "skipped", "note": note}


def _contender(point: Point, name: str, mode: str, device: str) -> Contender:
    role = ROLES[name]
    status, note = _reason_against(point, name, device)
    if status:
        return Contender(name, role, None, status=status, note=note)
    # What memory our two methods take shows in the choice between them.
    in_fork = role in {"ours", "baseline", "peer"}
    return Contender(name, role, partial(make_run, point, name, mode, device), in_fork=in_fork)


def _reason_against(point: Point, name: str, device: str) -> tuple[str, str]:
    """Status and note of a contender that cannot be measured, or twice ``""``."""
    if name == LIMIT:
        return "", ""
    if name == KEPT and point.layout == "channels_last":
        return "n/a", "the input has this layout"
    if name in peers.PACKAGES:
        if not peers.installed(name):
            return "not installed", f"pip install {name}"
        reason = peers.reason_against(name, point.ndim, point.groups)
        if reason:
            return "n/a", reason
        points = math.prod(n + 2 * (point.kernel // 2) for n in point.input_shape[2:])
        needed = peers.workspace(name, point.batch, point.weight_shape, points)
        if needed > ROOM:
            return "skipped", f"needs about {needed / 2**30:.0f} GiB"
    difference = disagreement(name, point.ndim, point.kind, point.layout, device)
    return ("wrong", difference) if difference else ("", "")


def case_of(point: Point, mode: str, device: str, names: Sequence[str] = tuple(ROLES)) -> Case:
    """Return the case of one convolution in one mode.

    Args:
        point: The convolution.
        mode: ``"forward"`` or ``"training"``.
        device: Where to compute.
        names: Contenders, ours first.
    """
    return Case(
        SUITE,
        f"{point.ndim}-D {point.kind}",
        point.name,
        mode,
        point.input_shape,
        tuple(_contender(point, name, mode, device) for name in names),
        point.kernel,
        point.work(mode),
        point.layout,
    )


def cases(quick: bool, device: str) -> Iterator[Case]:
    """Yield the cases of the suite, along every line from small kernels to large ones."""
    for line in QUICK if quick else GRID:
        for point, mode in itertools.product(line.points(), MODES):
            yield case_of(point, mode, device)
