"""Operators that tracing sees as one node: what is inside is chosen and run at run time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

_PLAIN = (Tensor, nn.Parameter)

_LIBRARY = torch.library.Library("sizeless", "DEF")


class _Positional(inspect.Signature):
    """Signature of a function that is given all of its arguments, and by position."""

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        return super().bind(*args, **kwargs) if kwargs else _Bound(args, {})


class _Bound(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def apply_defaults(self) -> None:
        """Do nothing: there are none."""


class Function(torch.autograd.Function):
    """Base of our derivatives: torch binds arguments to the signature of ``forward`` at every call.

    That takes as long as several operations on small tensors, so here it only hands them through.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        forward: Any = cls.forward
        forward.__signature__ = _Positional.from_callable(forward)


def node(schema: str, run: Callable[..., Any], shape: Callable[..., Any]) -> Any:
    """Define the operator ``torch.ops.sizeless.<name>`` and return what calls it always.

    Args:
        schema: As for ``operator``.
        run: As for ``operator``.
        shape: As for ``operator``.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sizeless::{name}", shape, lib=_LIBRARY)
    return getattr(torch.ops.sizeless, name).default


def operator(
    schema: str,
    run: Callable[..., Any],
    shape: Callable[..., Any],
    flops: Callable[..., int],
    *,
    any_layout: bool = False,
) -> Any:
    """Define the operator ``torch.ops.sizeless.<name>`` and return what calls it where needed.

    ``torch.compile`` and ``torch.export`` keep it as one node, so transforms, chunks and the
    choice between methods cost no graph break and no recompilation. It has no derivative of its
    own: wrap it in a ``Function``, whose ``backward`` is made of operators too.

    Args:
        schema: Signature in torch's schema language, such as
            ``"double(Tensor input, int[] sizes) -> Tensor"``.
        run: What it computes, on any device, without autograd. It must not return its input.
        shape: Takes the same arguments and returns empty tensors of the right shape and dtype.
        flops: What it counts for in torch's ``FlopCounterMode``, two operations for each
            multiply-add; takes the same arguments, with shapes in place of tensors.
        any_layout: Whether ``run`` may lay its results out in memory otherwise than ``shape`` says:
            a compiler relies on that, and gets contiguous ones.

    Returns:
        What to call, within the ``forward`` of a ``Function``: the operator, or
        ``run`` itself where nothing but the result is wanted, which saves the dispatcher's time.
    """
    defined = node(schema, _contiguous(run) if any_layout else run, shape)
    register_flop_formula(defined.overloadpacket)(_without_shape_of_result(flops))

    def call(*arguments: Any) -> Any:
        return defined(*arguments) if somebody_looks(arguments) else run(*arguments)

    return call


def _contiguous(run: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        results = run(*arguments)
        if isinstance(results, Tensor):
            return results.contiguous()
        return tuple(result.contiguous() for result in results)

    return call


def somebody_looks(arguments: tuple[Any, ...]) -> bool:
    """Whether a compiler, a counter, a transformation or a kind of tensor must see the operator."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(isinstance(a, Tensor) and type(a) not in _PLAIN for a in arguments)
    )


def _without_shape_of_result(flops: Callable[..., int]) -> Callable[..., int]:
    def formula(*arguments: Any, **options: Any) -> int:
        del options["out_shape"]
        return flops(*arguments, **options)

    return formula
