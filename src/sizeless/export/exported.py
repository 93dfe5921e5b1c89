"""What every export has in common: the program of a plain network, and the check of its file."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sizeless._example import evaluating
from sizeless._validate import module as check_module
from sizeless.surgery.tracing import relative_error

TOLERANCE = 1e-4
"""Largest relative error of what a file computes."""

LEAST_RUNS, MOST_RUNS, SECONDS = 5, 100, 0.3
"""How often a network is run to tell how long it takes."""

FOLD_FIRST = "turn layers of sizeless into plain ones first, with sizeless.fold"

Run = Callable[..., Any]


class ExportError(RuntimeError):
    """A network that cannot be exported; the message says in one line why, and what to do."""


@dataclass(frozen=True)
class Exported:
    """A file, and how it compares with the network in torch.

    Attributes:
        path: The file.
        bytes: Its size.
        error: Largest relative error of its outputs: for the example, one sample more, and one.
        ms: Milliseconds of one run on the example, median.
        torch_ms: The same for the network in torch.
    """

    path: Path
    bytes: int
    error: float
    ms: float
    torch_ms: float


def inputs_of(example_input: Any) -> tuple[Tensor, ...]:
    """Return the input tensors that an example stands for, each with a batch axis.

    Raises:
        TypeError: If it is neither a tensor nor a tuple of tensors.
        ValueError: If one has no sample.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    if not inputs or not all(isinstance(input, Tensor) for input in inputs):
        raise TypeError(
            "example_input must be a tensor or a tuple of tensors, got "
            f"{[type(input).__name__ for input in inputs]}"
        )
    for input in inputs:
        if input.dim() == 0 or len(input) == 0:
            raise ValueError(
                "example_input must have a batch axis with one sample or more, got shape "
                f"{tuple(input.shape)}"
            )
    return inputs


def program_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Trace a network in evaluation for any number of samples.

    Raises:
        ExportError: If it cannot be traced, or has operators that a plain network has not.
    """
    check_module("model", model)
    # One sample would be taken for the only number of samples.
    several = tuple(torch.cat([input, input]) if len(input) == 1 else input for input in inputs)
    shapes: Any = tuple({0: Dim("batch", min=1)} for _ in inputs)
    with evaluating(model), torch.no_grad():
        try:
            program = torch.export.export(model, several, dynamic_shapes=shapes)
        except Exception as error:
            raise ExportError(
                "torch.export cannot trace the network for any number of samples: "
                f"{one_line(error)}; {FOLD_FIRST}"
            ) from error
    refuse("the network", spectral_operators(program))
    for node in program.graph.nodes:
        # Where sources lie on this machine is no part of the network.
        node.meta.pop("stack_trace", None)
    return program


def spectral_operators(program: ExportedProgram) -> set[str]:
    """Names of Fourier transforms, complex operators and operators of this library."""
    found = set()
    for node in program.graph.nodes:
        name = str(node.target)
        value = node.meta.get("val")
        spectral = name.startswith("sizeless") or "fft" in name or "stft" in name
        if spectral or (isinstance(value, Tensor) and value.is_complex()):
            found.add(name)
    return found


def refuse(owner: str, operators: set[str]) -> None:
    """Raise if there is an operator that a plain network has not.

    Raises:
        ExportError: If so.
    """
    if operators:
        raise ExportError(
            f"{owner} has operators that other programs do not know: "
            f"{', '.join(sorted(operators))}; {FOLD_FIRST}"
        )


def check(run: Run, model: nn.Module, inputs: tuple[Tensor, ...], name: str) -> dict[str, float]:
    """Compare what a file computes with the network, and time both.

    Args:
        run: Runs the file on input tensors.
        model: The network.
        inputs: The example.
        name: What runs the file, for messages.

    Returns:
        ``error``, ``ms`` and ``torch_ms``, as in ``Exported``.

    Raises:
        ExportError: If an output is further off than ``TOLERANCE``.
    """
    more = tuple(torch.cat([input, input[:1]]) for input in inputs)
    one = tuple(input[:1] for input in inputs)
    with evaluating(model), torch.no_grad():
        errors = {}
        for values in (inputs, more, one):
            expected = model(*values)
            errors[len(values[0])] = _error(run, values, expected, name)
        worst = max(errors, key=errors.__getitem__)
        # Written so that NaN fails.
        if not errors[worst] <= TOLERANCE:
            raise ExportError(
                f"{name} computes something else: with {worst} samples its relative error is "
                f"{errors[worst]:.1e}, and at most {TOLERANCE:.0e} is allowed"
            )
        return {
            "error": errors[worst],
            "ms": milliseconds(lambda: run(*inputs)),
            "torch_ms": milliseconds(lambda: model(*inputs)),
        }


def _error(run: Run, values: tuple[Tensor, ...], expected: Any, name: str) -> float:
    try:
        return relative_error(run(*values), expected)
    except Exception as error:
        raise ExportError(
            f"{name} does not run with {len(values[0])} samples: {one_line(error)}"
        ) from error


def milliseconds(run: Callable[[], object]) -> float:
    """Median time of a run."""
    run()
    taken: list[float] = []
    while len(taken) < LEAST_RUNS or (len(taken) < MOST_RUNS and sum(taken) < SECONDS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def one_line(error: Exception) -> str:
    """The beginning of an error's message on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
