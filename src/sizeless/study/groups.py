"""Which layers of a network are looked at together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sizeless._validate import one_of
from sizeless.study.bank import LayerKernels

By = Literal["stage", "layer"]


def grouped(layers: Sequence[LayerKernels], by: By) -> list[list[LayerKernels]]:
    """Return the layers one by one, or those that see maps of one size together.

    Layers of different kinds are kept apart: the 3 x 3 kernels of the convolutions that are left in
    a network would hide what its frequency filters are like.

    Args:
        layers: The kernels of a network.
        by: ``"layer"`` or ``"stage"``.

    Raises:
        ValueError: If there are no layers, or ``by`` is something else.
    """
    if not layers:
        raise ValueError("layers must hold at least one layer; see layer_kernels")
    if one_of("by", by, ("stage", "layer")) == "layer":
        return [[layer] for layer in layers]
    groups: dict[tuple[int, str], list[LayerKernels]] = {}
    for layer in layers:
        groups.setdefault((layer.stage, layer.kind), []).append(layer)
    return [groups[key] for key in sorted(groups)]


def stage_label(layer: LayerKernels) -> str:
    """Return what the group of all layers like this one is called."""
    return f"stage {layer.stage}, map {product(layer.map_size)}: {layer.kind}"


def called(facts: Mapping[str, Any]) -> str:
    """Return what a sentence calls the layers of a row of a table."""
    name = str(facts["layer"])
    return f"{name} {facts['kind']}" if facts["of"] == "stage" else name


def product(sizes: Sequence[int]) -> str:
    """Sizes as text: ``3 × 3``."""
    return " × ".join(map(str, sizes))
