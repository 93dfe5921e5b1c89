"""Back ends: what one is, how they are found, and how they are switched off."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

import torch
from torch import Tensor

from sizeless.functional import shortcuts
from sizeless.functional.geometry import Geometry

SWITCH = "SIZELESS_BACKENDS"
"""Environment variable with the names that are allowed, or ``none``; read when they are found."""

GROUP = "sizeless.backends"
"""Entry points through which packages offer back ends."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_RESERVED = ("any", "auto", "channels_last", "direct", "fft", "none")

_lock = threading.RLock()
_allowed: ContextVar[tuple[str, ...] | None] = ContextVar("sizeless_backends", default=None)


class Call(NamedTuple):
    """What a back end is asked to compute.

    Attributes:
        geometry: Sizes, channels, groups, kernel, stride, dilation and zeros around the map.
        dtype: Of the operands and of the output.
        device: Of all tensors.
    """

    geometry: Geometry
    dtype: torch.dtype
    device: torch.device

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel has one input channel of its own."""
        geometry = self.geometry
        return geometry.groups == geometry.in_channels == geometry.out_channels

    @property
    def is_causal(self) -> bool:
        """Whether an output of the one spatial axis sees no later input."""
        geometry = self.geometry
        return geometry.ndim == 1 and geometry.amounts[0] == (geometry.reach[0], 0)


class Backend:
    """Base of a library that computes some convolutions; subclass it, and register an instance.

    Attributes:
        name: Lower case; what ``use_method`` takes and plans show.
        device_types: Devices that it serves. On others it is never asked.
        version: What its measurements hold for.
        is_differentiable: Whether torch can differentiate ``run`` once. Where it cannot, gradients
            are computed by ``sizeless``, as second derivatives always are.

    Examples:
        >>> import torch
        >>> from sizeless.functional.backends import Backend
        >>> class Textbook(Backend):
        ...     name, device_types = "textbook", ("cpu",)
        ...     def supports(self, call):
        ...         return call.is_causal and call.is_depthwise
        ...     def run(self, input, weight, call):
        ...         padded = torch.nn.functional.pad(input, call.geometry.amounts[0])
        ...         return torch.conv1d(padded, weight, groups=call.geometry.groups)
    """

    name: str = ""
    device_types: tuple[str, ...] = ("cuda",)
    version: str = ""
    is_differentiable: bool = True

    def available(self) -> bool:
        """Return whether its library and device are there; asked once."""
        return True

    def supports(self, call: Call) -> bool:
        """Return whether it computes convolutions like ``call``."""
        raise NotImplementedError

    def run(self, input: Tensor, weight: Tensor, call: Call) -> Tensor:
        """Return the cross-correlation ``(N, out, *output_size)`` of a call that it supports.

        Args:
            input: ``(N, C, *size)``, without the zeros around it.
            weight: ``(out, C / groups, *kernel)``.
            call: What is asked; ``call.geometry`` has stride, dilation and padding.
        """
        raise NotImplementedError


class _Registry:
    """All that is known; guarded by the lock, but for readings of ``serving``."""

    def __init__(self) -> None:
        self.added: dict[str, Backend] = {}
        self.dropped: set[str] = set()
        """Names of what failed, which is not asked again."""
        self.offered: dict[str, Backend] | None = None
        self.is_here: dict[str, bool] = {}
        self.serving: dict[str, tuple[Backend, ...]] = {}


_registry = _Registry()


def register_backend(backend: Backend) -> None:
    """Offer a back end to all convolutions, in place of one of the same name.

    It is taken where [`tuning`][sizeless.functional.tuning] has measured it as the fastest, or
    where it is forced by its name. Packages offer one without a call, by an entry point of the
    group ``sizeless.backends``: an instance, or a class without arguments.

    Args:
        backend: An instance of a subclass of ``Backend``.

    Raises:
        TypeError: For something else.
        ValueError: For a name that is taken by ``sizeless`` or has other signs than lower-case
            letters, digits, ``_``, ``.`` and ``-``.
    """
    _checked(backend)
    with _lock:
        _registry.added[backend.name] = backend
        _registry.dropped.discard(backend.name)
        _registry.is_here.pop(backend.name, None)
        _serve_anew()


@contextmanager
def use_backends(*names: str) -> Iterator[None]:
    """Allow these back ends alone within a ``with`` block; without names, none.

    The environment variable ``SIZELESS_BACKENDS`` does the same for a whole process: names with
    commas between them, or ``none``.

    Args:
        names: Of back ends that are there.

    Raises:
        ValueError: For another name.

    Examples:
        >>> import torch
        >>> from sizeless.functional import convolve
        >>> from sizeless.functional.backends import use_backends
        >>> with use_backends():
        ...     convolve(torch.ones(1, 1, 4), torch.ones(1, 1, 3)).flatten().tolist()
        [3.0, 3.0]
    """
    for name in names:
        check_name("names", name)
    token = _allowed.set(names)
    try:
        yield
    finally:
        _allowed.reset(token)
        shortcuts.forget()  # Some may pass by the back ends that are allowed again.


def check_name(argument: str, name: str, others: tuple[str, ...] = ()) -> str:
    """Return the name of a back end that is there, or was until it failed.

    Raises:
        ValueError: For another one; ``others`` are what else the argument may be.
    """
    if not _is_known(name):
        with _lock:
            here = ", ".join(sorted(filter(_is_here, _allowed_here()))) or "none"
        ways = "".join(f"{other!r}, " for other in others)
        raise ValueError(
            f"{argument} must be {ways}{'or ' if others else ''}the name of a back end that is "
            f"here ({here}), got {name!r}; a back end is here if its library and device are, and "
            f"{SWITCH} allows it"
        )
    return name


@torch.compiler.assume_constant_result
def _is_known(name: str) -> bool:
    with _lock:
        was_here = _registry.is_here.get(name, False)
        return was_here or (name in _allowed_here() and _is_here(name))


@torch.compiler.assume_constant_result
def is_served(device_type: str) -> bool:
    """Whether a back end is there for a device and allowed; compilers take the answer as it is."""
    return bool(active(device_type))


def active(device_type: str) -> tuple[Backend, ...]:
    """Return the back ends that serve a device and are allowed here."""
    found = _registry.serving.get(device_type)
    if found is None:
        found = _find(device_type)
    allowed = _allowed.get() if found else None
    if allowed is not None:
        found = tuple(backend for backend in found if backend.name in allowed)
    if found and torch.are_deterministic_algorithms_enabled():
        return ()  # None of them promises it.
    return found


def supporting(call: Call) -> tuple[Backend, ...]:
    """Return the back ends that are allowed here and can compute ``call``."""
    found = active(call.device.type)
    return _supporting(call, found) if found and call.geometry.batch > 0 else ()


@lru_cache(maxsize=4096)
def _supporting(call: Call, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    return tuple(backend for backend in backends if _supports(backend, call))


def drop(backend: Backend, reason: str) -> None:
    """Use a back end no more in this process, and say so."""
    with _lock:
        if backend.name in _registry.dropped:
            return
        _registry.dropped.add(backend.name)
        _serve_anew()
    warnings.warn(
        f"back end {backend.name!r} {reason}; it is not used any more in this process, and "
        f"{SWITCH} can switch it off",
        stacklevel=2,
    )


def forget_backends() -> None:
    """Forget those that were registered or failed, and look for the others anew."""
    with _lock:
        _registry.added, _registry.dropped, _registry.offered = {}, set(), None
        _registry.is_here = {}
        _serve_anew()


def _serve_anew() -> None:
    _registry.serving = {}
    shortcuts.forget()


def _find(device_type: str) -> tuple[Backend, ...]:
    """Back ends of other devices are not asked whether they are there: that may wake a driver."""
    with _lock:
        found = tuple(
            backend
            for name, backend in _allowed_here().items()
            if device_type in backend.device_types and _is_here(name)
        )
        _registry.serving[device_type] = found
        return found


def _is_here(name: str) -> bool:
    if name not in _registry.is_here:
        try:
            _registry.is_here[name] = _allowed_here()[name].available()
        except Exception as error:
            _ignore(name, error)
    return name not in _registry.dropped and _registry.is_here[name]


def _allowed_here() -> dict[str, Backend]:
    """All that are offered and allowed in this process, by name."""
    wanted = [name.strip() for name in os.environ.get(SWITCH, "").split(",")]
    if wanted == ["none"]:
        return {}
    if _registry.offered is None:
        _registry.offered = _offered()
    every = _registry.offered | _registry.added
    if not any(wanted):
        return every
    for name in wanted:
        if name not in every:
            _ignore(name, f"{SWITCH} names it, and it is unknown")
    return {name: one for name, one in every.items() if name in wanted}


def _offered() -> dict[str, Backend]:
    """Back ends of this package and of entry points."""
    from sizeless.functional.backends.vendors import VENDORS

    found: list[Backend | None] = [vendor() for vendor in VENDORS]
    found += map(_loaded, entry_points(group=GROUP))
    return {backend.name: backend for backend in found if backend is not None}


def _loaded(point: EntryPoint) -> Backend | None:
    try:
        loaded = point.load()
        return _checked(loaded() if isinstance(loaded, type) else loaded)
    except Exception as error:
        _ignore(point.name, error)
        return None


def _supports(backend: Backend, call: Call) -> bool:
    try:
        return backend.supports(call)
    except Exception as error:
        drop(backend, f"failed to say what it supports ({error!r})")
        return False


def _ignore(name: str, reason: Exception | str) -> None:
    if name not in _registry.dropped:
        _registry.dropped.add(name)
        text = reason if isinstance(reason, str) else f"it fails with {reason!r}"
        warnings.warn(f"back end {name!r} is ignored: {text}", stacklevel=2)


def _checked(backend: object) -> Backend:
    if not isinstance(backend, Backend):
        raise TypeError(f"backend must be an instance of a subclass of Backend, got {backend!r}")
    if backend.name in _RESERVED or not _NAME.fullmatch(backend.name):
        raise ValueError(
            f"backend must have a name of lower-case letters, digits, '_', '.' and '-' that is "
            f"none of {', '.join(_RESERVED)}, got {backend.name!r}"
        )
    return backend
