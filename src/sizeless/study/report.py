"""The page about a run, or about a study: which sections it has and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from sizeless.study.bank import MOST
from sizeless.study.control import Make
from sizeless.study.costs import layer_costs
from sizeless.study.curves import learning_curves
from sizeless.study.gallery import Gallery
from sizeless.study.history import trajectories
from sizeless.study.page import Block, Card, Code, Group, Page, Picture, Section, Table, Text
from sizeless.study.result import Result
from sizeless.study.source import StudyError
from sizeless.study.study import Progress, Study, overview, study
from sizeless.surgery.report import short

ORDER = (
    "effective_size",
    "receptive_fields",
    "effective_field",
    "spectra",
    "shape",
    "principal_kernels",
    "cost",
)
"""Measurements in the order in which a page has them; any other comes after these."""

LEADS = {
    "effective_size": "How much of its kernels' mass lies near their middle, beside networks of "
    "the same architecture that were not trained: much of the locality of implicit filters is "
    "there before training. Only what differs from the control was learned.",
    "receptive_fields": "What each layer can see of the input, from the sizes that it has now.",
    "effective_field": "What it does look at: the gradient of one position of its "
    "output with respect to the input.",
    "spectra": "Which frequencies the kernels let through, up to half a cycle per sample.",
    "shape": "Whether kernels have a preferred axis, and whether their contours are round.",
    "principal_kernels": "The few patterns that most kernels of a stage are made of.",
    "cost": "Where the work is done, for one sample.",
}

GALLERY_ROWS = 8
"""Layers in each of the pictures of a gallery."""


def study_page(found: Study) -> Page:
    """Return the page of a study.

    Args:
        found: What was measured.
    """
    about = pd.DataFrame(list(found.about.items()), columns=["what", "how"])
    first = Section("Overview", [Table(about), *_overview(found)])
    return Page(
        title=found.name,
        subtitle="How large are its filters?",
        sections=[first, *sections_of(found)],
        made=made(),
    )


def sections_of(found: Study) -> list[Section]:
    """Return a section for each measurement, and one for those that could not be made."""
    known = [stem for stem in ORDER if stem in found.results]
    rest = [stem for stem in found.results if stem not in (*ORDER, "kernels")]
    sections = [_kernels(found)] if "kernels" in found.results else []
    sections += [_section(found.results[stem]) for stem in (*known, *rest)]
    if found.left_out:
        rows = pd.DataFrame(list(found.left_out.items()), columns=["measurement", "why"])
        sections.append(Section("Left out", [Table(rows)]))
    return sections


def _section(result: Result) -> Section:
    picture = Picture(result.figure(), f"Plot: {result.title}", result.caption())
    numbers = Group("Numbers", [Table(result.table())])
    return Section(result.title, [picture, numbers], LEADS.get(result.stem, ""))


def _kernels(found: Study) -> Section:
    pictures = found.results["kernels"]
    blocks: list[Block] = [Text(pictures.caption())]
    if isinstance(pictures, Gallery):
        rows = [
            pictures.layers[start : start + GALLERY_ROWS]
            for start in range(0, len(pictures.layers), GALLERY_ROWS)
        ]
        for place, layers in enumerate(rows):
            first, last = (layer.name or layer.layer for layer in (layers[0], layers[-1]))
            names = f"{first} to {last}" if len(layers) > 1 else first
            picture = Picture(pictures.figure_of(layers), f"Kernels of {names}")
            blocks.append(picture if place == 0 else Group(names, [picture]))
    blocks.append(Group("Numbers", [Table(pictures.table())]))
    return Section("Kernels", blocks)


def _overview(found: Study) -> list[Block]:
    table = overview(found)
    return [Table(table, caption="Each layer with a kernel; lengths in samples of its own map.")]


def run_page(
    folder: Path,
    network: nn.Module,
    samples: Tensor,
    make: Make,
    *,
    draws: int = 5,
    most: int = MOST,
    progress: Progress = lambda _: None,
) -> Page:
    """Return the page of a run.

    Args:
        folder: The run folder.
        network: The network that validation chose.
        samples: Samples of the validation split.
        make: Builds the network with fresh weights.
        draws: Untrained networks to compare with.
        most: Kernels per layer that are measured.
        progress: Is told what is measured next.

    Raises:
        StudyError: If a file of the run is damaged.
    """
    metrics = _read_json(folder / "metrics.json")
    config = _read_text(folder / "config.yaml")
    sections = [section for section in (_sizes(folder), _curves(folder)) if section is not None]
    try:
        found = study(network, samples, make=make, draws=draws, most=most, progress=progress)
    except ValueError as error:
        sections.append(Section("Kernels", [Text(f"Not measured: {error}.")]))
        sections += _of_costs(network, samples)
    else:
        sections += [Section("Layers", _overview(found)), *sections_of(found)]
    sections.append(_settings(folder, config))
    return Page(
        title=folder.resolve().name,
        subtitle=f"{type(network).__name__}: what the run came to, and what sizes it learned",
        cards=_cards(metrics),
        sections=sections,
        made=made(),
    )


def _cards(metrics: Mapping[str, Any]) -> list[Card]:
    cards = [
        Card(label, f"{metrics[key]:.4f}")
        for key, label in (("test/accuracy", "Test accuracy"), ("test/loss", "Test loss"))
        if key in metrics
    ]
    if "parameters" in metrics:
        cards.append(Card("Parameters", short(metrics["parameters"])))
    if metrics.get("macs") is not None:
        cards.append(Card("Multiply-accumulates", short(metrics["macs"]), "per sample"))
    if "epoch" in metrics:
        note = f"chosen of {metrics.get('epochs', '?')} on the validation split"
        cards.append(Card("Epoch", str(metrics["epoch"]), note))
    if "seconds" in metrics:
        note = f"seed {metrics['seed']}" if "seed" in metrics else ""
        cards.append(Card("Training", f"{metrics['seconds'] / 60:.1f} min", note))
    return cards


def _sizes(folder: Path) -> Section | None:
    if not (folder / "sizes.csv").is_file():
        return None
    try:
        moved = trajectories(folder)
    except ValueError as error:
        raise StudyError(str(error)) from error
    if not moved.points:
        return Section("Learned sizes", [Text(moved.caption())])
    return Section(
        "Learned sizes",
        [
            Table(moved.summary(), caption="Sizes at the start and now: taps, or a stride."),
            Picture(moved.figure(), f"Plot: {moved.title}", moved.caption()),
            Group("All epochs", [Table(moved.table())]),
        ],
        "Where each size began and where training took it.",
    )


def _curves(folder: Path) -> Section | None:
    try:
        curves = learning_curves(folder)
    except ValueError:
        return None
    return _section(curves)


def _of_costs(network: nn.Module, samples: Tensor) -> list[Section]:
    try:
        return [_section(layer_costs(network, samples))]
    except ValueError:
        return []


def _settings(folder: Path, config: str) -> Section:
    blocks: list[Block] = [Group("Configuration", [Code(config, "yaml", "config.yaml")])]
    for name, title, language in (
        ("environment.json", "Environment", "json"),
        ("conversion.txt", "Conversion", ""),
    ):
        if (folder / name).is_file():
            text = _read_text(folder / name)
            blocks.append(Group(title, [Code(text, language, name)]))
    return Section("How it was made", blocks)


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise StudyError(f"{path} is no JSON object: {error}") from error


def made() -> str:
    """Return what a page says of its making."""
    from sizeless import __version__

    return f"sizeless {__version__}"
