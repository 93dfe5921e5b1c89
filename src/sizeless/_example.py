"""Running a network once on an example, to see what it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def arguments_of(example_input: Any) -> tuple[Any, ...]:
    """Return the positional arguments that an example input stands for.

    Raises:
        TypeError: If it is neither a tensor nor a tuple with a tensor in it.
    """
    arguments = (example_input,) if isinstance(example_input, Tensor) else example_input
    if not isinstance(arguments, tuple) or not any(True for _ in tensors_in(arguments)):
        shown = repr(arguments) if isinstance(arguments, tuple) else type(example_input).__name__
        raise TypeError(
            "example_input must be a tensor, or a tuple of all positional arguments with a tensor "
            f"among them, got {shown}"
        )
    return arguments


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
