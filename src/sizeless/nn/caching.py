"""Keeping what a layer renders from its parameters for as long as these do not change."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from sizeless._validate import boolean
from sizeless._validate import module as check_module
from sizeless.functional.constants import tensors_last
from sizeless.functional.kept_spectra import keep_spectra
from sizeless.nn.evaluated import number_of

MOST_KEPT = 4
"""Renderings that one layer keeps at a time: one for each size of map, for example."""


class _Steps:
    """Counts the steps of all optimisers: fused ones change tensors without a trace."""

    taken = 0
    are_counted = False

    @classmethod
    def count(cls) -> None:
        """Count from now on."""
        if not cls.are_counted:
            cls.are_counted = True
            register_optimizer_step_post_hook(cls._take)

    @classmethod
    def _take(cls, *_step: object) -> None:
        cls.taken += 1


class _State:
    """All parts, parameters and buffers of a module at one moment."""

    def __init__(self, parts: list[nn.Module], tensors: list[Tensor]) -> None:
        _Steps.count()
        self.steps = _Steps.taken
        self.parts = [weakref.ref(part) for part in parts]
        self.tensors = [(weakref.ref(t), t._version, t.data_ptr()) for t in tensors]

    @classmethod
    def of(cls, module: nn.Module) -> _State | None:
        """Return the present state, or ``None`` if changes of it could not be noticed."""
        if "_is_replica" in module.__dict__:
            return None
        parts, tensors = _inventory(module)
        for tensor in tensors:
            if type(tensor) not in (nn.Parameter, Tensor):
                return None
            if tensor.is_meta or tensor.is_inference():
                return None
        return cls(parts, tensors)

    def holds_for(self, module: nn.Module) -> bool:
        """Whether ``module`` has the same parts and tensors still, with the same values."""
        if self.steps != _Steps.taken:
            return False
        parts, tensors = _inventory(module)
        if len(parts) != len(self.parts) or len(tensors) != len(self.tensors):
            return False
        for part, itself in zip(parts, self.parts, strict=True):
            if part is not itself():
                return False
        for tensor, (reference, version, pointer) in zip(tensors, self.tensors, strict=True):
            if tensor is not reference() or tensor._version != version:
                return False
            if tensor.data_ptr() != pointer:
                return False
        return True


def _inventory(module: nn.Module) -> tuple[list[nn.Module], list[Tensor]]:
    """List a module and its parts, and their tensors, faster than the module itself does."""
    parts, tensors = [module], []
    for part in parts:
        own = part.__dict__
        for kind in ("_parameters", "_buffers"):
            if own[kind]:
                tensors += [tensor for tensor in own[kind].values() if tensor is not None]
        if own["_modules"]:
            parts += [child for child in own["_modules"].values() if child is not None]
    return parts, tensors


class RenderCache:
    """What one layer keeps of what it has rendered.

    Without gradients, a rendering is kept until a parameter or buffer of the layer is replaced or
    changed in place (its version counter tells). Writes through ``Tensor.data`` have no version
    and go unnoticed: call ``clear``. With gradients nothing is kept, so no graph outlives its
    output, unless ``cached_kernels`` is open.

    Copies and pickles of a cache are empty.
    """

    def __init__(self) -> None:
        self._state: _State | None = None
        self._kept: dict[Hashable, Tensor] = {}
        self._shared: _Shared | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> RenderCache:
        return RenderCache()

    def __reduce__(self) -> tuple[type[RenderCache], tuple[()]]:
        return RenderCache, ()

    def clear(self) -> None:
        """Forget everything; renderings shared within ``cached_kernels`` too."""
        self._state, self._kept = None, {}
        if self._shared is not None:
            self._shared.kept = {}

    def fetch(
        self,
        module: nn.Module,
        render: Callable[[], Tensor],
        key: Hashable = None,
        unless: Callable[[], bool] = lambda: False,
    ) -> Tensor | None:
        """Return the kernel of ``module``, kept or rendered to be kept; ``None`` if not to be kept.

        Args:
            module: The layer whose parameters ``render`` uses.
            render: Renders the kernel from the layer's parameters and buffers alone.
            key: What else the kernel depends on, such as the size of the map.
            unless: Whether to keep none that does not change; asked where none is kept yet.
        """
        if not tensors_last():
            return None
        key = module.training, key
        if torch.is_grad_enabled() and _requires_gradient(module):
            return self._fetch_with_graph(module, render, key)
        if not self._refresh(module):
            return None
        # What is outdated before it is rendered must not be found later.
        kept = self._kept
        kernel = kept.get(key)
        if kernel is None:
            if unless():
                return None
            # A tensor made in inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                kernel = keep_spectra(render())
            for oldest in list(kept)[: max(1 + len(kept) - MOST_KEPT, 0)]:
                kept.pop(oldest, None)
            kept[key] = kernel
        return kernel

    def _fetch_with_graph(
        self, module: nn.Module, render: Callable[[], Tensor], key: Hashable
    ) -> Tensor | None:
        shared = self._shared
        if shared is None or not self._refresh(module):
            return None
        kept = shared.kept
        if key not in kept:
            kept[key] = shared.handed_out(render())
        return kept[key]

    def _refresh(self, module: nn.Module) -> bool:
        """Forget what is outdated; return whether something may be kept at all."""
        if self._state is None or not self._state.holds_for(module):
            self.clear()
            self._state = _State.of(module)
        return self._state is not None

    def open(self, accumulate: bool) -> Callable[[bool], None] | None:
        """Share renderings with their graphs from now on; return what ends it."""
        if self._shared is not None:
            return None
        shared = self._shared = _Shared(accumulate)

        def close(completed: bool) -> None:
            self._shared = None
            shared.close(completed)

        return close


class _Shared:
    """Renderings with graphs, between ``open`` and ``close``."""

    def __init__(self, accumulate: bool) -> None:
        self.kept: dict[Hashable, Tensor] = {}
        self.accumulate = accumulate
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.is_open = True

    def handed_out(self, weight: Tensor) -> Tensor:
        """``weight`` itself, or a leaf that collects its gradient."""
        if not (self.accumulate and weight.requires_grad):
            return weight
        leaf = weight.detach().requires_grad_()
        leaf.register_post_accumulate_grad_hook(self._check_open)
        self.pairs.append((weight, leaf))
        return leaf

    def _check_open(self, leaf: Tensor) -> None:
        if not self.is_open:
            raise RuntimeError(
                "backward() came after cached_kernels(..., accumulate=True) had ended, so the "
                "gradient of a kernel cannot reach its layer: call backward() inside the block, "
                "or use accumulate=False"
            )

    def close(self, completed: bool) -> None:
        """Pass collected gradients on to the parameters, unless the block failed."""
        self.is_open = False
        self.kept.clear()
        reached = [(weight, leaf.grad) for weight, leaf in self.pairs if leaf.grad is not None]
        self.pairs.clear()
        if completed and reached:
            weights, gradients = zip(*reached, strict=True)
            torch.autograd.backward(weights, gradients)


def _requires_gradient(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


class Caching(nn.Module):
    """Module with a ``RenderCache``, emptied whenever the module is changed as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self._cache = RenderCache()
        self.number = number_of(self)
        self.register_load_state_dict_post_hook(_clear_after_loading)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.number = number_of(self)

    def train(self, mode: bool = True) -> Caching:
        """Set the mode, and forget what was rendered in the other."""
        self._cache.clear()
        super().train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Caching:
        self._cache.clear()
        super()._apply(fn, recurse)
        return self


