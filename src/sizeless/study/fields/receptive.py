"""Receptive fields: which input samples each layer of a network can see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor, nn

from sizeless._validate import boolean
from sizeless._validate import module as check_module
from sizeless.study.fields import receptive_figure
from sizeless.study.fields.following import LOBE, Sight, follow
from sizeless.study.fields.reach import Reach, Window
from sizeless.study.result import Result


@dataclass(frozen=True)
class AxisField:
    """What a layer sees along one axis of the input.

    Attributes:
        map: Positions of the layer's output.
        taps: Taps of the layer's kernel or pooling window; 1 where it has none along the axis.
        dilation: Distance of its taps in its own input.
        stride: Positions of its input from one output to the next, below 1 where it enlarges.
        jump: Samples of the network's input from one output to the next; NaN where outputs have
            no neighbours along the axis, or nobody knows.
        field: Samples of the input that one output can see, those beyond its edges included.
        center: Middle of what the first output sees; 0 is the first sample. NaN as for ``jump``.
        whole: Whether every output sees the whole axis.
        share: Part of the axis that one output can see.
    """

    map: int
    taps: int
    dilation: int
    stride: float
    jump: float
    field: int
    center: float
    whole: bool
    share: float


@dataclass(frozen=True)
class LayerField:
    """What one call of a layer sees.

    Attributes:
        name: Path of the layer, or of the module in whose forward a function was called.
        layer: Name of its class, or of the function.
        kind: What it is; ``"global"`` for what is no such layer but sees the whole input.
        axes: One entry per axis of the input.
        note: What should be known about the numbers.
    """

    name: str
    layer: str
    kind: str
    axes: tuple[AxisField, ...]
    note: str = ""

    @property
    def whole(self) -> bool:
        """Whether every output sees the whole input."""
        return all(axis.whole for axis in self.axes)


@dataclass(frozen=True)
class ReceptiveFields(Result):
    """Receptive fields of the layers of a network, in the order of their calls.

    Attributes:
        input_size: Samples of the input, per axis.
        layers: The calls.
        control: The same calls in networks that were not trained.
    """

    stem: ClassVar[str] = "receptive_fields"
    title: ClassVar[str] = "Receptive fields"

    input_size: tuple[int, ...]
    layers: tuple[LayerField, ...]
    control: tuple[tuple[LayerField, ...], ...] = ()

    def table(self) -> pd.DataFrame:
        """The numbers, one row per call of a layer and axis; see ``AxisField``.

        With a control, ``untrained`` is the mean field of the same layer in it, in samples, and
        ``untrained_std`` the standard deviation over its networks.
        """
        rows = []
        for order, layer in enumerate(self.layers):
            for axis, seen in enumerate(layer.axes):
                named = {"order": order, "name": layer.name, "layer": layer.layer}
                row: dict[str, Any] = {**named, "kind": layer.kind, "axis": axis, **asdict(seen)}
                if self.control:
                    fields = [layers[order].axes[axis].field for layers in self.control]
                    row |= {"untrained": np.mean(fields), "untrained_std": np.std(fields)}
                rows.append({**row, "note": layer.note})
        return pd.DataFrame(rows)

    def figure(self) -> Figure:
        """The growth of the field over depth, in samples of the input, on a logarithmic scale.

        A marker for every call of a layer, hollow where it sees the whole input; a line for the
        largest field up to there, for each axis where they differ; lines across for the input.
        """
        return receptive_figure.draw(self.input_size, self.layers, self.control)

    def caption(self) -> str:
        """What the picture shows: how far the field grows, and where it is the whole input."""
        local = [layer for layer in self.layers if not layer.whole]
        text = (
            f"Receptive field of {len(self.layers)} layers over depth, in samples of the input "
            f"({_by(self.input_size)})."
        )
        if local:
            widest = max(local, key=lambda layer: math.prod(axis.field for axis in layer.axes))
            fields = _by([axis.field for axis in widest.axes])
            text += f" It grows to {fields} in {_named(widest)}"
            first = next((i for i, _ in enumerate(self.layers) if self._whole_from(i)), None)
            if first is not None:
                layer = self.layers[first]
                text += f", and is the whole input from {layer.layer} in {_named(layer)} on"
            text += "."
        elif self.layers:
            text += " Every layer sees the whole input."
        return text

    def _whole_from(self, order: int) -> bool:
        return all(layer.whole for layer in self.layers[order:])


def receptive_fields(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    *,
    gates: bool = True,
    control: Iterable[nn.Module] = (),
) -> ReceptiveFields:
    r"""Compute the receptive field of every layer of a network, at the sizes it has now.

    Along each axis, a layer of $k$ taps, dilation $d$ and stride $s$ on a map of jump $j$ and
    field $r$ gives

    $$
    r' = r + d (k - 1)\, j, \qquad j' = s j,
    $$

    and where branches meet, the smallest interval that holds what each of them sees. One forward
    pass in evaluation follows every tensor through the functions of torch, so it does not matter
    how the network is written. FlexConv counts with its present ``size``.

    Some layers see all of their map: NIFF, attention, a mean over space, recurrence. So does the
    low-pass filter of DiffStride and SpectralPool, strictly; what is counted of it is the main
    lobe of an ideal filter of the same cutoff, and ``note`` says how wide. Their jump is
    the ratio of the sizes of the maps, as their outputs are spread evenly. Padding changes no
    field; statistics of group and layer normalisation over space are not counted, and noted. A
    function that nobody knows how to follow is taken to see the whole input, and noted.

    Fields behind layers that enlarge a map differ by a sample or two between positions: the
    number is for the smallest interval that fits all of them.

    Args:
        model: Any network.
        example_input: Input tensor ``(N, C, *spatial)`` with one to three spatial axes, or a tuple
            of all positional arguments; the first tensor with spatial axes is the input in whose
            samples fields are counted, others of its size count as that.
        gates: Whether what a map is multiplied by, or what is added to it, counts where it is one
            number for all positions, made from the whole input: squeeze-and-excitation,
            image pooling. Strictly it does, and every layer behind it sees everything.
        control: Networks of the same layers, not trained.

    Raises:
        TypeError: If ``model`` is no module, ``example_input`` neither tensor nor tuple, or
            ``gates`` no bool.
        ValueError: If no input has spatial axes or it is empty, the network called no layer that
            looks at neighbours, or a control called others.

    Source: Araujo et al. 2019, "Computing receptive fields of convolutional neural networks",
    Distill, equations 1 and 2.

    Examples:
        >>> import torch
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.MaxPool2d(2))
        >>> fields = receptive_fields(network, torch.ones(1, 1, 8, 8))
        >>> [layer.axes[0].field for layer in fields.layers]
        [3, 5]
    """
    boolean("gates", gates)
    sizes, layers = _measured(check_module("model", model), example_input, gates)
    if not layers:
        raise ValueError(
            f"model {type(model).__name__} called no layer that looks at neighbours: "
            "convolutions, pools or the layers of sizeless"
        )
    others = []
    for network in control:
        _, measured = _measured(check_module("control", network), example_input, gates)
        if [(one.name, one.layer) for one in measured] != [(one.name, one.layer) for one in layers]:
            raise ValueError(
                f"control must hold networks that call the layers of model, got one that calls "
                f"{len(measured)} layers where model calls {len(layers)}"
            )
        others.append(measured)
    return ReceptiveFields(sizes, layers, tuple(others))


def _measured(
    model: nn.Module, example_input: Tensor | tuple[Any, ...], gates: bool
) -> tuple[tuple[int, ...], tuple[LayerField, ...]]:
    followed = follow(model, example_input, gates=gates)
    return followed.sizes, tuple(_layer(sight) for sight in followed.sights)


def _layer(sight: Sight) -> LayerField:
    pairs = zip(sight.fact.reaches, sight.windows, strict=True)
    axes = tuple(_axis(reach, window, sight.shape) for reach, window in pairs)
    notes = [note for note in sight.fact.notes if not (sight.note and note == LOBE)]
    note = "; ".join(filter(None, (sight.note, *notes)))
    return LayerField(sight.name, sight.layer, sight.kind, axes, note)


def _axis(reach: Reach, window: Window | None, shape: tuple[int, ...]) -> AxisField:
    window = window or Window()
    known = len(reach.dims) == 1 and not reach.lost
    low, high = reach.at(0)
    return AxisField(
        map=shape[reach.dims[0]] if known else 1,
        taps=window.taps,
        dilation=window.dilation,
        stride=float(window.step),
        jump=float(reach.jump) if known else math.nan,
        field=reach.field,
        center=(low + high) / 2 if known else math.nan,
        whole=reach.whole,
        share=min(1.0, reach.field / reach.size),
    )


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _named(layer: LayerField) -> str:
    return layer.name or "the network"
