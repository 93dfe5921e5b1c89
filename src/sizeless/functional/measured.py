"""Measuring plans on the machine at hand, where the model of costs is not exact enough."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from sizeless.functional import plan_table
from sizeless.functional.geometry import Geometry
from sizeless.functional.plan_table import Lines
from sizeless.functional.plans import (
    Plan,
    Step,
    candidates,
    forget_plans,
    measured_contest,
    plan_for,
)

Products = tuple[str, ...]
Run = Callable[[Products, Step], object]
"""Computes some of the three products in one way, on tensors of its own."""

BUDGET = 0.25
"""Seconds for one product of one geometry."""

MOST_ROUNDS = 15

HOPELESS = 2.0
"""A step slower than the fastest by this factor in a first call is not measured again."""

CLEAR = 0.97
"""A step takes the place of the model's choice if it needs less than this share of its time."""

GRADIENTS = ("input_gradient", "weight_gradient")


class _Switch:
    is_on = False


@contextmanager
def tuning() -> Iterator[None]:
    """Measure every convolution within a ``with`` block in all ways, and remember the fastest.

    Only those of ``method="auto"`` in float32 whose plan was not measured before, once for each
    shape: the first training step of a model takes some seconds, and later ones, in this process
    and others on this machine, follow what was measured. It holds for the same shapes, number of
    threads and version of torch, and other dtypes follow it; other shapes follow the model of
    costs. Back ends that support a convolution are measured too, for each dtype. Kept in the folder
    that ``SIZELESS_CACHE`` names, or in the system's folder for caches.

    A process has one such block at a time.

    Raises:
        RuntimeError: If a block is open already.

    Examples:
        >>> import torch
        >>> from sizeless.functional import convolve, tuning
        >>> input = torch.randn(2, 4, 64)
        >>> weight = torch.randn(4, 4, 15, requires_grad=True)
        >>> with tuning():
        ...     convolve(input, weight, padding="same").sum().backward()
    """
    if _Switch.is_on:
        raise RuntimeError("tuning() is open already: one block at a time, around all of them")
    _Switch.is_on = True
    forget_plans()
    try:
        yield
    finally:
        _Switch.is_on = False
        plan_table.save()


def is_tuning() -> bool:
    """Return whether convolutions are measured now."""
    return _Switch.is_on


def tuned_plan(
    geometry: Geometry, like: torch.Tensor, method: str, runner: Callable[[], Run]
) -> Plan:
    """Return the plan for a geometry, measured before or now if tuning is on.

    Args:
        geometry: Where the taps fall.
        like: A tensor of the convolution. Plans are those of float32: others follow them, and are
            not measured.
        method: As for ``convolve``.
        runner: Prepares what computes the products.
    """
    device = like.device
    wanted = _Switch.is_on and method == "auto" and geometry.batch > 0
    wanted = wanted and like.dtype == torch.float32
    if wanted and plan_table.recorded(geometry, device.type) is None:
        plan = _measure(geometry, device, runner())
        steps = (str(plan.output), str(plan.input_gradient), str(plan.weight_gradient))
        plan_table.record(geometry, device.type, steps)
        forget_plans()
    return plan_for(geometry, device.type, method)


def tuned_contest(
    geometry: Geometry,
    device: torch.device,
    label: str,
    contenders: tuple[list[Step], list[Step]],
    runner: Callable[[], Run],
) -> Lines | None:
    """Return who is fastest, back ends or ``"auto"``, measured before or now if tuning is on.

    Args:
        geometry: Where the taps fall.
        device: Where they are measured.
        label: Dtype, names and versions: what the measurement holds for.
        contenders: Back ends for the output, and for both gradients.
        runner: Prepares what computes the products.
    """
    if _Switch.is_on and plan_table.recorded(geometry, device.type, label) is None:
        own, run, fastest = Step("auto"), runner(), []
        for products, steps in zip((("output",), GRADIENTS), contenders, strict=True):
            times = _times(run, products, [own, *steps], device)
            fastest.append(str(_fastest(times, own)[0]))
        lines = fastest[0], fastest[1], fastest[1]
        plan_table.record(geometry, device.type, lines, label)
        forget_plans()
    return measured_contest(geometry, device.type, label)


def _measure(geometry: Geometry, device: torch.device, run: Run) -> Plan:
    expected = plan_for(geometry, device.type)
    best, seconds = {}, {}
    for name, step in expected._asdict().items():
        times = _times(run, (name,), candidates(geometry, (name,)), device)
        best[name], seconds[name] = _fastest(times, step)
    joint = _times(run, GRADIENTS, candidates(geometry, GRADIENTS, joint=True), device)
    step, together = _fastest(joint, expected.weight_gradient)
    if together < sum(seconds[name] for name in GRADIENTS):
        best.update(dict.fromkeys(GRADIENTS, step))
    return Plan(best["output"], best["input_gradient"], best["weight_gradient"])


def _fastest(times: Mapping[Step, float], expected: Step) -> tuple[Step, float]:
    step = min(times, key=times.__getitem__)
    if expected in times and times[step] > CLEAR * times[expected]:
        step = expected
    return step, times[step]


def _times(
    run: Run, products: Products, steps: list[Step], device: torch.device
) -> dict[Step, float]:
    """Median seconds of each step, over interleaved rounds."""
    first: dict[Step, float] = {}
    for step in steps:
        _clock(run, products, step, device)
        first[step] = _clock(run, products, step, device)
    limit = HOPELESS * min(first.values())
    close = [step for step in steps if first[step] <= limit]
    if len(close) == 1:
        return first
    rounds = int(BUDGET / sum(first[step] for step in close))
    seconds: dict[Step, list[float]] = {step: [first[step]] for step in close}
    for _ in range(min(max(rounds, 2), MOST_ROUNDS)):
        for step in close:
            seconds[step].append(_clock(run, products, step, device))
    medians = {step: statistics.median(values) for step, values in seconds.items()}
    return {step: medians.get(step, math.inf) for step in steps}


def _clock(run: Run, products: Products, step: Step, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run(products, step)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
