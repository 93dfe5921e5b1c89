"""The products of a convolution by back ends, where one has been measured or forced."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sizeless.functional import correlation
from sizeless.functional.backends.registry import Backend, Call, drop, is_served, supporting
from sizeless.functional.correlation import (
    LAYOUT,
    Layout,
    flops_of_output,
    geometry_from,
    layout_of,
    run_gradients,
    run_output,
)
from sizeless.functional.fft import no_autocast, result_dtype
from sizeless.functional.geometry import Geometry
from sizeless.functional.measured import Run, tuned_contest
from sizeless.functional.operators import operator, somebody_looks
from sizeless.functional.plans import Plan, Step, measured_contest, plan_for

ANY = "any"
"""Method of a convolution for which back ends and ``"auto"`` contend."""

TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 5e-3,
    torch.bfloat16: 3e-2,
}
"""Largest error of a back end, relative to the largest value, against a transform of more bits."""

Tensors = tuple[Tensor, ...]

_equal: set[object] = set()
"""Kinds of calls whose results were found to be ours."""


class Choice(NamedTuple):
    """Who computes the output and both gradients; ``None`` is ``sizeless`` itself."""

    output: Backend | None = None
    gradients: Backend | None = None


def method_with_backends(
    geometry: Geometry, method: str, device_type: str, like: Tensor | None, *, measure: bool = False
) -> str:
    """Return the method by which a convolution is computed, ``"auto"`` where it is all our own.

    Args:
        geometry: Where the taps fall.
        method: ``"auto"`` or the name of a back end.
        device_type: Where it runs.
        like: The input; without it, float32.
        measure: Whether to measure where tuning is on.
    """
    if not is_served(device_type):
        return "auto"
    if torch.compiler.is_compiling():
        return method  # Graphs have a back end by its name alone, and ask it when they run.
    asked = ANY if method == "auto" else method
    taken = choose(_call(geometry, device_type, like), asked, measure=measure)
    return asked if any(taken) else "auto"


def plan_with_backends(
    geometry: Geometry, method: str, device_type: str, like: Tensor | None
) -> Plan:
    """Return the plan for a method that ``method_with_backends`` returned."""
    own = plan_for(geometry, device_type, method)
    output, gradients = choose(_call(geometry, device_type, like), method)
    steps = zip((output, gradients, gradients), own, strict=True)
    return Plan(*(step if taken is None else Step(taken.name) for taken, step in steps))


def _call(geometry: Geometry, device_type: str, like: Tensor | None) -> Call:
    if like is None:
        return Call(geometry, torch.float32, torch.device(device_type))
    return Call(geometry, result_dtype(like), like.device)


def choose(call: Call, method: str, *, measure: bool = False) -> Choice:
    """Return the back ends for a call: that of this name, or the fastest if it was measured.

    Args:
        call: What is computed.
        method: The name of a back end, or ``ANY``.
        measure: Whether to measure where tuning is on.
    """
    contenders = supporting(call)
    if not contenders:
        return Choice()
    named = {backend.name: backend for backend in contenders}
    if method != ANY:
        forced = named.get(method)
        return Choice(forced, forced if forced and forced.is_differentiable else None)
    label = _label(call.dtype, contenders)
    if measure:
        able = [Step(backend.name) for backend in contenders if backend.is_differentiable]
        steps = list(map(Step, named)), able
        runner = partial(_runner, call, named)
        lines = tuned_contest(call.geometry, call.device, label, steps, runner)
    else:
        lines = measured_contest(call.geometry, call.device.type, label)
    return Choice(*map(named.get, lines[:2])) if lines else Choice()


@lru_cache(maxsize=256)
def _label(dtype: torch.dtype, contenders: tuple[Backend, ...]) -> str:
    """What a measurement holds for: with other contenders, or versions of them, it is no use."""
    names = sorted(f"{one.name} {one.version}".strip() for one in contenders)
    return ", ".join((str(dtype).removeprefix("torch."), *names))


def _runner(call: Call, named: dict[str, Backend]) -> Run:
    geometry, layout = call.geometry, layout_of(call.geometry, "auto")
    generator = torch.Generator(call.device)  # Not everybody's, from which models are drawn.

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=call.dtype, device=call.device, generator=generator)

    # Not ones, with which a mirrored kernel would pass for ours.
    input = draw(geometry.batch, geometry.in_channels, *geometry.size)
    weight = draw(geometry.out_channels, geometry.group_inputs, *geometry.kernel)
    grad = draw(geometry.batch, geometry.out_channels, *geometry.output_size)

    def run(products: tuple[str, ...], step: Step) -> object:
        backend = named.get(step.method)
        if len(products) == 2:
            return _gradients(backend, call, grad, input, weight, layout)
        return _output(backend, call, input, weight, layout)

    return run


def correlate(input: Tensor, weight: Tensor, geometry: Geometry, method: str) -> Tensor:
    """Return the cross-correlation by whoever is chosen, differentiable any number of times.

    Args:
        input: ``(N, C, *size)``.
        weight: ``(out, C / groups, *kernel)``.
        geometry: Where the taps fall.
        method: The name of a back end, or ``ANY``.
    """
    layout = layout_of(geometry, method)
    if torch.is_grad_enabled() or somebody_looks((input, weight)):
        result: Tensor = _ByBackend.apply(input, weight, layout)
        return result
    return _run_output(input, weight, *layout)


def _run_output(input: Tensor, weight: Tensor, *layout: Any) -> Tensor:
    call = Call(geometry_from(input, weight, layout), input.dtype, input.device)
    return _output(choose(call, layout[-1]).output, call, input, weight, layout)


def _output(
    backend: Backend | None, call: Call, input: Tensor, weight: Tensor, layout: Any
) -> Tensor:
    def own(*tensors: Tensor, method: str = "auto") -> Tensors:
        return (run_output(*tensors, *layout[:-1], method),)

    if backend is None:
        return own(input, weight)[0]
    run = backend.run
    with torch.no_grad():
        return _checked(
            (backend, "output", call), lambda: (run(input, weight, call),), own, input, weight
        )[0]


def _gradients(
    backend: Backend | None,
    call: Call,
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    layout: Any,
) -> Tensors:
    """Both gradients; a back end's by torch's derivative of its output, which it computes again.

    So nothing but the input and the weight is saved for the backward pass.
    """

    def own(*tensors: Tensor, method: str = "auto") -> Tensors:
        return run_gradients(*tensors, *layout[:-1], method)

    if backend is None:
        return own(grad, input, weight)
    run = backend.run

    def derived() -> Tensors:
        leaves = input.detach().requires_grad_(), weight.detach().requires_grad_()
        with torch.enable_grad():
            output = run(*leaves, call)
        return torch.autograd.grad(output, leaves, grad.contiguous())

    with no_autocast(input.device.type):
        return _checked((backend, "gradients", call), derived, own, grad, input, weight)


def _checked(
    asked: tuple[Backend, str, Call],
    run: Callable[[], Tensors],
    own: Callable[..., Tensors],
    *operands: Tensor,
) -> Tensors:
    """Return what a back end computes, compared with ours at the first call of a kind.

    One that fails or differs is dropped, and the result is ours. Nothing is learnt from
    operands that are not finite, such as those of a scaled loss, and while a graph is captured.
    """
    backend, product, call = asked
    kind = (backend, product, *_kind(call))
    if kind not in _equal and _is_captured(call.device):
        return own(*operands)
    try:
        results = run()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        drop(backend, f"failed ({error!r})")
        return own(*operands)
    if kind in _equal:
        return results
    wide = _wide_dtype(call)
    expected = own(*(part.to(wide) for part in operands), method="fft")
    if not all(bool(part.isfinite().all()) for part in expected):
        return own(*operands)
    differences = map(_difference, results, expected)
    if not max(differences) <= TOLERANCES.get(call.dtype, 0.0):
        drop(backend, f"differs from sizeless in the {product} of {call}")
        return own(*operands)
    _equal.add(kind)
    return results


def _is_captured(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _wide_dtype(call: Call) -> torch.dtype:
    narrow = call.dtype in (torch.float16, torch.bfloat16) or call.device.type == "mps"
    return torch.float32 if narrow else torch.float64


def _difference(result: Tensor, expected: Tensor) -> float:
    """Largest error relative to the largest value; infinite for another shape."""
    if result.shape != expected.shape:
        return torch.inf
    if expected.numel() == 0:
        return 0.0
    error = (result.to(expected.dtype) - expected).abs().max()
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float(error / scale)


@lru_cache(maxsize=4096)
def _kind(call: Call) -> tuple[object, ...]:
    """What calls have in common that a library would compute in one way.

    Lengths count by the power of two that holds them, as sequences of all lengths may come.
    """
    geometry = call.geometry
    counts = (geometry.batch, geometry.in_channels, geometry.out_channels, geometry.groups)
    amounts = (amount for pair in geometry.amounts for amount in pair)
    lengths = (*counts, *geometry.size, *geometry.kernel, *amounts)
    rounded = tuple((length.bit_length(), length & (length - 1) == 0) for length in lengths)
    return call.dtype, call.device, geometry.stride, geometry.dilation, rounded


def _shape_of_output(input: Tensor, weight: Tensor, *layout: Any) -> Tensor:
    geometry = geometry_from(input, weight, layout)
    return input.new_empty(input.shape[0], weight.shape[0], *geometry.output_size)


_operator = operator(
    f"correlate_by_backend(Tensor input, Tensor weight, {LAYOUT}) -> Tensor",
    _run_output,
    _shape_of_output,
    flops_of_output,
    any_layout=True,
)


class _ByBackend(correlation._Output):
    """Output from input and weight, whose gradients a back end may compute once."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, layout: Layout) -> Tensor:
        result: Tensor = _operator(input, weight, *layout)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        # Graphs, of compilers or of further derivatives, are of our own operators.
        plain = not torch.is_grad_enabled() and not somebody_looks((grad, input, weight))
        if plain and ctx.needs_input_grad[0] and ctx.needs_input_grad[1]:
            call = Call(geometry_from(input, weight, ctx.layout), input.dtype, input.device)
            backend = choose(call, ctx.layout[-1]).gradients
            if backend is not None:
                return *_gradients(backend, call, grad, input, weight, ctx.layout), None
        return correlation._Output.backward(ctx, grad)
