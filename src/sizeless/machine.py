"""How fast a machine computes and moves data: what turns counts into an estimate of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sizeless._validate import floating_dtype, number

SIDE = 1024
"""Side of the matrices that are multiplied to measure a machine."""

COPIED = 1 << 26
"""Bytes that are copied to measure a machine, more than caches hold."""

SECONDS = 0.1
"""Time that a measurement takes at least."""


@dataclass(frozen=True)
class Machine:
    """Rates of a machine, for the ``latency`` of ``sizeless.cost``.

    The defaults are round numbers for one core of a server's processor in float32; what decides
    between networks is their ratio, the multiply-accumulates that take as long as a byte.

    Args:
        macs_per_second: Multiply-accumulates per second, in products that compute without waiting
            for memory.
        bytes_per_second: Bytes per second, read and written.

    Raises:
        TypeError: If a rate is no number.
        ValueError: If a rate is not positive and finite.

    Examples:
        >>> machine = Machine(macs_per_second=2e9, bytes_per_second=1e9)
        >>> machine.macs_per_second / machine.bytes_per_second
        2.0
    """

    macs_per_second: float = 5e10
    bytes_per_second: float = 2e10

    def __post_init__(self) -> None:
        number("macs_per_second", self.macs_per_second, above=0)
        number("bytes_per_second", self.bytes_per_second, above=0)

    @classmethod
    def measure(
        cls, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Machine:
        """Time a product of square matrices and a copy, and return their rates.

        The best of several is taken. Rates are those of the threads and the precision of products
        that torch is set to; layers seldom reach them, so latencies are lower bounds.

        Args:
            device: Where to measure.
            dtype: Of the matrices, a real floating-point dtype.

        Raises:
            TypeError: If ``dtype`` is no real floating-point dtype.

        Examples:
            >>> Machine.measure("cpu").macs_per_second > 0
            True
        """
        floating_dtype(dtype)
        place = torch.device(device)
        left, right, result = (torch.ones(SIDE, SIDE, device=place, dtype=dtype) for _ in range(3))
        source = torch.ones(COPIED, device=place, dtype=torch.uint8)
        target = torch.empty_like(source)
        with torch.no_grad():
            product = _fastest(lambda: torch.mm(left, right, out=result), place)
            copy = _fastest(lambda: target.copy_(source), place)
        return cls(SIDE**3 / product, 2 * COPIED / copy)


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several runs; the first does not count."""
    best, end = float("inf"), 0.0
    while time.perf_counter() < end or end == 0.0:
        started = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        now = time.perf_counter()
        if end == 0.0:
            end = now + SECONDS
        else:
            best = min(best, now - started)
    return best


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
