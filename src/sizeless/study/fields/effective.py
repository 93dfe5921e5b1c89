"""Effective receptive fields: which input samples matter to the output of a layer, by gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor, nn

from sizeless._example import arguments_of
from sizeless._validate import module as check_module
from sizeless._validate import one_of, positive_int
from sizeless.study.fields import effective_figure
from sizeless.study.fields.following import Followed, Map, fewer, follow
from sizeless.study.fields.gradients import Pick, gradient_maps
from sizeless.study.fields.reach import SLACK, Reach
from sizeless.study.result import Result

MEASURES = {"absolute": 1, "square": 2}
LEVELS = (50, 90, 95)
"""Shares of the mass, in per cent, for which the side of a square is given."""

TIE = 1e-9
"""A share that misses a level by less than this has reached it: sums of floats are not exact."""


@dataclass(frozen=True)
class LayerMap:
    """Where in the input the gradient of one output position of a layer lies.

    Attributes:
        name: Path of the module whose output it is; ``""`` for the network itself.
        map_size: Positions of its output, per axis.
        position: The position that was asked about.
        density: Mass of the gradient at every sample of the input, ``(*spatial)``, of sum 1; zeros
            where no gradient arrived.
        span: First and last sample that the position can see at all, per axis; they may lie outside
            of the input. See ``receptive_fields``.
        field: Samples that it can see, per axis: the analytic receptive field.
    """

    name: str
    map_size: tuple[int, ...]
    position: tuple[int, ...]
    density: np.ndarray
    span: tuple[tuple[float, float], ...]
    field: tuple[int, ...]

    @property
    def center(self) -> tuple[float, ...]:
        """Mean place of the mass, in samples, per axis; NaN without a gradient."""
        if not self.density.any():
            return (math.nan,) * self.density.ndim
        places = np.indices(self.density.shape)
        return tuple(float((self.density * place).sum()) for place in places)

    @property
    def radius(self) -> float:
        """Root of the mean squared distance of the mass from its centre, in samples."""
        grid = np.ix_(*(np.arange(n) for n in self.density.shape))
        squares = [(place - c) ** 2 for place, c in zip(grid, self.center, strict=True)]
        return float(np.sqrt((self.density * reduce(np.add, squares)).sum()))

    def side(self, percent: float) -> float:
        """Side of the smallest square (cube, interval) that holds so much of the mass, in samples.

        It lies about ``square_center``, the centre of the mass.
        """
        middle = self.square_center
        if math.isnan(middle[0]):
            return math.nan
        grid = np.ix_(*(np.arange(n) for n in self.density.shape))
        distances = (np.abs(place - c) for place, c in zip(grid, middle, strict=True))
        distance = reduce(np.maximum, distances).ravel()
        order = np.argsort(distance, kind="stable")
        mass = np.cumsum(self.density.ravel()[order])
        enough = int(np.searchsorted(mass, percent / 100 * mass[-1] - TIE))
        return float(2 * distance[order][enough] + 1)

    @property
    def square_center(self) -> tuple[float, ...]:
        """Centre of the squares of ``side``: a sample, or the middle of two as that of ``span``."""
        rounded = []
        for center, (low, high), n in zip(self.center, self.span, self.density.shape, strict=True):
            between = 0.5 * (round(low + high) % 2) if (low, high) != (0, n - 1) else 0.0
            rounded.append(float(np.round(center - between) + between))
        return tuple(rounded)

    def numbers(self) -> dict[str, float]:
        """What is compared between networks: sides and the radius, in samples."""
        sides = {f"side_{percent}": self.side(percent) for percent in LEVELS}
        return {**sides, "radius": self.radius}

    @property
    def reachable(self) -> int:
        """Samples inside the input that the position can see, along the axis of most."""
        inside = [
            min(high, n - 1) - max(low, 0) + 1
            for (low, high), n in zip(self.span, self.density.shape, strict=True)
        ]
        return max(1, *(math.floor(count + SLACK) for count in inside))


@dataclass(frozen=True)
class EffectiveField(Result):
    """Effective receptive fields of layers of a network.

    Attributes:
        input_size: Samples of the input, per axis.
        layers: The layers, in the order in which their outputs were complete.
        control: The same layers of networks that were not trained, one tuple per network.
        measure: ``"absolute"`` or ``"square"``: what was averaged of the gradient.
        samples: Pairs of an input and a projection that were averaged.
    """

    stem: ClassVar[str] = "effective_field"
    title: ClassVar[str] = "Effective receptive fields"

    input_size: tuple[int, ...]
    layers: tuple[LayerMap, ...]
    control: tuple[tuple[LayerMap, ...], ...] = ()
    measure: str = "absolute"
    samples: int = 1

    def table(self) -> pd.DataFrame:
        """The numbers, one row per layer, in samples of the input.

        ``field`` is the analytic receptive field along its largest axis, ``side_50``, ``side_90``
        and ``side_95`` the sides of the squares that hold so many per cent of the mass,
        ``radius`` the root of the mean squared distance from its centre. ``share_of_field``
        is ``side_95`` over the part of the receptive field that lies inside the input (above 1
        where a low-pass filter lets more through than its main lobe), ``share_of_input`` over the
        longest axis of the input. With a control, ``untrained_...`` is the mean over its networks,
        and ``..._std`` the standard deviation.
        """
        rows = []
        for i, layer in enumerate(self.layers):
            numbers = layer.numbers()
            row: dict[str, Any] = {
                "layer": called(layer.name),
                "map": "x".join(map(str, layer.map_size)),
                "position": ", ".join(map(str, layer.position)),
                "field": max(layer.field),
                **numbers,
                "share_of_field": numbers["side_95"] / layer.reachable,
                "share_of_input": numbers["side_95"] / max(self.input_size),
            }
            others = [layers[i].numbers() for layers in self.control]
            for key in numbers if others else ():
                values = [other[key] for other in others]
                row[f"untrained_{key}"] = float(np.mean(values))
                row[f"untrained_{key}_std"] = float(np.std(values))
            rows.append(row)
        return pd.DataFrame(rows)

    def figure(self) -> Figure:
        """Where the mass lies, layer by layer, with the squares of 50 % and 95 % of it.

        The colour is the square root of the mass over its maximum, so that little of it can be
        seen. One axis is drawn as a curve, and the mass of three is summed over the first. The
        untrained networks stand beside, averaged.
        """
        return effective_figure.draw(self.layers, self.control)

    def caption(self) -> str:
        """What the picture shows, with the numbers of the last layer."""
        what = {"absolute": "absolute gradient", "square": "squared gradient"}[self.measure]
        last = self.layers[-1]
        text = (
            f"Mean {what} of one output position of {len(self.layers)} "
            f"layer{'s' if len(self.layers) > 1 else ''} with respect to the input, "
            f"{self.samples} samples. At {called(last.name)}, "
            f"95 % of it lie within {last.side(95):g} samples, of a receptive field of "
            f"{last.reachable} samples inside the input"
        )
        if self.control:
            untrained = np.mean([layers[-1].side(95) for layers in self.control])
            text += f", untrained within {untrained:.3g}"
        return text + "."


def effective_receptive_field(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    *,
    layers: Iterable[str] | None = None,
    samples: int = 32,
    control: Iterable[nn.Module] = (),
    seed: int = 0,
    measure: str = "absolute",
) -> EffectiveField:
    r"""Measure how much every input sample matters to the middle of a layer's output.

    With the output $y$ of a layer at its central position $p$ and random signs $v$,

    $$
    E(q) = \Big\langle \frac{1}{C} \sum_c \Big| \frac{\partial}{\partial x_{c, q}}
    \sum_k v_k \, y_{k, p}(x) \Big| \Big\rangle_{x, v}
    $$

    over inputs $x$ and their channels $c$: a map of the size of the input, scaled to a sum of 1.
    It is smaller than the receptive field, as a sum of many random steps is smaller than
    the longest walk: untrained, a stack of $n$ equal layers grows as $\sqrt n$.

    In causal networks, whose positions see no later input, the position is the last one. Networks
    run in evaluation, and are left as they were: no gradients, modes or hooks stay behind.

    Args:
        model: Any network of torch functions.
        example_input: Inputs ``(N, C, *spatial)``, real samples at best, or a tuple of all
            positional arguments; the gradient is that of the first tensor with spatial axes.
        layers: Paths of modules whose outputs are asked about, each at its last call. ``None``: the
            last output of every size of map, the last map of the network among them.
        samples: Pairs of an input and a projection to average over, rounded up to whole batches; of
            a longer batch, the first inputs are taken.
        control: Networks of the same layers, not trained, measured in the same way.
        seed: Seed of the projections; each network has the same ones.
        measure: ``"absolute"``, or ``"square"`` for the squared gradient, whose spread adds up
            exactly from layer to layer in random networks.

    Raises:
        TypeError: If ``model`` is no module or ``example_input`` neither tensor nor tuple.
        ValueError: If the input is empty, a layer is unknown or has no map, no gradient arrives or
            one that is not finite, or a count is not positive.

    Source: Luo et al. 2016, "Understanding the effective receptive field in deep convolutional
    neural networks", NeurIPS, arXiv 1701.04128, section 3.

    Examples:
        >>> import torch
        >>> layer = nn.Conv1d(1, 1, 3, padding=1)
        >>> found = effective_receptive_field(layer, torch.ones(1, 1, 9)).layers[0]
        >>> found.position, found.density.nonzero()[0].tolist()
        ((4,), [3, 4, 5])
    """
    positive_int("samples", samples)
    one_of("measure", measure, tuple(MEASURES))
    arguments = fewer(arguments_of(example_input), samples)
    followed = follow(check_module("model", model), arguments)
    names = None if layers is None else list(layers)
    chosen = _stages(model, followed) if names is None else _named(model, followed, names)
    settings = samples, seed, MEASURES[measure]
    measured, averaged = _measured(model, arguments, chosen, settings)
    others = []
    for network in control:
        maps = _same(check_module("control", network), arguments, chosen)
        others.append(_measured(network, arguments, maps, settings)[0])
    return EffectiveField(followed.sizes, measured, tuple(others), measure, averaged)


def _stages(model: nn.Module, followed: Followed) -> list[Map]:
    """The last map of each size, in their order."""
    last: dict[tuple[int, ...], Map] = {}
    for found in followed.maps:
        if max(found.sizes) > 1:
            last.pop(found.sizes, None)
            last[found.sizes] = found
    if not last:
        raise ValueError(
            f"model {type(model).__name__} has no layer whose output is a map of the input with "
            "more than one position"
        )
    return list(last.values())


def _named(model: nn.Module, followed: Followed, names: Sequence[str]) -> list[Map]:
    """The last map of each module that was asked for."""
    maps = {found.name: found for found in followed.maps}
    known = {path for path, _ in model.named_modules()}
    for name in names:
        if name not in maps:
            why = "returned no map of the input" if name in known else "is no module of the model"
            raise ValueError(
                f"layers must name modules whose outputs are maps of the input, got {name!r}, "
                f"which {why}; such are {', '.join(list(maps)[:5]) or 'none'}"
            )
    if not names:
        raise ValueError("layers must name one module at least, got none")
    return [maps[name] for name in names]


def _same(network: nn.Module, arguments: tuple[Any, ...], chosen: list[Map]) -> list[Map]:
    """The maps of a control that stand where those of the network do."""
    maps = {(found.name, found.call): found for found in follow(network, arguments).maps}
    missing = [found.name for found in chosen if (found.name, found.call) not in maps]
    if missing:
        raise ValueError(
            f"control must hold networks with the layers of model, got one without a map at "
            f"{called(missing[0])}"
        )
    return [maps[found.name, found.call] for found in chosen]


def _measured(
    model: nn.Module,
    arguments: tuple[Any, ...],
    maps: list[Map],
    settings: tuple[int, int, int],
) -> tuple[tuple[LayerMap, ...], int]:
    positions = [tuple(map(_asked, found.fact.reaches, found.sizes)) for found in maps]
    picks = [
        Pick(found.name, found.call, tuple(r.dims[0] for r in found.fact.reaches), position)
        for found, position in zip(maps, positions, strict=True)
    ]
    samples, seed, power = settings
    sums, averaged = gradient_maps(model, arguments, picks, samples, seed, power)
    measured = []
    for found, position, mass in zip(maps, positions, sums, strict=True):
        if not np.isfinite(mass).all():
            raise ValueError(
                f"model {type(model).__name__} has a gradient at {called(found.name)} that is not "
                "finite: its weights or the inputs hold NaN or infinity"
            )
        spans = tuple(r.at(p) for r, p in zip(found.fact.reaches, position, strict=True))
        fields = tuple(reach.field for reach in found.fact.reaches)
        total = mass.sum()
        density = mass / total if total > 0 else mass
        measured.append(LayerMap(found.name, found.sizes, position, density, spans, fields))
    if not any(layer.density.any() for layer in measured):
        raise ValueError(
            f"model {type(model).__name__} passes no gradient to its input: it may run without "
            "gradients, or give zeros for these inputs"
        )
    return tuple(measured), averaged


def _asked(reach: Reach, size: int) -> int:
    """The middle one of so many positions, or the last where none sees later samples."""
    causal = not reach.whole and reach.high <= SLACK and reach.field > 1
    return size - 1 if causal else size // 2


def called(name: str) -> str:
    """What to call a module: its path, or the whole network."""
    return name or "the network"
