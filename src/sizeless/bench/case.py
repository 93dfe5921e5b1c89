"""A case: one thing to do, and the ways of doing it that are measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sizeless.bench.machine import Rates, synchronizer
from sizeless.bench.memory import Make, MemoryMeter
from sizeless.bench.rows import Row, by
from sizeless.bench.timing import Plan, Timing, measure, paired_ratio

OURS = "sizeless"
MODES = ("forward", "training")

PATIENCE = 1.0
"""Seconds of one run beyond which the memory of what is hopeless is not measured as well."""


@dataclass(frozen=True)
class Contender:
    """One way of doing it.

    Attributes:
        name: What the row is called.
        role: See ``Row.role``.
        make: Builds the inputs and returns the run; pickles unless ``in_fork`` is off. ``None``
            where it cannot be measured, and ``status`` and ``note`` say why.
        bar: Largest time of ours over that of this one that is asked for.
        memory_bar: The same for memory.
        in_fork: Whether its memory may be measured in a process of its own.
        status: Why it is not measured.
        note: The reason in words.
    """

    name: str
    role: str
    make: Make | None
    bar: float | None = None
    memory_bar: float | None = None
    in_fork: bool = True
    status: str = ""
    note: str = ""


@dataclass(frozen=True)
class Work:
    """What has to be done at least.

    Attributes:
        bytes: Memory to read and write.
        flops: Floating-point operations of the direct sum.
        mixing: Floating-point operations that transforms leave to be done.
    """

    bytes: float
    flops: float
    mixing: float = 0.0


@dataclass(frozen=True)
class Case:
    """What is measured side by side.

    Attributes:
        suite: Name of the suite.
        kind: What the case belongs to.
        name: Name, unique in the suite together with ``mode``.
        mode: ``"forward"`` or ``"training"``.
        shape: Shape of the input.
        contenders: Our way first.
        kernel: Taps per axis.
        work: What has to be done at least, where it is known.
        layout: Memory layout of the input.
        counted: Name of the contender whose operations are taken for what has to be done, where
            ``work`` is not given.
    """

    suite: str
    kind: str
    name: str
    mode: str
    shape: tuple[int, ...]
    contenders: tuple[Contender, ...]
    kernel: int | None = None
    work: Work | None = None
    layout: str = "contiguous"
    counted: str = ""


@dataclass(frozen=True)
class Laboratory:
    """What cases are measured with.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        rates: The machine's best.
        plan: How long to measure.
        meter: Measures memory on the CPU; ``None`` leaves memory out.
    """

    device: str
    rates: Rates
    plan: Plan
    meter: MemoryMeter | None = None

    def run(self, case: Case) -> list[Row]:
        """Measure all contenders of a case; one row each."""
        runs: dict[str, Callable[[], object]] = {}
        results: dict[str, Timing | Exception] = {}
        for contender in case.contenders:
            if contender.make is not None:
                try:
                    runs[contender.name] = contender.make()
                except Exception as error:
                    results[contender.name] = error
        if case.counted in runs:
            case = replace(case, work=counted_work(runs[case.counted]))
        if runs:
            aside = [c.name for c in case.contenders if c.role in {"limit", "layout"}]
            results.update(measure(runs, self.plan, synchronizer(self.device), aside))
        peaks = self._peaks(case, runs, results)
        return _rows(case, results, peaks, self.rates)

    def _peaks(
        self,
        case: Case,
        runs: dict[str, Callable[[], object]],
        results: Mapping[str, Timing | Exception],
    ) -> dict[str, float]:
        peaks: dict[str, float] = {}
        if self.device != "cuda":
            # Room for the processes that measure.
            runs.clear()
        for contender in case.contenders:
            timing = results.get(contender.name)
            if not isinstance(timing, Timing) or not contender.make:
                continue
            if timing.once and timing.median > PATIENCE:
                continue
            peak = None
            if self.device == "cuda":
                peak = _cuda_peak(runs[contender.name])
            elif self.meter is not None and contender.in_fork:
                peak = self.meter.peak(contender.make)
            if peak is not None:
                peaks[contender.name] = peak
        return peaks


@dataclass
class Step:
    """One run of a module or function: its forward, or forward and backward.

    Attributes:
        forward: Computes the output.
        inputs: Leaves whose gradients a training step computes.
        mode: ``"forward"`` or ``"training"``.
        parameters: What an optimiser would change after a training step. It is written to, with
            the values that it has, so that nothing made from it may be kept for the next step.
    """

    forward: Callable[[], Tensor]
    inputs: Sequence[Tensor]
    mode: str
    parameters: Sequence[Tensor] = ()
    gradient: Tensor | None = field(default=None, init=False)

    def __call__(self) -> object:
        """Run it once."""
        if self.mode == "forward":
            with torch.no_grad():
                return self.forward()
        output = self.forward()
        if self.gradient is None:
            self.gradient = torch.randn_like(output)
        gradients = torch.autograd.grad(output, self.inputs, self.gradient, allow_unused=True)
        if self.parameters:
            with torch.no_grad():
                torch._foreach_mul_(list(self.parameters), 1.0)
        return gradients


Build = Callable[[], tuple[nn.Module, Tensor]]
"""Makes a module, and an input for it."""


def make_module_run(
    build: Build, mode: str, device: str, compiled: bool = False
) -> Callable[[], object]:
    """Return a run of a module: in evaluation mode without gradients, or a training step.

    Args:
        build: Makes the module and its input.
        mode: ``"forward"`` or ``"training"``.
        device: Where to compute.
        compiled: Whether to compile it, in one graph.
    """
    module, input = build()
    module, input = module.to(device), input.to(device)
    module.train(mode == "training")
    parameters = list(module.parameters())
    inputs = [input.requires_grad_(mode == "training"), *parameters]
    call: Callable[[Tensor], Tensor] = module
    if compiled:
        torch.compiler.reset()
        call = torch.compile(module, fullgraph=True)
    step = Step(lambda: call(input), inputs, mode, parameters)
    if compiled:
        step()
    return step


class Transforms:
    """The bare transforms that a method cannot do without, a bound for its time.

    Args:
        signals: Shapes ``(N, C, *spatial)`` of what is transformed.
        spectra: The same of what is transformed back, before its transform.
        lengths: Transform length of each spatial axis.
        device: Where to compute.
    """

    def __init__(
        self,
        signals: Sequence[tuple[int, ...]],
        spectra: Sequence[tuple[int, ...]],
        lengths: tuple[int, ...],
        device: str,
    ) -> None:
        self.axes, self.lengths = tuple(range(2, 2 + len(lengths))), lengths
        half = (*lengths[:-1], lengths[-1] // 2 + 1)
        self.signals = [torch.randn(shape, device=device) for shape in signals]
        self.spectra = [
            torch.randn((*shape[:2], *half), dtype=torch.complex64, device=device)
            for shape in spectra
        ]

    def __call__(self) -> None:
        """Transform every signal, and every spectrum back."""
        for signal in self.signals:
            torch.fft.rfftn(signal, self.lengths, self.axes)
        for spectrum in self.spectra:
            torch.fft.irfftn(spectrum, self.lengths, self.axes)


def _cuda_peak(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)


class _Operations(TorchDispatchMode):
    """Counts operations by the formulas of torch's counter, of which ours are a part.

    That counter itself follows modules, and fails where one is given a tensor whose gradient is
    asked for by ``torch.autograd.grad``.
    """

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it."""
        output = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=output)
        return output


