"""How large filters are: numbers, pictures and controls; needs the ``study`` extra.

Every measurement returns a ``Result``: a table (``DataFrame``), a figure (matplotlib), and files of
both. ``study`` makes all of them for a network, ``study_page`` and ``run_page`` put them on one
page.
"""

from sizeless.study.bank import LayerKernels, layer_kernels
from sizeless.study.comparisons import (
    AccuracyAgainstCost,
    LearnedAgainstSearched,
    ResolutionMap,
    measure_resolutions,
    pareto_front,
    resolution_map,
)
from sizeless.study.control import untrained, untrained_kernels
from sizeless.study.costs import LayerCosts, layer_costs
from sizeless.study.curves import LearningCurves, learning_curves
from sizeless.study.effective.sizes import EffectiveSizes, effective_sizes, kernel_mass_ratio
from sizeless.study.gallery import Gallery, gallery
from sizeless.study.history import Trajectories, trajectories
from sizeless.study.principal.kernels import PrincipalKernels, principal_kernels
from sizeless.study.result import Result

__all__ = [
    "AccuracyAgainstCost",
    "EffectiveSizes",
    "Gallery",
    "LayerCosts",
    "LayerKernels",
    "LearnedAgainstSearched",
    "LearningCurves",
    "PrincipalKernels",
    "ResolutionMap",
    "Result",
    "Trajectories",
    "effective_sizes",
    "gallery",
    "kernel_mass_ratio",
    "layer_costs",
    "layer_kernels",
    "learning_curves",
    "measure_resolutions",
    "pareto_front",
    "principal_kernels",
    "resolution_map",
    "trajectories",
    "untrained",
    "untrained_kernels",
]
