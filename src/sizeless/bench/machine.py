"""The machine: what it is, and how fast it can compute and copy at best."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sizeless.bench import peers
from sizeless.bench.timing import Plan, Timing, measure
from sizeless.functional.plan_table import processor


@dataclass(frozen=True)
class Rates:
    """Best rates of the machine, measured.

    Attributes:
        flops: Floating-point operations per second of a float32 matrix product.
        bytes: Bytes read and written per second by a copy.
    """

    flops: float
    bytes: float


def synchronizer(device: str) -> Callable[[], object]:
    """Return what waits until the device has done its work."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def measure_rates(device: str, seconds: float = 1.0) -> Rates:
    """Measure a large matrix product and a large copy.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        seconds: Time to spend.
    """
    side, length = (8192, 1 << 28) if device == "cuda" else (1536, 1 << 25)
    matrix = torch.ones(side, side, device=device)
    product = torch.empty_like(matrix)
    source = torch.ones(length, device=device)
    target = torch.empty_like(source)
    timings = measure(
        {
            "product": lambda: torch.mm(matrix, matrix, out=product),
            "copy": lambda: target.copy_(source),
        },
        Plan(budget=seconds, least=3),
        synchronizer(device),
    )
    # A limit is the best that was seen.
    best = {name: min(t.seconds) for name, t in timings.items() if isinstance(t, Timing)}
    return Rates(2 * side**3 / best["product"], 8 * length / best["copy"])


def describe(device: str, threads: int) -> dict[str, Any]:
    """Return what decides about timings: hardware, versions, threads.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        threads: Threads of torch.
    """
    found = {name: _version(name) for name in ("sizeless", *peers.PACKAGES, "torchvision")}
    return {
        "cpu": processor(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": threads,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": found,
    }


def now() -> str:
    """Return the time in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
