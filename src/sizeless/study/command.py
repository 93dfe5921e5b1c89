"""What ``sizeless study`` and ``sizeless report`` are asked for."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table as RichTable
from torch import nn

from sizeless.study.bank import MOST
from sizeless.study.page import write
from sizeless.study.report import study_page
from sizeless.study.source import FRESH, PACKAGES, PRETRAINED, Source, StudyError
from sizeless.study.study import Progress, Study, overview, study

PAGE = "study.html"
SAMPLES = 8
"""Inputs of white noise, unless asked for otherwise."""
SHOWN = ("layer", "size", "90 % within", "untrained 90 %", "bandwidth")
"""Columns of the overview that a terminal has room for."""


@dataclass(frozen=True)
class StudyRequest:
    """What was asked for.

    Attributes:
        target: Run folder, ``torchvision:NAME``, ``timm:NAME`` or a file.
        weights: See ``source.load``.
        input_shape: ``(C, *spatial)``, if given.
        draws: Untrained networks to compare with.
        kernels: Kernels per layer that are measured.
        samples: Inputs of white noise.
        out: Folder or file that the results go to, if not the usual one.
        trust: Whether a file may be unpickled.
        rest: Keys of the data of a run.
    """

    target: str
    weights: str = PRETRAINED
    input_shape: tuple[int, ...] | None = None
    draws: int = 5
    kernels: int = MOST
    samples: int = SAMPLES
    out: Path | None = None
    trust: bool = False
    rest: tuple[str, ...] = ()

    @property
    def is_a_run(self) -> bool:
        """Whether the target is the folder of a run, or a checkpoint in one."""
        return Path(self.target).is_dir() or self.checkpoint is not None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint of a run that was asked for, if one was."""
        path = Path(self.target)
        return path if path.suffix == ".ckpt" and path.is_file() else None

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return (
            Path(self.target) if self.checkpoint is None else self.checkpoint.absolute().parents[1]
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise StudyError(message)


def parse_study(args: Sequence[str], prog: str = "sizeless study") -> StudyRequest:
    """Read the arguments of ``sizeless study``.

    Raises:
        StudyError: If they are not as they must be.
    """
    parser = _Parser(
        prog=prog,
        usage="%(prog)s DIR|torchvision:NAME|timm:NAME|CHECKPOINT [--weights WEIGHTS] "
        "[--input CxHxW] [--samples N] [--draws N] [--kernels N] [--out FOLDER] [--trust] "
        "[--data.KEY VALUE ...]",
        description="Measure how large the filters of a network are: effective sizes with an "
        "untrained control, principal kernels, shapes, spectra and receptive fields. FOLDER "
        "receives the numbers (CSV, JSON), the pictures (PNG), and study.html with all of them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "target",
        metavar="NETWORK",
        help="folder of a run, a checkpoint in one, torchvision:NAME, timm:NAME, or a file that "
        "holds a whole network",
    )
    parser.add_argument(
        "--weights",
        help=f"for torchvision and timm: {PRETRAINED} (default), {FRESH}, or a file with a state "
        "dict",
    )
    parser.add_argument(
        "--input", metavar="CxHxW", type=_shape, help="shape of an input, as in 3x224x224"
    )
    parser.add_argument(
        "--samples", metavar="N", type=_count, help=f"inputs of white noise (default {SAMPLES})"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="where to (default: study/ in the run, or study-NAME here)",
    )
    parser.add_argument(
        "--trust", action="store_true", help="unpickle a file, which can run any code in it"
    )
    own, rest = _parse(parser, args)
    request = StudyRequest(
        own.target,
        own.weights or PRETRAINED,
        own.input,
        own.draws,
        own.kernels,
        own.samples or SAMPLES,
        own.out,
        own.trust,
        rest,
    )
    _check_that_all_counts(request, own)
    return request


def _check_that_all_counts(request: StudyRequest, own: argparse.Namespace) -> None:
    """Refuse what a target of this kind would ignore."""
    package = request.target.partition(":")[0] in PACKAGES and ":" in request.target
    if request.is_a_run:
        for name in ("weights", "input", "samples", "trust"):
            if getattr(own, name):
                raise StudyError(
                    f"--{name} goes with networks by name or file; {request.target} is a run, "
                    "studied on samples of its own data: leave it out"
                )
    elif request.rest:
        raise StudyError(
            f"{request.rest[0]} goes with runs only, and {request.target} is none: leave it out"
        )
    elif own.trust and package:
        raise StudyError(f"--trust goes with files only; leave it out for {request.target}")


def parse_report(args: Sequence[str], prog: str = "sizeless report") -> StudyRequest:
    """Read the arguments of ``sizeless report``.

    Raises:
        StudyError: If they are not as they must be.
    """
    parser = _Parser(
        prog=prog,
        usage="%(prog)s DIR [--out FILE] [--draws N] [--kernels N] [--data.KEY VALUE ...]",
        description="Write DIR/report.html, one page that needs nothing else: what a run came to, "
        "the sizes that it learned and how they moved, its kernels, effective sizes with an "
        "untrained control, receptive fields, cost, configuration and environment.",
        allow_abbrev=False,
    )
    parser.add_argument("target", metavar="DIR", help="folder of a run")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the page")
    own, rest = _parse(parser, args)
    if not Path(own.target).is_dir():
        raise StudyError(
            f"{own.target} is no folder: name that of a run, made with "
            "sizeless fit --config FILE --out DIR"
        )
    return StudyRequest(own.target, draws=own.draws, kernels=own.kernels, out=own.out, rest=rest)


def _parse(
    parser: argparse.ArgumentParser, args: Sequence[str]
) -> tuple[argparse.Namespace, tuple[str, ...]]:
    parser.add_argument(
        "--draws",
        metavar="N",
        type=_count,
        default=5,
        help="untrained networks to compare with (default 5)",
    )
    parser.add_argument(
        "--kernels",
        metavar="N",
        type=_count,
        default=MOST,
        help=f"kernels per layer that are measured (default {MOST})",
    )
    own, rest = parser.parse_known_args(args)
    for arg in rest:
        if arg.startswith("--") and not arg.startswith("--data."):
            raise StudyError(f"{arg} is unknown; {parser.prog} --help lists what is known")
    if rest and not rest[0].startswith("--"):
        raise StudyError(f"{rest[0]} is one argument too many; {parser.prog} --help tells more")
    return own, tuple(rest)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if not 2 <= len(parts) <= 4 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be channels and sizes, as in 3x224x224 or 1x16000, got {text!r}"
        )
    return tuple(map(int, parts))