def counted_work(run: Callable[[], object]) -> Work:
    """Return the operations of a run."""
    with _Operations() as operations:
        run()
    return Work(0.0, operations.total)


def one_line(error: Exception) -> str:
    """What went wrong, in a line for a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _rows(
    case: Case,
    results: Mapping[str, Timing | Exception],
    peaks: Mapping[str, float],
    rates: Rates,
) -> list[Row]:
    ours = results.get(case.contenders[0].name)
    our_peak = peaks.get(case.contenders[0].name)
    limit, limit_seconds = _limit(case, results, rates)
    rows = []
    for contender in case.contenders:
        result, peak = results.get(contender.name), peaks.get(contender.name)
        values: dict[str, object] = {}
        status, note = contender.status, contender.note
        if isinstance(result, Exception):
            status, note = "failed", one_line(result)
        elif result is not None:
            status, (low, high) = "once" if result.once else "ok", result.quartiles
            values = {
                "rounds": len(result.seconds),
                "median_ms": 1e3 * result.median,
                "low_ms": 1e3 * low,
                "high_ms": 1e3 * high,
                "ours_over_this": paired_ratio(ours, result) if isinstance(ours, Timing) else None,
                "peak_mib": None if peak is None else peak / 2**20,
                "ours_memory_over_this": our_peak / peak if our_peak and peak else None,
                "limit": limit,
                "limit_ms": 1e3 * limit_seconds if limit else None,
                "ratio_to_limit": result.median / limit_seconds if limit else None,
            }
        rows.append(
            Row(
                case.suite,
                case.kind,
                case.name,
                case.mode,
                by(case.shape),
                case.layout,
                case.kernel,
                contender.name,
                contender.role,
                status,
                note,
                bar=contender.bar,
                memory_bar=contender.memory_bar,
                **values,  # type: ignore[arg-type]
            )
        )
    return rows


def _limit(
    case: Case, results: Mapping[str, Timing | Exception], rates: Rates
) -> tuple[str, float]:
    """What bounds the time from below, and the bound in seconds."""
    if case.work is None:
        return "", 0.0
    ways = {"sgemm": case.work.flops / rates.flops}
    for contender in case.contenders:
        timing = results.get(contender.name)
        if contender.role == "limit" and isinstance(timing, Timing):
            ways["transforms"] = timing.median + case.work.mixing / rates.flops
    way = min(ways, key=ways.__getitem__)
    copying = case.work.bytes / rates.bytes
    return ("copy", copying) if copying > ways[way] else (way, ways[way])
