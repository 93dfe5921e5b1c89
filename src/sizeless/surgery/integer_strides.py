"""Whole strides in the place of learned ones, as ordinary strided layers have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from sizeless.nn import DiffStrideNd, FlexConvNd
from sizeless.nn.residual import CONVOLUTIONS
from sizeless.surgery.parts import (
    MAX_POOLS,
    int_axes,
    macs_of,
    parameters_of,
    plain_convolution,
    put,
    take_hooks,
)
from sizeless.surgery.report import Change
from sizeless.surgery.tracing import Call

AVERAGES: dict[int, type[Any]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}

Calls = Mapping[nn.Module, list[Call]]


@dataclass(frozen=True)
class _Rounded:
    """A learned stride that was rounded: where it was, and what has its stride now."""

    path: str
    stride: DiffStrideNd
    sizes: tuple[int, ...]
    before: nn.Module | None
    after: nn.Module


def nearest(stride: DiffStrideNd, within: float = 0.5) -> tuple[int, ...]:
    """The whole numbers next to a stride, ``()`` if one is further away than ``within``."""
    whole = tuple(round(s) for s in stride.stride)
    distances = [abs(s - n) for s, n in zip(stride.stride, whole, strict=True)]
    return whole if max(distances) <= within else ()


def average(sizes: tuple[int, ...]) -> nn.Module:
    """The mean over as many neighbours as a stride is long, for ``ceil(n / stride)`` samples."""
    if max(sizes) == 1:
        return nn.Identity()
    pool: nn.Module = AVERAGES[len(sizes)](sizes, ceil_mode=True)
    return pool


class IntegerStrides:
    """Rounds learned strides in a model, in place.

    The convolution or maximum just before a stride takes it; else the 1x1 convolution just after
    it; else it becomes an average. All of these leave ``ceil(n / stride)`` of ``n`` samples, so
    branches that meet agree.

    Args:
        model: A model in which no learned stride is at two paths.
        calls: The calls of its layers.
        within: Largest distance of a stride from a whole number.
    """

    def __init__(self, model: nn.Module, calls: Calls, within: float) -> None:
        self.model, self.calls, self.within = model, calls, within
        self.rounded: list[_Rounded] = []
        self._gone: set[nn.Module] = set()

    def round(self) -> nn.Module:
        """Round what is near enough, and return the model."""
        for path, stride in list(self.model.named_modules()):
            if isinstance(stride, DiffStrideNd) and (sizes := nearest(stride, self.within)):
                self._round(path, stride, sizes)
        self._tidy()
        return self.model

    def changes(self, after: Calls) -> Iterator[Change]:
        """What became of each stride, for the report.

        Args:
            after: The calls of the layers of the new model.
        """
        paths = {module: path for path, module in self.model.named_modules()}
        for one in self.rounded:
            # A FlexConv takes a stride as it is, and has a row of its own.
            own = one.after is one.before
            taken = [one.stride, *([] if one.before is None or own else [one.before])]
            left = [] if own else [one.after]
            kind = CONVOLUTIONS[one.stride.ndim] if own else type(one.after)
            reason = "rounded"
            if one.before is not None:
                reason += f", and taken by {paths[one.after] or 'the top'}"
            yield Change(
                name=one.path,
                before=type(one.stride).__name__,
                after=kind.__name__,
                size_before=one.stride.stride,
                size_after=one.sizes,
                parameters_before=parameters_of(*taken),
                parameters_after=parameters_of(*left),
                macs_before=sum(macs_of(layer, self.calls.get(layer, [])) for layer in taken),
                macs_after=sum(macs_of(layer, after.get(layer, [])) for layer in left),
                reason=reason,
            )

    def _round(self, path: str, stride: DiffStrideNd, sizes: tuple[int, ...]) -> None:
        for taker in self._takers(path) if max(sizes) > 1 else ():
            layer = self.model.get_submodule(taker)
            new = _strided(layer, sizes) if self._is_alone(layer) else None
            if new is not None:
                self._set(taker, new, layer)
                nothing = nn.Identity()
                self._set(path, nothing, stride)
                self._gone.add(nothing)
                self.rounded.append(_Rounded(path, stride, sizes, layer, new))
                return
        pool = average(sizes)
        if isinstance(pool, nn.Identity):
            self._gone.add(pool)
        self._set(path, pool, stride)
        self.rounded.append(_Rounded(path, stride, sizes, None, pool))

    def _is_alone(self, layer: nn.Module) -> bool:
        """Whether a layer is at one path only, and called no more than once."""
        every = self.model.named_modules(remove_duplicate=False)
        return (
            sum(module is layer for _, module in every) == 1 and len(self.calls.get(layer, [])) < 2
        )

    def _takers(self, path: str) -> Iterator[str]:
        """Paths of the layers that could take a stride, the best first."""
        before, after = self._neighbours(path)
        if before is not None:
            yield before
        if after is not None:
            layer: Any = self.model.get_submodule(after)
            if type(layer) in CONVOLUTIONS.values() and set(layer.kernel_size) == {1}:
                yield after

    def _neighbours(self, path: str) -> tuple[str | None, str | None]:
        """Paths of the layers just before and after a stride, where nothing else is between."""
        parent, _, name = path.rpartition(".")
        holder = self.model.get_submodule(parent)
        if type(holder) is nn.Sequential:
            names = [None, *holder._modules, None]
            place = names.index(name)
            return _joined(parent, names[place - 1]), _joined(parent, names[place + 1])
        owner, node = self._node(path)
        if node is None:
            return None, None
        source, users = node.all_input_nodes[0], list(node.users)
        before = source.target if _is_call(source) and len(source.users) == 1 else None
        after = users[0].target if len(users) == 1 and _is_call(users[0]) else None
        return _joined(owner, before), _joined(owner, after)

    def _node(self, path: str) -> tuple[str, fx.Node | None]:
        """The graph that calls a layer, and the call."""
        parts = path.split(".")
        for end in reversed(range(len(parts))):
            owner, target = ".".join(parts[:end]), ".".join(parts[end:])
            holder = self.model.get_submodule(owner)
            if isinstance(holder, fx.GraphModule):
                calls = [n for n in holder.graph.nodes if _is_call(n) and n.target == target]
                return owner, calls[0] if len(calls) == 1 else None
        return "", None

    def _set(self, path: str, new: nn.Module, old: nn.Module) -> None:
        if new is not old:
            take_hooks(new, old)
            new.train(old.training)
        self.model = put(self.model, path, new)

    def _tidy(self) -> None:
        """Leave out what is gone: in graphs, at the ends of sequences, and sequences of one."""
        for path, holder in list(self.model.named_modules(remove_duplicate=False)):
            if isinstance(holder, fx.GraphModule):
                self._leave_out(holder)
            if type(holder) is not nn.Sequential or not self._gone & set(holder):
                continue
            left = [part for part in holder if part not in self._gone]
            if len(left) == 1 and path:
                take_hooks(left[0], holder)
                self.model.set_submodule(path, left[0])
                continue
            while left and holder[-1] in self._gone:
                del holder[-1]

    def _leave_out(self, graph: fx.GraphModule) -> None:
        for node in list(graph.graph.nodes):
            if _is_call(node) and graph.get_submodule(node.target) in self._gone:
                node.replace_all_uses_with(node.all_input_nodes[0])
                graph.graph.erase_node(node)
                graph.delete_submodule(node.target)
        graph.recompile()


def _joined(parent: str, name: Any) -> str | None:
    return None if name is None else f"{parent}.{name}".lstrip(".")


def _is_call(node: fx.Node) -> bool:
    return node.op == "call_module"


def _strided(layer: Any, sizes: tuple[int, ...]) -> nn.Module | None:
    """A layer with its stride multiplied, or ``None`` if it cannot be."""
    ndim = len(sizes)
    if isinstance(layer, FlexConvNd):
        layer.stride = _product(layer.stride, sizes)
        return layer
    if type(layer) is CONVOLUTIONS[ndim]:
        padding = layer.padding
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            if padding == "same" and any(r % 2 for r in reach):
                return None
            padding = tuple(r // 2 if padding == "same" else 0 for r in reach)
        new: nn.Module = plain_convolution(
            layer, stride=_product(layer.stride, sizes), padding=padding
        )
        return new
    if MAX_POOLS.get(type(layer)) == ndim and not layer.return_indices:
        if max(int_axes(layer.stride, ndim)) > 1:
            return None
        return type(layer)(layer.kernel_size, sizes, layer.padding, layer.dilation)
    return None


def _product(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a * b for a, b in zip(one, other, strict=True))
