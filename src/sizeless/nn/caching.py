"""Keeping what a layer renders from its parameters for as long as these do not change."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sizeless._validate import boolean
from sizeless._validate import module as check_module
from sizeless.functional.constants import tensors_last
from sizeless.functional.kept_spectra import keep_spectra


class _Slot(NamedTuple):
    """Where a module holds a parameter or buffer, and which it was."""

    holder: Mapping[str, Tensor | None]
    name: str
    reference: weakref.ref[Tensor]
    version: int
    pointer: int


class _State:
    """All parameters and buffers of a module at one moment."""

    def __init__(self, module: nn.Module, slots: list[_Slot]) -> None:
        self.owner = weakref.ref(module)
        self.slots = slots

    @classmethod
    def of(cls, module: nn.Module) -> _State | None:
        """Return the present state, or ``None`` if changes of it could not be noticed."""
        if "_is_replica" in module.__dict__:
            return None
        slots = []
        for part in module.modules():
            for holder in (part._parameters, part._buffers):
                for name, tensor in holder.items():
                    if tensor is None:
                        continue
                    if type(tensor) not in (nn.Parameter, Tensor):
                        return None
                    if tensor.is_meta or tensor.is_inference():
                        return None
                    slot = _Slot(
                        holder, name, weakref.ref(tensor), tensor._version, tensor.data_ptr()
                    )
                    slots.append(slot)
        return cls(module, slots)

    def holds_for(self, module: nn.Module) -> bool:
        """Whether ``module`` has the same tensors still, with the same values."""
        if self.owner() is not module:
            return False
        for holder, name, reference, version, pointer in self.slots:
            tensor = holder.get(name)
            if tensor is None or tensor is not reference():
                return False
            if tensor._version != version or tensor.data_ptr() != pointer:
                return False
        return True


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
            self._shared.kept.clear()

    def fetch(self, module: nn.Module, render: Callable[[], Tensor]) -> Tensor | None:
        """Return the kernel of ``module``, kept or rendered to be kept; ``None`` if not to be kept.

        Args:
            module: The layer whose parameters ``render`` uses.
            render: Renders the kernel from the layer's parameters and buffers alone.
        """
        if torch.is_grad_enabled() and _requires_gradient(module):
            return self._fetch_with_graph(module, render)
        if not (tensors_last() and self._refresh(module)):
            return None
        key = module.training
        if key not in self._kept:
            # A tensor made in inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                self._kept[key] = keep_spectra(render())
        return self._kept[key]

    def _fetch_with_graph(self, module: nn.Module, render: Callable[[], Tensor]) -> Tensor | None:
        shared = self._shared
        if shared is None or not (tensors_last() and self._refresh(module)):
            return None
        key = module.training
        if key not in shared.kept:
            shared.kept[key] = shared.handed_out(render())
        return shared.kept[key]

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
        self.register_load_state_dict_post_hook(_clear_after_loading)

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
    closers = [close for part in parts if (close := part._cache.open(accumulate)) is not None]
    completed = False
    try:
        yield
        completed = True
    finally:
        for close in closers:
            close(completed)
