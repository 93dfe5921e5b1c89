"""Comparisons of many runs: over resolutions, against a search, and at equal cost."""

from sizeless.study.comparisons.cost import AccuracyAgainstCost, pareto_front
from sizeless.study.comparisons.resolution import (
    ResolutionMap,
    measure_resolutions,
    resolution_map,
)
from sizeless.study.comparisons.search import LearnedAgainstSearched

__all__ = [
    "AccuracyAgainstCost",
    "LearnedAgainstSearched",
    "ResolutionMap",
    "measure_resolutions",
    "pareto_front",
    "resolution_map",
]
