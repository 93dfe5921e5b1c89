"""How large kernels are, whatever size they were given."""

from sizeless.study.effective.mass import kernel_mass_ratio
from sizeless.study.effective.sizes import EffectiveSizes, effective_sizes

__all__ = ["EffectiveSizes", "effective_sizes", "kernel_mass_ratio"]