def _clear_after_loading(module: Any, _incompatible_keys: object) -> None:
    module._cache.clear()


@contextmanager
def cached_kernels(model: nn.Module, *, accumulate: bool = False) -> Iterator[None]:
    """Render every kernel of a model once, for all its uses within the block.

    For a layer that is used several times in one training step: over time, on several inputs, or
    on the micro-batches of one optimiser step. The kernels keep their graph, and are dropped when
    the block ends. A layer whose parameters change within the block renders anew. Without
    gradients, kernels are kept anyway while parameters do not change, and need no block.

    Args:
        model: Any module; layers without a rendered kernel are left alone.
        accumulate: ``False``: one ``backward`` through all uses, inside the block or after it (a
            second one needs ``retain_graph=True``). ``True``: as many as you like, all inside the
            block, each freeing its graph; the gradient of each kernel is summed and reaches the
            parameters at the end of the block, so the optimiser's step comes after it.

    Raises:
        TypeError: If ``model`` is no module or ``accumulate`` no bool.
        RuntimeError: If ``accumulate`` is set and ``backward`` comes after the block.

    Examples:
        >>> import torch
        >>> from sizeless.nn import FlexConv1d
        >>> layer = FlexConv1d(1, 1, kernel_size=9)
        >>> with cached_kernels(layer, accumulate=True):
        ...     for batch in torch.randn(4, 2, 1, 16):
        ...         layer(batch).square().mean().backward()
        >>> layer.kernel.output.weight.grad is not None
        True
    """
    boolean("accumulate", accumulate)
    parts = [part for part in check_module("model", model).modules() if isinstance(part, Caching)]
    with ExitStack() as stack:
        for part in parts:
            close = part._cache.open(accumulate)
            if close is not None:
                stack.push(partial(_close, close))
        yield


def _close(close: Callable[[bool], None], failure: type[BaseException] | None, *_: object) -> None:
    close(failure is None)
