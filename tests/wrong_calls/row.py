"""Rows for tables of wrong calls, and the check that every row gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sizeless

SOURCE = Path(sizeless.__file__).parent
SHORT = 60

Fragment = str | re.Pattern[str]


def wrong(name: str, call: Callable[[], object], error: type[Exception], *fragments: str) -> Any:
    """A call that must raise ``error`` with every fragment in its message."""
    return pytest.param(call, error, fragments, id=name)


def argument(
    call: Callable[..., object], name: str, value: Any, error: type[Exception], *allowed: str
) -> Any:
    """A call with one wrong keyword: the message must give its name, its value, what is allowed.

    Messages say a value as ``got 3`` or ``padding=3``, of a tensor its shape or dtype, and of a
    module, or what should have been one or a tensor, its type.
    """
    if isinstance(value, Tensor):
        shown = f"{value.dtype}, {tuple(value.shape)}"
        said = "|".join(re.escape(text) for text in shown.split(", ", 1))
    else:
        shown = repr(value) if len(repr(value)) < SHORT else type(value).__name__
        shown = value.__name__ if isinstance(value, type) else shown
        said = rf"(got |\b{name}[= ])({re.escape(shown)}|{type(value).__name__})(?!\d)"
    return pytest.param(
        lambda: call(**{name: value}),
        error,
        (re.compile(rf"\b{name}\b"), re.compile(said), *allowed),
        id=f"{_name(call)}({name}={shown})",
    )


def _name(call: Any) -> str:
    function = getattr(call, "func", call)
    return getattr(function, "__qualname__", type(function).__name__)


def check(call: Callable[[], object], error: type[Exception], fragments: tuple[Fragment, ...]):
    """Raise unless the call fails as it should: checked by sizeless, said in two sentences."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error
    assert SOURCE in Path(caught.traceback[-1].path).parents
    assert "\n" not in message
    assert len(re.findall(r"\. [A-Z]", message)) <= 1
    for fragment in fragments:
        found = fragment in message if isinstance(fragment, str) else fragment.search(message)
        assert found, f"{fragment!r} is not in {message!r}"


def filled(layer: nn.Module, parameter: str, value: float) -> Any:
    """The layer with all entries of one of its parameters set."""
    with torch.no_grad():
        layer.get_parameter(parameter).fill_(value)
    return layer
