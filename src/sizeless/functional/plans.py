"""Which way each product of a convolution takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import NamedTuple

import torch

from sizeless.functional import shortcuts
from sizeless.functional.backends.registry import check_name
from sizeless.functional.blocks import cut
from sizeless.functional.costs import direct_cost, factored_saves, spectral_cost
from sizeless.functional.fft import good_length
from sizeless.functional.geometry import Geometry
from sizeless.functional.plan_table import Lines, recorded

METHODS = ("auto", "direct", "channels_last", "fft")

ENVIRONMENT = "SIZELESS_METHOD"

_LADDER = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Lengths of blocks that are considered, in reaches of the kernel."""

_SHORTEST = 16

_MEASURED = 3
"""Lengths of transforms that tuning measures."""

_CLEARLY = 0.78
"""What both gradients through transforms may cost of the best ways for each: the model is less sure
of transforms, and near the border direct ones have won."""

_forced: ContextVar[str | None] = ContextVar("sizeless_method", default=None)


class _Plans:
    """Whether measured plans are followed."""

    are_read = True


class Step(NamedTuple):
    """How one product is computed.

    Attributes:
        method: ``"direct"``, ``"channels_last"``, ``"fft"``, or the name of a back end.
        lengths: For ``"fft"``, the length of a block's transform on each axis.
    """

    method: str
    lengths: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return the method and the transform, as ``fft 64x64``."""
        return " ".join((self.method, "x".join(map(str, self.lengths)))).strip()

    @classmethod
    def from_text(cls, text: str) -> Step:
        """Return the step that ``str`` has written."""
        method, _, lengths = text.partition(" ")
        return cls(method, tuple(map(int, lengths.split("x"))) if lengths else ())


class Plan(NamedTuple):
    """How the three products of a convolution are computed.

    Attributes:
        output: Of the forward pass.
        input_gradient: Of the backward pass.
        weight_gradient: Of the backward pass.
    """

    output: Step
    input_gradient: Step
    weight_gradient: Step

    @property
    def is_spectral(self) -> bool:
        """Whether all three go through transforms."""
        return all(step.method == "fft" for step in self)

    def __str__(self) -> str:
        """Return one line for people."""
        return ", ".join(f"{name}: {step}" for name, step in self._asdict().items())


@contextmanager
def use_method(method: str) -> Iterator[None]:
    """Force the method of all convolutions of ``method="auto"`` within a ``with`` block.

    The environment variable ``SIZELESS_METHOD`` does the same for a whole process. A graph of
    ``torch.compile`` keeps the method under which it was traced.

    Args:
        method: ``"auto"``, ``"direct"``, ``"channels_last"``, ``"fft"``, or the name of a back end
            that is here, such as ``"cudnn"``: it takes what it supports, and the rest is computed
            as by ``"auto"``.

    Raises:
        ValueError: For another name, such as that of a back end that is not here.

    Examples:
        >>> import torch
        >>> from sizeless.functional import convolve, use_method
        >>> with use_method("fft"):
        ...     convolve(torch.ones(1, 1, 8), torch.ones(1, 1, 3)).round().flatten().tolist()
        [3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    """
    token = _forced.set(check_method("method", method))
    try:
        yield
    finally:
        _forced.reset(token)


def forced_method() -> str:
    """Return the method that is forced here, or ``"auto"``.

    Raises:
        ValueError: If the environment variable holds another name.
    """
    forced = _forced.get()
    if forced is None:
        forced = check_method(ENVIRONMENT, os.environ.get(ENVIRONMENT, "auto"))
    return forced


def check_method(argument: str, method: str) -> str:
    """Return a method of ours or the name of a back end that is here.

    Raises:
        ValueError: For another name.
    """
    return method if method in METHODS else check_name(argument, method, METHODS)


def plan_for(geometry: Geometry, device_type: str, method: str = "auto") -> Plan:
    """Return our plan for a geometry: measured, of the model of costs, or of one method alone.

    What a back end leaves to us is computed as by ``"auto"``.
    """
    return _plan_here(geometry, device_type, method, executor(device_type))


def executor(device_type: str) -> int:
    """What measured plans differ in within a process: how many threads, or which GPU."""
    if device_type != "cuda":
        return torch.get_num_threads()
    # Plans are shown where there is no GPU, too.
    return torch.cuda.current_device() if torch.cuda.is_initialized() else -1


@lru_cache(maxsize=4096)
def _plan_here(geometry: Geometry, device_type: str, method: str, _executor: int) -> Plan:
    if method in ("direct", "channels_last"):
        return Plan(*[Step(method)] * 3)
    if method != "fft":
        method = "auto"
    if method == "auto" and _Plans.are_read:
        lines = recorded(geometry, device_type)
        if lines is not None:
            return Plan(*map(Step.from_text, lines))
    if method == "auto" and device_type not in ("cpu", "cuda"):
        return Plan(*[Step("direct")] * 3)
    if geometry.batch == 0:
        geometry = geometry._replace(batch=1)
    output = _cheapest(geometry, ("output",), method)[0]
    both, cost = _cheapest_transform(geometry, ("input_gradient", "weight_gradient"))
    to_input, cost_input = _cheapest(geometry, ("input_gradient",), method)
    to_weight, cost_weight = _cheapest(geometry, ("weight_gradient",), method)
    mixed = {to_input.method, to_weight.method} != {"fft"}
    if cost <= (_CLEARLY if mixed else 1.0) * (cost_input + cost_weight):
        to_input = to_weight = both
    return Plan(output, to_input, to_weight)


def stays_factored(
    geometry: Geometry, functions: int, device_type: str, method: str = "auto"
) -> bool:
    """Whether kernels made of a few shared functions are best left as they are.

    They are where all products go through the transform and the functions' spectra cost less.
    """
    plan = plan_for(geometry, device_type, method)
    if not plan.is_spectral or geometry.batch == 0:
        return False
    return _saves(geometry, plan.output.lengths, functions)


@lru_cache(maxsize=4096)
def _saves(geometry: Geometry, lengths: tuple[int, ...], functions: int) -> bool:
    return factored_saves(geometry, cut(geometry, lengths), functions)


def measured_contest(geometry: Geometry, device_type: str, label: str) -> Lines | None:
    """Return who was fastest among us and back ends; ``label`` has their names and versions."""
    return _contest_here(geometry, device_type, label, executor(device_type))


@lru_cache(maxsize=4096)
def _contest_here(geometry: Geometry, device_type: str, label: str, _executor: int) -> Lines | None:
    return recorded(geometry, device_type, label) if _Plans.are_read else None


def forget_plans() -> None:
    """Make plans anew, from what has been measured by now."""
    _plan_here.cache_clear()
    _contest_here.cache_clear()
    shortcuts.forget()


@contextmanager
def measured_plans_ignored() -> Iterator[None]:
    """Follow the model of costs alone within a ``with`` block."""
    before, _Plans.are_read = _Plans.are_read, False
    forget_plans()
    try:
        yield
    finally:
        _Plans.are_read = before
        forget_plans()


def candidates(geometry: Geometry, products: tuple[str, ...], *, joint: bool = False) -> list[Step]:
    """Return the steps worth measuring for some products; those for all of them at once if joint.

    They are both direct ways, and the transforms of which the model of costs thinks best.
    """
    costs = _transform_costs(geometry, products)
    transforms = [Step("fft", lengths) for lengths in sorted(costs, key=costs.__getitem__)]
    found = transforms[:_MEASURED]
    if not joint:
        steps = [Step("direct"), Step("channels_last")]
        # What takes minutes needs no measuring.
        hopeless = 20 * costs[found[0].lengths] + 1e9
        for step in steps:
            last = step.method == "channels_last"
            if direct_cost(geometry, products[0], channels_last=last) < hopeless:
                found.append(step)
    return found


def _cheapest(geometry: Geometry, products: tuple[str, ...], method: str) -> tuple[Step, float]:
    best = _cheapest_transform(geometry, products)
    if method == "auto":
        for name in ("direct", "channels_last"):
            last = name == "channels_last"
            cost = direct_cost(geometry, products[0], channels_last=last)
            if cost < best[1]:
                best = Step(name), cost
    return best


def _cheapest_transform(geometry: Geometry, products: tuple[str, ...]) -> tuple[Step, float]:
    costs = _transform_costs(geometry, products)
    lengths = min(costs, key=costs.__getitem__)
    return Step("fft", lengths), costs[lengths]


def _transform_costs(geometry: Geometry, products: tuple[str, ...]) -> dict[tuple[int, ...], float]:
    return {
        lengths: spectral_cost(geometry, cut(geometry, lengths), products)
        for lengths in _block_lengths(geometry)
    }


def _block_lengths(geometry: Geometry) -> set[tuple[int, ...]]:
    """Lengths of blocks worth a look; the whole period is always among them."""
    whole = tuple(map(good_length, geometry.periods))
    found = {whole}
    for factor in _LADDER:
        wanted = (
            good_length(max(int(factor * (reach + 1)), reach + 2, _SHORTEST))
            for reach in geometry.reach
        )
        found.add(tuple(map(min, wanted, whole)))
    return found
