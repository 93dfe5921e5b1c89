"""Which kernel networks can represent which kernels: ``sizeless fit-kernel``."""
