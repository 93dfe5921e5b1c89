"""The few patterns that most kernels are made of."""

from sizeless.study.principal.kernels import PrincipalKernels, principal_kernels

__all__ = ["PrincipalKernels", "principal_kernels"]
