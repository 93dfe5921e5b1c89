"""Learned sizes in the place of fixed ones, in any network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sizeless._example import arguments_of
from sizeless._validate import boolean, one_of, option_names
from sizeless._validate import module as check_module
from sizeless.nn import DiffStride2d, FlexConv2d, NIFFConv2d
from sizeless.surgery import downsampling, flex, niff
from sizeless.surgery.parts import (
    COMPUTED,
    NOT_CALLED,
    SUBCLASS,
    UNBATCHED,
    copy_of,
    macs_of,
    parameters_of,
    put,
    take_hooks,
)
from sizeless.surgery.report import Change, Report, by
from sizeless.surgery.selection import Options, Rules, Selection
from sizeless.surgery.tracing import Trace, relative_error, smallest_map, trace

CONVOLUTIONS = ("flex", "niff")
DOWNSAMPLING = ("diffstride",)
PLACE = ("stride", "device", "dtype")
GEOMETRY = (*PLACE, "padding", "dilation", "groups", "bias", "padding_mode")
OPTIONS: dict[str, tuple[type[nn.Module], tuple[str, ...], tuple[str, ...]]] = {
    "flex": (
        FlexConv2d,
        (*GEOMETRY, "init_size", "init", "causal"),
        ("kernel_size", "learn_basis"),
    ),
    "niff": (NIFFConv2d, niff.FIXED, ("form", "bias", "fit", "hidden")),
    "diffstride": (DiffStride2d, PLACE, ("first",)),
}
"""Of every operation: the layer whose arguments are its options, those that the layer in its place
decides, and options of its own."""


def convert(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    conv: str | None = None,
    downsample: str | None = None,
    *,
    rules: Rules = None,
    stem: bool = False,
    dry_run: bool = False,
    conv_options: Options | None = None,
    stride_options: Options | None = None,
) -> tuple[nn.Module, Report]:
    """Give an existing network learnable sizes.

    ``conv="flex"`` puts a FlexConv in the place of every convolution of more than one tap. Its
    kernel is the one that was there, to rounding, so that the network computes what it computed,
    and it has room to grow. What freedom is left in its basis functions makes a kernel
    that is small just outside.

    ``conv="niff"`` puts frequency filters as large as the map in the place of convolutions with
    stride 1 that keep the map's size, drawn anew or, with ``fit``, fitted to the kernels that were
    there. Such a filter wraps around the map's border, so the network computes something else.

    ``downsample="diffstride"`` replaces strided convolutions, and max, average and blur pools, by
    what they compute at every position, followed by a learned stride that starts at the present
    one. Layers whose outputs meet again (residual shortcuts, parallel branches, concatenations)
    share one stride; they are found from a forward pass. The mean of every map is kept. The
    network then computes something else, since a learned stride has a low-pass filter of its own.

    Left alone, and listed with the reason, is what cannot be replaced: subclasses of torch's
    layers, 1x1 kernels, kernels without a middle tap, half precision, weights that somebody shares
    or convolves with by a function, strides on which the shape of something else depends.

    The original stays as it is. Shared modules stay shared; hooks, dtype, device, training mode
    and ``requires_grad`` are kept. Make the optimizer afterwards, with ``sizeless.param_groups``.

    Args:
        model: Any module.
        example_input: An input tensor, or a tuple of all positional arguments.
        conv: ``"flex"``, ``"niff"`` or ``None``.
        downsample: ``"diffstride"`` or ``None``.
        rules: What is to be done with which layer: a dictionary from patterns of paths
            (``"layer1.*"``) to options that override ``conv_options`` and ``stride_options``, where
            ``None`` leaves a layer alone; or a function of path and module that returns ``True``,
            ``None`` or options. An option counts for layers that have it.
        stem: Whether the first convolution is converted, too. One that a rule names always is.
        dry_run: Return the original model, and the report of what would be done.
        conv_options: For ``"flex"``: ``kernel_size``, the size in taps to which kernels may grow
            (default: four times as far as now, within the map), ``learn_basis``, whether the basis
            functions of kernels are trained beside their coefficients (default: no; steps in all of
            them at once would destroy the kernels), and other arguments of ``FlexConv2d``. For
            ``"niff"``: ``form`` (``"split"`` or ``"full"``), ``bias``, ``fit`` (steps of fitting,
            default 0) and other arguments of ``NIFFConv2d``.
        stride_options: Arguments of ``DiffStride2d``; ``size_rule`` is ``"exact"`` by default. And
            ``first``, the order in the place of a strided convolution: ``"conv"`` (default)
            computes it at every position, which is nearest to what it was and costs the stride
            squared; ``"pool"`` resamples the map first, and costs what the strided convolution
            did, but spreads its taps by the stride.

    Returns:
        The new model, and a ``Report`` with each layer's size, parameters and MACs before and
        after.

    Raises:
        TypeError: If an argument has the wrong type, or an option is unknown.
        ValueError: If neither ``conv`` nor ``downsample`` is given, a name is unknown, or a rule
            matches nothing.

    Examples:
        >>> import sizeless, torch
        >>> from torch import nn
        >>> plain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2))
        >>> image = torch.randn(1, 1, 28, 28)
        >>> model, report = sizeless.convert(plain, image, conv="flex")
        >>> [type(layer).__name__ for layer in model], model[1].size, report.error < 1e-4
        (['Conv2d', 'FlexConv2d'], (5, 5), True)
    """
    check_module("model", model)
    boolean("stem", stem)
    boolean("dry_run", dry_run)
    arguments = arguments_of(example_input)
    kernels, strides = conv_options or {}, stride_options or {}
    _check_options(conv, downsample, kernels, strides)
    of_kernels, of_strides = Selection(rules, kernels), Selection(rules, strides)
    new = copy_of(model)
    first = seen = trace(new, arguments)
    changes: list[Change] = []
    stem_path = None if stem else _stem(new, first)
    known_as: dict[nn.Module, str] = {}
    if downsample is not None:
        learned = _strides(new, arguments, of_strides, first, stem_path)
        new = learned.replace()
        seen = trace(new, arguments)
        changes += downsampling.changes(learned, first, seen)
        known_as = learned.known_as()
    if conv is not None:
        new, converted = _convert_kernels(new, conv, of_kernels, seen, stem_path, known_as)
        changes += converted
    Selection.check_all_used(of_kernels, of_strides)
    error = None
    if conv == "flex" and downsample is None:
        error = relative_error(trace(new, arguments).output, first.output)
    notes = tuple(_functional_notes(first)) + ((CIRCULAR,) if conv == "niff" else ())
    return (model if dry_run else new), Report(tuple(changes), error, notes)


CIRCULAR = (
    "Frequency filters wrap around the map's border: what leaves on the right comes in on the "
    "left. boundary='zeros' pads instead."
)


def _check_options(
    conv: str | None, downsample: str | None, kernels: Options, strides: Options
) -> None:
    for name, value in (("conv_options", kernels), ("stride_options", strides)):
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be a dictionary, got {value!r}")
    if conv is None and downsample is None:
        raise ValueError("give conv='flex' or conv='niff', or downsample='diffstride', or both")
    if conv is not None:
        one_of("conv", conv, CONVOLUTIONS)
        _check_names("conv_options", kernels, conv)
    elif kernels:
        raise ValueError(f"conv_options={kernels!r} need conv='flex' or conv='niff'")
    if downsample is not None:
        one_of("downsample", downsample, DOWNSAMPLING)
        _check_names("stride_options", strides, downsample)
    elif strides:
        raise ValueError(f"stride_options={strides!r} need downsample='diffstride'")


def _names(operation: str | None) -> set[str]:
    """Options of an operation: arguments of its layer, and its own."""
    if operation is None:
        return set()
    layer, fixed, own = OPTIONS[operation]
    return {*option_names(layer, fixed), *own}


def _check_names(owner: str, given: Options, *operations: str | None) -> None:
    allowed = set().union(*map(_names, operations))
    for name, value in given.items():
        if name not in allowed:
            raise TypeError(
                f"{owner} have no {name}={value!r}; allowed are {', '.join(sorted(allowed))}"
            )


def _chosen(
    selection: Selection, path: str, module: nn.Module, stem_path: str | None, operation: str
) -> dict[str, Any] | None:
    """Options for a layer, or ``None`` if it is to be left alone without a word."""
    given = selection.options_for(path, module)
    if given is None or (path == stem_path and not selection.named(path, module)):
        return None
    _check_names(f"rules for {path!r}", given, *CONVOLUTIONS, *DOWNSAMPLING)
    names = _names(operation)
    return {name: value for name, value in given.items() if name in names}


def _stem(model: nn.Module, seen: Trace) -> str | None:
    """Path of the convolution that is called first."""
    paths = {module: path for path, module in model.named_modules()}
    return next(
        (paths[module] for module in seen.calls if isinstance(module, niff.Convolution)), None
    )


def _unwanted(path: str, stem_path: str | None) -> str:
    """Why nobody wants a layer to be converted."""
    return "the stem" if path == stem_path else "a rule says so"


def _strides(
    model: nn.Module,
    arguments: tuple[Any, ...],
    selection: Selection,
    seen: Trace,
    stem_path: str | None,
) -> downsampling.Strides:
    """What is to replace the strides of a model."""
    wanted: dict[nn.Module, Options] = {}
    reasons: dict[nn.Module, str] = {}
    for path, module in model.named_modules():
        if not downsampling.stride_of(module):
            continue
        options = _chosen(selection, path, module, stem_path, "diffstride")
        if options is None:
            reasons[module] = _unwanted(path, stem_path)
        elif reason := downsampling.why_not(module, seen.calls.get(module, [])):
            reasons[module] = reason
        else:
            wanted[module] = options
    return downsampling.Strides(model, arguments, wanted, reasons)


def _convert_kernels(
    model: nn.Module,
    conv: str,
    selection: Selection,
    seen: Trace,
    stem_path: str | None,
    known_as: Mapping[nn.Module, str],
) -> tuple[nn.Module, list[Change]]:
    """Replace convolutions in a model, and return it with what became of each.

    Rules know a convolution by the path ``known_as``, if it has moved.
    """
    places: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, niff.Convolution):
            places.setdefault(module, []).append(path)
    owners = _owners(model)
    changes = []
    for module, paths in places.items():
        change = _unchanged(paths[0], module, seen)
        path = known_as.get(module, paths[0])
        options = _chosen(selection, path, module, stem_path, conv)
        if options is None:
            changes.append(replace(change, reason=_unwanted(path, stem_path)))
            continue
        if reason := _why_not(module, conv, seen, owners, options):
            changes.append(replace(change, reason=reason))
            continue
        try:
            new, error, remark = _replacement(module, conv, seen, options)
        except ValueError as wrong:
            raise ValueError(f"layer {path!r}: {wrong}") from wrong
        take_hooks(new, module)
        new.train(module.training)
        for place in paths:
            model = put(model, place, new)
        changes.append(_changed(change, new, error, remark, seen.calls[module]))
    return model, changes


def _owners(model: nn.Module) -> dict[Tensor, int]:
    """How many modules have each parameter as their own."""
    counts: dict[Tensor, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            counts[parameter] = counts.get(parameter, 0) + 1
    return counts


def _why_not(
    module: Any, conv: str, seen: Trace, owners: Mapping[Tensor, int], options: Options
) -> str:
    """Why a convolution cannot be replaced, or ``""``."""
    weight = module._parameters.get("weight")
    calls = seen.calls.get(module, [])
    user = seen.weights_used.get(weight)
    reasons = {
        SUBCLASS.format(type(module).__name__): type(module) not in flex.FLEXCONVS,
        COMPUTED: weight is None,
        NOT_CALLED: not calls,
        "its weight is another module's, too": owners.get(weight, 0) > 1,
        f"{user or 'the model'} convolves with its weight": user is not None,
        UNBATCHED: any(len(call.input) != len(module.kernel_size) + 2 for call in calls),
        f"{by(module.kernel_size)}: there is no size to learn": max(module.kernel_size) == 1,
    }
    for reason, holds in reasons.items():
        if holds:
            return reason
    if conv == "flex":
        return flex.why_not(module, options.get("kernel"))
    return niff.why_not(module)


def _replacement(
    module: Any, conv: str, seen: Trace, options: dict[str, Any]
) -> tuple[nn.Module, float | None, str]:
    """The layer in the place of a convolution, its error, and a remark."""
    size = smallest_map(seen.calls[module], len(module.kernel_size))
    if conv == "flex":
        largest = options.pop("kernel_size", None) or flex.largest_kernel(module, size)
        learn_basis = boolean("learn_basis", options.pop("learn_basis", False))
        layer, error = flex.to_flexconv(module, largest, options, learn_basis=learn_basis)
        return layer, error, ""
    return niff.to_niff(module, size, **options)


def _unchanged(path: str, module: Any, seen: Trace) -> Change:
    macs, count = macs_of(module, seen.calls.get(module, [])), parameters_of(module)
    size = tuple(module.kernel_size)
    name = type(module).__name__
    return Change(path, name, "", size, size, count, count, macs, macs)


def _changed(
    change: Change, new: nn.Module, error: float | None, remark: str, calls: Any
) -> Change:
    first, *others = [part for part in new.modules() if hasattr(part, "in_channels")]
    sizes = getattr(first, "size", None) or calls[-1].input[2:]
    return replace(
        change,
        after=type(new).__name__,
        size_after=tuple(sizes),
        parameters_after=parameters_of(new),
        macs_after=sum(macs_of(part, calls) for part in (first, *others)),
        error=error,
        reason=remark,
    )


def _functional_notes(seen: Trace) -> Iterator[str]:
    for path, shape in dict.fromkeys(seen.functional):
        yield (
            f"{path or 'the model'} convolves by a function with a weight of shape {shape}: only "
            "modules can be converted; put the weight into an nn.Conv layer to include it"
        )
