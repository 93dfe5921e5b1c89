"""Convolutions by libraries of others, found at run time and taken where they are the fastest."""

from sizeless.functional.backends.registry import (
    Backend,
    Call,
    register_backend,
    use_backends,
)

__all__ = ["Backend", "Call", "register_backend", "use_backends"]
