"""Fixed sizes in the place of learned ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sizeless._example import arguments_of, tensors_in
from sizeless._validate import boolean, number
from sizeless._validate import module as check_module
from sizeless.nn import DiffStrideNd, FlexConvNd, SpectralPoolNd
from sizeless.surgery.containers import is_ours, with_layers_of_their_own, without_our_blocks
from sizeless.surgery.integer_strides import IntegerStrides
from sizeless.surgery.parts import copy_of, macs_of, parameters_of, put, take_hooks
from sizeless.surgery.plain import SIZED, plain_at
from sizeless.surgery.report import Change, Report
from sizeless.surgery.tracing import Call, Trace, relative_error, trace


def fold(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    *,
    energy: float | None = None,
    fuse_norms: bool = False,
    integer_strides: float = 0.0,
) -> tuple[nn.Module, Report]:
    """Turn every learned size into a fixed one, and the model into an ordinary one.

    A FlexConv becomes the ``nn.Conv`` of its cropped kernel, for maps of any size. A NIFF layer
    becomes a convolution that wraps around maps of the example's size, as large as they are, or
    cropped to what holds a share of its ``energy``. ``DiffStride`` and ``SpectralPool`` become one
    matrix product per axis for maps of the example's size: an ``nn.Linear`` for the last, 1x1
    convolutions for the others, all frozen. Networks and blocks of this library become graphs
    (``torch.fx.GraphModule``) of modules of ``torch.nn``, and what is yours stays as it is.

    No complex number, no Fourier transform and no import of ``sizeless`` is left, so the model
    exports to what knows none of them. It computes the same function on inputs of the example's
    size, any number of them.

    Args:
        model: Any module.
        example_input: An input tensor, or a tuple of all positional arguments.
        energy: Share of the energy of NIFF kernels, above 0 and at most 1, that the taps around
            the middle must hold; ``None`` keeps all taps.
        fuse_norms: Whether convolutions take in the batch normalisation that follows. The model
            is then a graph in evaluation mode.
        integer_strides: Largest distance of a learned stride from a whole number at which it is
            rounded: 0 rounds none, 0.5 all. A rounded stride is that of the convolution or maximum
            just before it, else of the 1x1 convolution just after it, else of an average of as
            many neighbours. There is no low-pass filter then, so the network computes something
            else, and is to be fine-tuned.

    Returns:
        The plain model, and a ``Report`` with the size of every layer, the relative error of its
        kernel and that of the network's output.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range, a layer cannot be folded (its path and the reason
            are named), or the network needs other sizes of maps than rounded strides give.

    Examples:
        >>> import sizeless, torch
        >>> model = torch.nn.Sequential(
        ...     sizeless.FlexConv2d(1, 4, kernel_size=33, init_size=5),
        ...     sizeless.DiffStride2d(2.0, size_rule="exact"),
        ... )
        >>> plain, report = sizeless.fold(model, torch.randn(1, 1, 32, 32))
        >>> plain[0]
        Conv2d(1, 4, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
        >>> report.error < 1e-5
        True
    """
    check_module("model", model)
    boolean("fuse_norms", fuse_norms)
    if energy is not None:
        number("energy", energy, above=0, maximum=1)
    number("integer_strides", integer_strides, minimum=0, maximum=0.5)
    arguments = arguments_of(example_input)
    reference = trace(model, arguments).output
    new = with_layers_of_their_own(without_our_blocks(copy_of(model)))
    seen = trace(new, arguments)
    rounded: list[Change] = []
    if integer_strides:
        strides = IntegerStrides(new, seen.calls, integer_strides)
        new = strides.round()
        seen = _traced_again(new, arguments, integer_strides)
        rounded = list(strides.changes(seen.calls))
    new, changes = _replaced(new, seen.calls, energy)
    _refuse_leftovers(new)
    if fuse_norms:
        new = _fused(new)
    output = trace(new, arguments).output
    # Rounded strides may leave a map of another size, which cannot be compared.
    error = relative_error(output, reference) if _shapes(output) == _shapes(reference) else None
    notes = (ROUNDED,) if rounded else ()
    return new, Report((*rounded, *changes), error, notes)


def _shapes(output: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_in(output)]


ROUNDED = "Strides were rounded: the network computes something else, and is to be fine-tuned."


def _traced_again(model: nn.Module, arguments: tuple[Any, ...], within: float) -> Trace:
    try:
        return trace(model, arguments)
    except Exception as error:
        raise ValueError(
            f"the network does not run with strides rounded by up to integer_strides={within}: "
            f"{' '.join(str(error).split())[:200]}; lower it, or leave it at 0"
        ) from error


def _replaced(
    model: nn.Module, calls: Mapping[nn.Module, list[Call]], energy: float | None
) -> tuple[nn.Module, list[Change]]:
    """Put plain layers into a model, and return it with what became of each layer."""
    changes: list[Change] = []
    made: dict[nn.Module, nn.Module] = {}
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(layer, SIZED):
            continue
        if layer not in made:
            own = calls.get(layer, [])
            new, error = plain_at(path, layer, own, energy)
            take_hooks(new, layer)
            made[layer] = new.train(layer.training)
            changes.append(_change(path, layer, new, own, error))
        model = put(model, path, made[layer])
    return model, changes


def _change(
    path: str, layer: Any, new: nn.Module, calls: list[Call], error: float | None
) -> Change:
    size: Any = calls[-1].input[2:] if calls else ()
    if isinstance(layer, (DiffStrideNd, SpectralPoolNd)):
        size = layer.stride
    elif isinstance(layer, FlexConvNd):
        size = layer.size
    after, macs = size, macs_of(layer, calls)
    macs_after = macs
    if error is not None:
        conv: Any = next(part for part in new.modules() if hasattr(part, "kernel_size"))
        after, macs_after = conv.kernel_size, macs_of(conv, calls)
    return Change(
        name=path,
        before=type(layer).__name__,
        after=type(new).__name__,
        size_before=tuple(size or ()),
        size_after=tuple(after or ()),
        parameters_before=parameters_of(layer),
        parameters_after=parameters_of(new),
        macs_before=macs,
        macs_after=macs_after,
        error=error,
    )


def _refuse_leftovers(model: nn.Module) -> None:
    left = [
        f"{path or 'the top'} ({type(module).__name__})"
        for path, module in model.named_modules()
        if is_ours(module)
    ]
    if left:
        raise ValueError(
            f"fold cannot replace {', '.join(left)}: it has no plain form; put a layer of "
            "sizeless.nn in its place"
        )


def _fused(model: nn.Module) -> nn.Module:
    """The model as a graph in which batch normalisation is part of the convolution before it."""
    from torch.fx.experimental.optimization import fuse

    try:
        fused: nn.Module = fuse(model.eval())
    except Exception as error:
        raise ValueError(
            f"fuse_norms needs a model that torch.fx can trace, and {type(model).__name__} is "
            f"none: {' '.join(str(error).split())[:200]}; fold without it"
        ) from error
    return fused
