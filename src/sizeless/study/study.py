"""All measurements of a network in one call, with the network untrained beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from sizeless._files import write_text
from sizeless._validate import module as check_module
from sizeless._validate import positive_int
from sizeless.penalties import aliasing_margins
from sizeless.study.bank import MOST, LayerKernels, layer_kernels
from sizeless.study.control import Make, untrained, untrained_kernels
from sizeless.study.costs import layer_costs
from sizeless.study.effective.sizes import effective_sizes
from sizeless.study.fields.effective import effective_receptive_field
from sizeless.study.fields.receptive import receptive_fields
from sizeless.study.gallery import gallery
from sizeless.study.groups import product
from sizeless.study.principal.kernels import principal_kernels
from sizeless.study.result import Result
from sizeless.study.shapes.shape import shapes
from sizeless.study.spectra.responses import spectra

Progress = Callable[[str], object]

TELLING = {
    "effective_size": {
        "effective 50 %": "50 % within",
        "effective 90 %": "90 % within",
        "control 90 %": "untrained 90 %",
    },
    "spectra": {"bandwidth": "bandwidth", "control bandwidth": "untrained bandwidth"},
}
"""Columns of the tables that an overview shows, and what it calls them."""


@dataclass(frozen=True)
class Study:
    """What was measured of one network.

    Attributes:
        name: What it is called.
        layers: Its kernels.
        results: The measurements, by the stem of their files.
        left_out: Those that could not be made, and why.
        about: What was studied and how, as pairs of words.
    """

    name: str
    layers: tuple[LayerKernels, ...]
    results: dict[str, Result]
    left_out: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path | str) -> list[Path]:
        """Write the numbers and pictures of all measurements, and ``study.json`` about them.

        Args:
            folder: Where to; it need not exist.

        Returns:
            The files, each whole.
        """
        paths = [path for result in self.results.values() for path in result.save(folder)]
        content = {
            "name": self.name,
            "about": self.about,
            "measured": list(self.results),
            "left out": self.left_out,
        }
        paths.append(Path(folder) / "study.json")
        write_text(paths[-1], json.dumps(content, indent=1) + "\n")
        return paths


def study(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    *,
    make: Make | nn.Module | None = None,
    draws: int = 5,
    most: int = MOST,
    name: str = "",
    progress: Progress = lambda _: None,
) -> Study:
    """Measure how large the filters of a network are, and how large they would be untrained.

    Args:
        model: Any network that convolves.
        example_input: Inputs, or a tuple of all positional arguments; real samples are best, since
            the effective receptive field is measured on them.
        make: Builds the network with fresh weights; they are moved to the device and dtype of those
            of ``model``. ``None``: copies whose modules draw their weights anew, each by its
            ``reset_parameters``.
        draws: Untrained networks to compare with.
        most: Kernels per layer that are measured; of more, as many are drawn.
        name: What to call the network; empty for its class.
        progress: Is told what is measured next.

    Raises:
        TypeError: If ``model`` is no module or ``example_input`` neither tensor nor tuple.
        ValueError: If the network called no layer with a kernel, or a count is not positive.

    Examples:
        >>> import sizeless, torch
        >>> model = sizeless.NIFFConv2d(4, 4, groups=4)
        >>> found = study(model, torch.randn(2, 4, 14, 14), draws=2)
        >>> found.results["effective_size"].title
        'Effective size'
    """
    positive_int("draws", draws)
    progress("kernels")
    layers = layer_kernels(model, example_input, most=most)
    progress("untrained kernels")
    make = _like(model, make)
    control = untrained_kernels(make, example_input, draws=draws, most=most)
    measurements: Sequence[tuple[str, Callable[[], Result]]] = (
        ("kernels", lambda: gallery(layers, model)),
        ("effective sizes", lambda: effective_sizes(layers, control)),
        (
            "receptive fields",
            lambda: receptive_fields(model, example_input, control=untrained(make, draws=draws)),
        ),
        (
            "effective receptive fields",
            lambda: effective_receptive_field(
                model, example_input, control=untrained(make, draws=draws)
            ),
        ),
        ("spectra", lambda: spectra(layers, control, margins=aliasing_margins(model))),
        ("shapes", lambda: shapes(layers, control)),
        ("principal kernels", lambda: principal_kernels(layers)),
        ("cost", lambda: layer_costs(model, example_input)),
    )
    results, left_out = dict[str, Result](), dict[str, str]()
    for what, measure in measurements:
        progress(what)
        try:
            result = measure()
        except ValueError as error:
            left_out[what] = str(error)
        else:
            results[result.stem] = result
    about = {
        "network": f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} "
        "parameters",
        "kernels": f"{len(layers)} layers, at most {most} kernels of each",
        "control": f"{draws} untrained networks, "
        + ("weights drawn anew by each module" if isinstance(make, nn.Module) else "built anew"),
    }
    return Study(name or type(model).__name__, tuple(layers), results, left_out, about)


def _like(model: nn.Module, make: Make | nn.Module | None) -> Make | nn.Module:
    """What draws untrained networks, on the device and in the dtype of a network."""
    if make is None or isinstance(make, nn.Module):
        return model if make is None else make
    wanted = _places(model)

    def placed() -> nn.Module:
        network = check_module("what make() returns", make())
        if len(wanted) == 1 and _places(network) != wanted:
            (place,) = wanted
            network.to(*place)
        return network

    return placed


def _places(model: nn.Module) -> set[tuple[torch.device, torch.dtype]]:
    """Devices and dtypes of all weights but those of sizes, which keep theirs."""
    weights = (p for p in model.parameters() if p.is_floating_point() and p.dim() > 1)
    return {(weight.device, weight.dtype) for weight in weights}


def overview(found: Study) -> pd.DataFrame:
    """Return one row per layer with the most telling numbers of a study.

    Sizes are in samples of the map that a layer sees, bandwidths in cycles per sample; what is
    called untrained is of the control. Columns that say nothing are left out: a kind that all
    layers have, energies that no layer loses.

    Args:
        found: The study.
    """
    rows = pd.DataFrame(
        {
            "layer": [layer.name or layer.layer for layer in found.layers],
            "kind": [layer.kind for layer in found.layers],
            "map": [product(layer.map_size) for layer in found.layers],
            "size": [product(layer.size) for layer in found.layers],
        }
    )
    for stem, columns in TELLING.items():
        if stem not in found.results:
            continue
        table = found.results[stem].table()
        table = table[table["of"] == "layer"].reset_index(drop=True)
        for column, name in columns.items():
            if column in table:
                rows[name] = table[column]
    rows["unused energy"] = [layer.unused for layer in found.layers]
    if rows["kind"].nunique() == 1:
        rows = rows.drop(columns="kind")
    return rows.dropna(axis="columns", how="all")
