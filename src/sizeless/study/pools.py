"""Layers as a study counts them: each alone, and those of a stage together, with their control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from sizeless.study.bank import LayerKernels
from sizeless.study.groups import By, grouped, product, stage_label
from sizeless.surgery.report import listed

T = TypeVar("T")
Statistic = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Pool(Generic[T]):
    """What was measured of some layers, and of the same layers without training.

    Attributes:
        label: What they are called in a picture.
        facts: What their row of a table begins with.
        trained: One measurement per layer.
        control: For every draw of the untrained network, the same.
    """

    label: str
    facts: dict[str, Any]
    trained: tuple[T, ...]
    control: tuple[tuple[T, ...], ...]

    def values(self, of: Callable[[T], np.ndarray]) -> np.ndarray:
        """What ``of`` gives for the kernels of all layers, without what is not finite."""
        return _finite(self.trained, of)

    def draws(self, of: Callable[[T], np.ndarray]) -> list[np.ndarray]:
        """The same for every draw of the control."""
        return [_finite(layers, of) for layers in self.control]

    def compare(
        self, name: str, of: Callable[[T], np.ndarray], statistic: Statistic = np.median
    ) -> dict[str, float]:
        """A statistic over the kernels, beside that of the control.

        Of the control its mean over draws and their ``spread``, the standard deviation (NaN for
        fewer than two draws); and as a ``score`` how many spreads lie between.
        """
        row = {name: _of(statistic, self.values(of))}
        if not self.control:
            return row
        draws = np.array([_of(statistic, values) for values in self.draws(of)])
        known = draws[np.isfinite(draws)]
        middle = _of(np.mean, known)
        spread = float(known.std(ddof=1)) if len(known) > 1 else np.nan
        return row | {
            f"control {name}": middle,
            f"control {name} spread": spread,
            f"score {name}": (row[name] - middle) / spread if spread > 0 else np.nan,
        }


def pools(
    layers: Sequence[LayerKernels],
    control: Sequence[Sequence[LayerKernels]],
    measure: Callable[[LayerKernels], T],
) -> tuple[list[Pool[T]], list[Pool[T]]]:
    """Measure every layer once, and return the layers one by one and by stage.

    Layers of different kinds in one stage are not mixed.

    Args:
        layers: Kernels of a network.
        control: For every draw of an untrained network, its kernels; layers are matched by name.
        measure: What to measure of a layer.

    Returns:
        A pool per layer, and one per stage and kind of layer, in the order of stages.

    Raises:
        TypeError: If ``layers`` or a draw does not hold ``LayerKernels``.
        ValueError: If there are no layers, or a draw lacks one of them.
    """
    _check(layers, control)
    found = {id(layer): measure(layer) for layer in layers}
    draws = []
    for draw in control:
        kernels = {layer.name: layer for layer in draw}
        draws.append({id(layer): measure(kernels[layer.name]) for layer in layers})

    def pooled(by: By) -> list[Pool[T]]:
        return [
            Pool(
                _label(by, group[0]),
                _facts(by, group),
                tuple(found[id(layer)] for layer in group),
                tuple(tuple(draw[id(layer)] for layer in group) for draw in draws),
            )
            for group in grouped(layers, by)
        ]

    return pooled("layer"), pooled("stage")


def _label(by: By, first: LayerKernels) -> str:
    return stage_label(first) if by == "stage" else first.name or first.layer


def _facts(by: By, layers: Sequence[LayerKernels]) -> dict[str, Any]:
    first = layers[0]
    sizes = sorted({layer.size for layer in layers})
    return {
        "of": by,
        "layer": _label(by, first) if by == "layer" else f"stage {first.stage}",
        "class": listed(sorted({layer.layer for layer in layers})),
        "kind": first.kind,
        "stage": first.stage,
        "map": product(first.map_size),
        "size": listed([product(size) for size in sizes]),
        "kernels": sum(layer.total for layer in layers),
        "measured": sum(len(layer.kernels) for layer in layers),
    }


def _check(layers: Any, control: Any) -> None:
    for name, value in (("layers", layers), *(("a draw of control", draw) for draw in control)):
        if not isinstance(value, Sequence) or not all(isinstance(v, LayerKernels) for v in value):
            raise TypeError(
                f"{name} must hold LayerKernels, as layer_kernels returns them, got "
                f"{type(value).__name__}; control takes one such list per draw"
            )
    if not layers:
        raise ValueError("layers must hold at least one layer; see layer_kernels")
    for place, draw in enumerate(control):
        missing = {layer.name for layer in layers} - {layer.name for layer in draw}
        if missing:
            raise ValueError(
                f"draw {place} of control lacks {listed(sorted(map(repr, missing)))}; it must be "
                "of the same architecture as layers"
            )


def _finite(layers: Sequence[T], of: Callable[[T], np.ndarray]) -> np.ndarray:
    values = np.concatenate([np.asarray(of(layer), dtype=float) for layer in layers])
    return values[np.isfinite(values)]


def _of(statistic: Statistic, values: np.ndarray) -> float:
    return float(statistic(values)) if len(values) else np.nan
