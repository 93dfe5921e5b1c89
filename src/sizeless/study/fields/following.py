"""One forward pass in which every tensor carries what its positions see of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from sizeless._example import arguments_of, evaluating, tensors_in
from sizeless._validate import module as check_module
from sizeless.study.fields.functions import CONSTANT, LEAKING, RULES, elementwise, name_of
from sizeless.study.fields.reach import Fact, Reach, Shape, Window, meet, unknown
from sizeless.study.fields.windows import (
    GLOBAL,
    OPAQUE,
    WINDOWS,
    Call,
    Windows,
    kind_of,
    layer_windows,
)

LOBE = "low-pass filters counted by their main lobe"

WHOLE = "global"
"""What is said of a function after which every position sees the whole input."""


@dataclass(frozen=True)
class Sight:
    """One call of a layer.

    Attributes:
        name: Path of the layer in the network, or of the module in whose forward it is.
        layer: Name of its class, or of the function.
        kind: What it is, in a word.
        fact: What its output sees.
        shape: Shape of its output.
        windows: Its window on each axis of the input, ``None`` where it has none.
        note: A remark on this layer alone.
    """

    name: str
    layer: str
    kind: str
    fact: Fact
    shape: Shape
    windows: tuple[Window | None, ...]
    note: str = ""


@dataclass(frozen=True)
class Map:
    """An output of a module, at one of its calls.

    Attributes:
        name: Path of the module.
        call: Which call of the module it was, the first being 0.
        fact: What it sees.
        shape: Its shape.
    """

    name: str
    call: int
    fact: Fact
    shape: Shape

    @property
    def sizes(self) -> Shape:
        """Positions along each axis of the input."""
        return tuple(self.shape[reach.dims[0]] for reach in self.fact.reaches)


@dataclass(frozen=True)
class Followed:
    """What a forward pass has shown: size of the input, calls of layers, maps, in their order."""

    sizes: Shape
    sights: tuple[Sight, ...]
    maps: tuple[Map, ...]


def input_map(arguments: Any) -> Tensor:
    """Return the first tensor that has spatial axes.

    Raises:
        ValueError: If there is none, or it is empty.
    """
    for tensor in tensors_in(arguments):
        if tensor.is_floating_point() and 3 <= tensor.dim() <= 5:
            if not tensor.numel():
                raise ValueError(
                    f"example_input must not be empty, got a tensor of shape {tuple(tensor.shape)}"
                )
            return tensor
    shapes = [tuple(tensor.shape) for tensor in tensors_in(arguments)]
    raise ValueError(
        "example_input must hold a floating-point tensor (N, C, *spatial) with one to three "
        f"spatial axes, got tensors of shape {', '.join(map(str, shapes))}"
    )


def fewer(arguments: tuple[Any, ...], most: int) -> tuple[Any, ...]:
    """The first inputs of a batch, where a tensor is all there is; see ``input_map``."""
    input_map(arguments)
    if len(arguments) == 1 and isinstance(arguments[0], Tensor):
        return (arguments[0][:most],)
    return arguments


def follow(
    model: nn.Module, example_input: Tensor | tuple[Any, ...], *, gates: bool = True
) -> Followed:
    """Run a network once, in evaluation, and return what the positions of its maps see.

    Args:
        model: Any network.
        example_input: Input tensor, or a tuple of all positional arguments.
        gates: Whether a map sees what one number for all of its positions has seen that it is
            multiplied by, or that is added to it.

    Raises:
        TypeError: If ``model`` is no module or ``example_input`` neither tensor nor tuple.
        ValueError: If no input has spatial axes.
    """
    check_module("model", model)
    arguments = fewer(arguments_of(example_input), 1)
    sizes = tuple(input_map(arguments).shape[2:])
    axes = enumerate(sizes, start=2)
    start = Fact(tuple(Reach(size, 1.0, 0.0, 0.0, (dim,)) for dim, size in axes))
    flow = _Flow(model, start, gates)
    for tensor in tensors_in(arguments):
        flow.facts[tensor] = start if tuple(tensor.shape[2:]) == sizes else None
    handles = []
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        handles.append(module.register_forward_pre_hook(flow.enter(path)))
        handles.append(module.register_forward_hook(flow.leave, with_kwargs=True))
    try:
        eager = torch.compiler.set_stance("force_eager")
        with eager, evaluating(model), torch.no_grad(), flow:
            model(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    return Followed(sizes, tuple(flow.sights), tuple(flow.maps))


class _Facts:
    """What is known of every tensor; ``None`` of one that does not depend on the input."""

    def __init__(self, model: nn.Module, start: Fact) -> None:
        self._known = WeakTensorKeyDictionary()
        self._unseen = start.everywhere(unknown("code that torch does not show"))
        self.leak: str | None = None
        for module in model.modules():
            for tensor in tensors_in(vars(module)):
                self._known[tensor] = None

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor in self._known

    def get(self, tensor: Tensor) -> Fact | None:
        """What a tensor sees: maybe everything, if no function that was seen has made it."""
        fact: Fact | None = self._known.get(tensor, self._unseen)
        return fact

    def __setitem__(self, tensor: Tensor, fact: Fact | None) -> None:
        self._known[tensor] = fact

    def made(self, tensor: Tensor) -> None:
        """Note a tensor that was made from none that sees anything, but maybe from numbers."""
        self[tensor] = None if self.leak is None else self._unseen.noted(unknown(self.leak))


class _Flow(TorchFunctionMode):
    """Notes what every tensor sees."""

    def __init__(self, model: nn.Module, start: Fact, gates: bool) -> None:
        super().__init__()
        self.gates = gates
        self.facts = _Facts(model, start)
        self.running: list[tuple[str, nn.Module]] = []
        self.inside: nn.Module | None = None
        self.sights: list[Sight] = []
        self.maps: list[Map] = []
        self.calls: dict[str, int] = {}

    def enter(self, path: str) -> Any:
        """A hook that notes which module runs, and whether it is one that is not followed."""

        def hook(module: nn.Module, _args: Any) -> None:
            self.running.append((path, module))
            if self.inside is None and isinstance(module, OPAQUE):
                self.inside = module

        return hook

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A hook that says what the output of a module sees where no function has."""
        path, _ = self.running.pop()
        if self.inside is not None and self.inside is not module:
            return
        if self.inside is module:
            self.inside = None
            self._through_layer(path, module, next(tensors_in((args, kwargs))), output)
        else:
            self._unseen(path, module, (args, kwargs), output)
        call = self.calls[path] = self.calls.get(path, -1) + 1
        fact = self.facts.get(output) if isinstance(output, Tensor) else None
        if fact is not None and fact.is_map:
            self.maps.append(Map(path, call, fact, tuple(output.shape)))

    def _unseen(self, path: str, module: nn.Module, arguments: Any, output: Any) -> None:
        """Mark outputs that no function returned: those of compiled or scripted code."""
        unseen = [tensor for tensor in tensors_in(output) if tensor not in self.facts]
        facts = self._of(arguments)
        place = f"{type(module).__name__} {path}".strip()
        for tensor in unseen:
            self.facts[tensor] = facts[0][0].everywhere(unknown(place)) if facts else None

    def _through_layer(self, path: str, module: nn.Module, input: Tensor, output: Tensor) -> None:
        fact = self.facts.get(input)
        if fact is None:
            self.facts[output] = None
            return
        before, after = tuple(input.shape), tuple(output.shape)
        if isinstance(module, GLOBAL):
            seen = fact.mixed(range(2, len(before)))
            windows, note = {dim: Window(taps=before[dim]) for dim in range(2, len(before))}, ""
        else:
            windows, note = layer_windows(module, before, after)
            seen = fact.through(windows, f"{type(module).__name__} {path}")
        if note:
            seen = seen.noted(LOBE)
        self.facts[output] = seen
        named = path, type(module).__name__, kind_of(module)
        self._see(named, fact, seen, windows, after, note)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("input")
        shape = tuple(first.shape) if isinstance(first, Tensor) else ()
        output = func(*args, **kwargs)
        name = name_of(func)
        if name == "iter":
            parts = tuple(output)
            self._follow(Call(name, args, kwargs, parts, shape, self._place(name)), list(parts))
            return iter(parts)
        changed = list(tensors_in(args[0] if name == "setitem" else output))
        if self.inside is None and changed:
            with torch._C.DisableTorchFunction():
                call = Call(name, args, kwargs, output, shape, self._place(name))
                self._follow(call, changed)
        elif name in LEAKING and isinstance(first, Tensor) and first.is_floating_point():
            leaks = self.inside is None and self.facts.get(first) is not None
            self.facts.leak = self._place(name) if leaks else self.facts.leak
        return output

    def _place(self, name: str) -> str:
        path = self.running[-1][0] if self.running else ""
        return f"{name} in {path or 'the network'}"

    def _of(self, values: Any) -> list[tuple[Fact, Shape]]:
        """What is known of all nested tensors that depend on the input."""
        found = [(self.facts.get(tensor), tuple(tensor.shape)) for tensor in tensors_in(values)]
        return [(fact, shape) for fact, shape in found if fact is not None]

    def _follow(self, call: Call, changed: list[Tensor]) -> None:
        known = self._of((call.args, call.kwargs))
        if not known or call.name in CONSTANT:
            for tensor in changed:
                self.facts.made(tensor)
            return
        shape = tuple(changed[0].shape)
        main = self.facts.get(call.input) if isinstance(call.input, Tensor) else None
        kind, windows = "", Windows()
        after: Fact | list[Fact | None] | None = None
        if call.name in WINDOWS and main is not None:
            kind, window_of = WINDOWS[call.name]
            windows = window_of(call)
            after = _looked(main, windows, known, call, shape)
        elif call.name in RULES:
            after = RULES[call.name](call, self.facts)
        elif elementwise(call.name):
            after = meet(known, shape, call.place, gates=self.gates)
        if after is None:
            seen = known[0][0].noted(*(note for fact, _ in known for note in fact.notes))
            after = seen.everywhere("" if seen.whole else unknown(call.place))
        each = after if isinstance(after, list) else [after] * len(changed)
        for tensor, fact in zip(changed, each, strict=True):
            self.facts[tensor] = fact
        self._write_back(call, main, each[0])
        self._note_call(call, known, each, (kind, windows), shape)

    def _note_call(
        self,
        call: Call,
        known: list[tuple[Fact, Shape]],
        each: list[Fact] | list[Fact | None],
        looked: tuple[str, Windows],
        shape: Shape,
    ) -> None:
        """Note a function that is a layer, or one after which all see the whole input."""
        first = next((fact for fact in each if fact is not None), None)
        kind, windows = looked
        if first is None:
            return
        turned = first.whole and not any(fact.whole for fact, _ in known)
        if kind or turned:
            named = self._named(call.name, kind or WHOLE)
            self._see(named, known[0][0], first, windows, shape)

    def _write_back(self, call: Call, before: Fact | None, after: Fact | None) -> None:
        """What is written into a view of a tensor is in that tensor, too."""
        written = call.name == "setitem" or call.output is call.input
        base = call.input._base if written and isinstance(call.input, Tensor) else None
        if base is None or after is None:
            return
        if before is None or before.reaches != after.reaches:
            self.facts[base] = after.everywhere(unknown(call.place))

    def _named(self, function: str, kind: str) -> tuple[str, str, str]:
        """Path, class and kind of what runs now; the function where a module does more."""
        path, module = self.running[-1] if self.running else ("", None)
        leaf = module is not None and next(module.children(), None) is None
        return path, type(module).__name__ if leaf else function, kind

    def _see(
        self,
        named: tuple[str, str, str],
        before: Fact,
        after: Fact,
        windows: Windows,
        shape: Shape,
        note: str = "",
    ) -> None:
        """Note the call of a layer, unless it looks along axes that the input does not have."""
        on_axes = [windows.get(r.dims[0]) if r.dims else None for r in before.reaches]
        if not any(on_axes) and len(windows) == len(on_axes):
            on_axes = [windows[dim] for dim in sorted(windows)]
        if any(on_axes) or named[2] == WHOLE:
            self.sights.append(Sight(*named, after, shape, tuple(on_axes), note))


def _looked(
    main: Fact, windows: Windows, known: list[tuple[Fact, Shape]], call: Call, shape: Shape
) -> Fact:
    """What the outputs of a function with windows see, and of a weight made from the input."""
    seen = main.through(windows, call.place)
    if call.name.startswith("adaptive"):
        # One position that sees the whole map has no neighbours to be told from.
        seen = seen.gathered([dim for dim in windows if shape[dim] == 1], shape)
    for other, _ in known:
        if other is not main:
            seen = seen.each(Reach.everything).noted(*other.notes)
            seen = seen if other.whole else seen.noted(unknown(call.place))
    return seen
