"""What ``sizeless fold`` does with the network of a run."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.table import Table
from torch import Tensor, nn

from sizeless._files import write_atomically, write_text
from sizeless.export.exported import Exported, ExportError
from sizeless.export.onnx_file import to_onnx
from sizeless.export.programs import to_pt2, to_torchexport
from sizeless.surgery import Report, architecture, fold
from sizeless.surgery.report import by, short

FORMATS: dict[str, tuple[Callable[..., Exported], str]] = {
    "onnx": (to_onnx, "model.onnx"),
    "torchexport": (to_torchexport, "program.pt2"),
    "pt2": (to_pt2, "model.pt2"),
}
"""What writes each format, and its usual name."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        folder: The run folder.
        form: ``"onnx"``, ``"torchexport"``, ``"pt2"`` or ``None``.
        out: File of the exported network, if it is not to be in the run folder.
        resolution: Size of the samples, if it is not that of the run.
        options: Arguments of ``fold``.
        rest: Keys of the data.
    """

    folder: Path
    form: str | None
    out: Path | None
    resolution: int | None
    options: dict[str, Any]
    rest: tuple[str, ...]


@dataclass(frozen=True)
class Folded:
    """What came out.

    Attributes:
        report: What became of each layer.
        exported: The exported file, if one was asked for.
        folder: Where the files are.
    """

    report: Report
    exported: Exported | None
    folder: Path


def parse(args: Sequence[str], prog: str = "sizeless fold") -> Request:
    """Read the arguments of the command.

    Raises:
        ExportError: If they are not as they must be.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s DIR [--to FORMAT] [--out FILE] [--energy SHARE] [--fuse_norms] "
        "[--integer_strides DISTANCE] [--resolution PIXELS] [--data.KEY VALUE ...]",
        description="Turn the network that a run chose into an ordinary one of fixed sizes. "
        "DIR/fold receives report.csv and report.json, architecture.yaml, the weights in folded.pt "
        "and, with --to, the exported network, after a comparison with the original.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, nargs="?", help="folder of a run")
    parser.add_argument("--to", choices=FORMATS, help="format of the exported network")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the exported network")
    parser.add_argument(
        "--energy",
        metavar="SHARE",
        type=float,
        help="share of the energy of NIFF kernels that is kept (default: all)",
    )
    parser.add_argument(
        "--fuse_norms",
        action="store_true",
        help="let convolutions take in the batch normalisation after them",
    )
    parser.add_argument(
        "--integer_strides",
        metavar="DISTANCE",
        type=float,
        default=0.0,
        help="round strides that are no further than this from a whole number; 0.5 rounds all",
    )
    parser.add_argument(
        "--resolution",
        metavar="PIXELS",
        type=int,
        help="size of the samples; kernels are rendered anew for it",
    )
    try:
        own, rest = parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise ExportError(str(error)) from error
    if own.folder is None:
        raise ExportError("DIR is missing: name the folder of a run, as in: fold runs/first")
    other = [arg for arg in rest if arg.startswith("--") and not arg.startswith("--data.")]
    if other:
        raise ExportError(f"{other[0]} is unknown; sizeless fold --help lists what is known")
    if own.out is not None and own.to is None:
        raise ExportError(f"--out {own.out} needs --to: {', '.join(FORMATS)}")
    options = {
        "energy": own.energy,
        "fuse_norms": own.fuse_norms,
        "integer_strides": own.integer_strides,
    }
    return Request(own.folder, own.to, own.out, own.resolution, options, tuple(rest))


def run(request: Request, network: nn.Module, example: Tensor) -> Folded:
    """Fold a network and write all files, each whole or not at all.

    Args:
        request: What was asked for.
        network: The network.
        example: Some samples.

    Raises:
        ExportError: If the network cannot be folded or exported.
    """
    try:
        plain, report = fold(network, example, **request.options)
        sizes = architecture(network, example, energy=request.options["energy"])
    except ValueError as error:
        raise ExportError(" ".join(str(error).split())) from error
    folder = request.folder / "fold"
    exported = None
    if request.form is not None:
        write, name = FORMATS[request.form]
        exported = write(plain, example, request.out or folder / name)
    write_text(folder / "report.csv", _csv(report))
    write_text(folder / "report.json", _json(report, exported))
    write_text(folder / "architecture.yaml", yaml.safe_dump(sizes, sort_keys=False))
    write_atomically(folder / "folded.pt", lambda file: torch.save(plain.state_dict(), file))
    return Folded(report, exported, folder)


def table(report: Report) -> Table:
    """Return a table with one row per layer, for the terminal."""
    made = Table(title="Folded layers", title_justify="left", title_style="bold")
    for column in ("layer", "was", "is", "size", "MACs", "error"):
        text = column in {"layer", "was", "is"}
        made.add_column(column, justify="left" if text else "right", no_wrap=not text)
    for change in report.changes:
        sizes = [by(change.size_before), by(change.size_after)]
        macs = [short(change.macs_before), short(change.macs_after)]
        made.add_row(
            change.name or "(the network)",
            change.before,
            change.after,
            " → ".join(dict.fromkeys(sizes)),
            " → ".join(dict.fromkeys(macs)),
            "–" if change.error is None else f"{change.error:.0e}",
        )
    return made


def lines(folded: Folded) -> list[str]:
    """What is to be said besides the table."""
    said = list(folded.report.notes)
    if folded.report.error is not None:
        said.insert(0, f"Relative error of the network's output: {folded.report.error:.1e}.")
    made = folded.exported
    if made is not None:
        said.append(
            f"{made.path}: {made.bytes:,} bytes, relative error {made.error:.1e}, "
            f"{made.ms:.2f} ms (torch {made.torch_ms:.2f} ms)."
        )
    return [*said, f"Files: {folded.folder}"]


def _csv(report: Report) -> str:
    rows = [
        {key: by(value) if key.startswith("size_") else value for key, value in row.items()}
        for row in report.rows()
    ]
    text = io.StringIO()
    names = rows[0] if rows else ()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json(report: Report, exported: Exported | None) -> str:
    made = None if exported is None else {**asdict(exported), "path": str(exported.path)}
    content = {
        "error": report.error,
        "notes": report.notes,
        "layers": report.rows(),
        "exported": made,
    }
    return json.dumps(content, indent=2) + "\n"