def usual_folder(request: StudyRequest) -> Path:
    """Where the files of a study go if nothing else was said."""
    if request.is_a_run:
        return request.run / "study"
    name = re.sub(r"[^\w.-]+", "-", request.target.rpartition("/")[2])
    return Path(f"study-{name}")


def run(request: StudyRequest, source: Source, folder: Path, tell: Progress) -> Study:
    """Measure a network and write all files, each whole or not at all.

    Args:
        request: What was asked for.
        source: The network.
        folder: Where the files go.
        tell: Is told what is done next.

    Raises:
        StudyError: If the network cannot be run on its input, or has no kernel to measure.
    """
    make = None if isinstance(source.make, nn.Module) else source.make
    _check_that_it_runs(source)
    try:
        found = study(
            source.network,
            source.example,
            make=make,
            draws=request.draws,
            most=request.kernels,
            name=source.name,
            progress=lambda what: tell(f"Measuring {what}"),
        )
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise StudyError(f"{source.name} cannot be studied on {source.inputs}: {text}") from error
    found.about.update(weights=source.weights, inputs=source.inputs)
    tell("Writing")
    found.save(folder)
    write(study_page(found), folder / PAGE)
    return found


def _check_that_it_runs(source: Source) -> None:
    try:
        with torch.no_grad():
            source.network(source.example[:1])
    except Exception as error:  # whatever the code of a network raises
        text = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            f"{source.name} cannot be studied on {source.inputs}: {text}; --input CxHxW gives them "
            "another shape"
        ) from error


def table(found: Study) -> RichTable:
    """Return what a terminal has room for of the overview of a study."""
    rows = overview(found)
    rows = rows[[column for column in SHOWN if column in rows]]
    shown = RichTable(
        title=f"Filters of {found.name}, in samples of each layer's map",
        title_justify="left",
        title_style="bold",
    )
    for column in rows.columns:
        words = column == "layer"
        shown.add_column(
            column,
            justify="left" if words else "right",
            # A path that is cut short could be another layer's.
            overflow="fold" if words else "ellipsis",
            no_wrap=not words,
        )
    for row in rows.itertuples(index=False):
        shown.add_row(*(_cell(value) for value in row))
    return shown


def lines(found: Study, folder: Path) -> list[str]:
    """Return what else there is to say, and where the files are."""
    missing = [f"Not measured: {what}: {why}" for what, why in found.left_out.items()]
    return [*missing, f"Page: {folder / PAGE}"]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return str(value)
