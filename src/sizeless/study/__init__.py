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
from sizeless.study.fields.effective import EffectiveField, effective_receptive_field
from sizeless.study.fields.receptive import ReceptiveFields, receptive_fields
from sizeless.study.gallery import Gallery, gallery
from sizeless.study.history import Trajectories, trajectories
from sizeless.study.principal.kernels import PrincipalKernels, principal_kernels
from sizeless.study.report import run_page, study_page
from sizeless.study.result import Result
from sizeless.study.shapes import Shapes, shapes
from sizeless.study.spectra import Spectra, spectra
from sizeless.study.study import Study, overview, study

__all__ = [
    "AccuracyAgainstCost",
    "EffectiveField",
    "EffectiveSizes",
    "Gallery",
    "LayerCosts",
    "LayerKernels",
    "LearnedAgainstSearched",
    "LearningCurves",
    "PrincipalKernels",
    "ReceptiveFields",
    "ResolutionMap",
    "Result",
    "Shapes",
    "Spectra",
    "Study",
    "Trajectories",
    "effective_receptive_field",
    "effective_sizes",
    "gallery",
    "kernel_mass_ratio",
    "layer_costs",
    "layer_kernels",
    "learning_curves",
    "measure_resolutions",
    "overview",
    "pareto_front",
    "principal_kernels",
    "receptive_fields",
    "resolution_map",
    "run_page",
    "shapes",
    "spectra",
    "study",
    "study_page",
    "trajectories",
    "untrained",
    "untrained_kernels",
]
