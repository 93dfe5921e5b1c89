"""The rows of ``conversion.py``, and the page that shows them."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sizeless._files import write_text
from sizeless.functional.plan_table import processor

STEPS = ("flex", "stride", "niff")


@dataclass
class Row:
    """What became of one network.

    ``*_layers`` are layers changed and, after a slash, left alone. Errors are norms of differences
    of outputs over norms of outputs: converted against original, folded against converted, and
    onnxruntime against folded. ``*_sizes`` are parameters of sizes that a gradient reached, of all.
    ``rounding`` and ``flex_error64`` are there where the first error is beyond the tolerance: that
    of the network itself in float32 against float64, and that of the conversion in float64.
    ``*_remark`` is the commonest reason where no layer was changed.
    """

    network: str
    parameters: int = 0
    image: int = 0
    flex_layers: str = ""
    flex_error: float | None = None
    rounding: float | None = None
    flex_error64: float | None = None
    flex_sizes: str = ""
    fold_error: float | None = None
    onnx_error: float | None = None
    flex_failure: str = ""
    flex_remark: str = ""
    stride_layers: str = ""
    stride_sizes: str = ""
    stride_failure: str = ""
    stride_remark: str = ""
    niff_layers: str = ""
    niff_sizes: str = ""
    niff_failure: str = ""
    niff_remark: str = ""
    failure: str = ""
    seconds: float = 0.0

    @property
    def failures(self) -> str:
        """All that failed, in one line."""
        named = {name: getattr(self, f"{name}_failure") for name in ("flex", "stride", "niff")}
        told = (f"{name}: {failure}" for name, failure in named.items() if failure)
        return "; ".join(filter(None, (self.failure, *told)))


def read(file: Path) -> dict[str, dict[str, str]]:
    """Rows of an earlier run."""
    if not file.exists():
        return {}
    with file.open(newline="") as lines:
        return {row["network"]: row for row in csv.DictReader(lines)}


def write(folder: Path, rows: Mapping[str, Mapping[str, Any]], names: Collection[str]) -> None:
    """Write the table for programs, and the one for people, in the order of names."""
    text = io.StringIO()
    columns = [field.name for field in fields(Row)]
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    ordered = [{c: rows[name].get(c, "") for c in columns} for name in names if name in rows]
    table.writerows(ordered)
    write_text(folder / "conversion.csv", text.getvalue())
    write_text(folder / "conversion.md", page(ordered, names))


PAGE = """# Converting well-known networks

What [`convert` and `fold`](convert.md) make of {count} networks: the convolutional classifiers of
torchvision, and a small member of each convolutional family of timm. `python
benchmarks/conversion.py` writes this page and `conversion.csv`; it ran on {machine} with torch
{torch}, torchvision {torchvision}, timm {timm} and onnxruntime {onnxruntime}.

All weights are random: this says that conversions work, and nothing about accuracy. Parameters that
start at one number (some networks switch branches off at the start) are drawn from 0.5 to 1.5, and
batch normalisation has the statistics of four images of noise. Images are 96 by 96, larger where a
network needs it; the stem stays as it is.

* **kernels**: layers that `conv="flex"` gave a learned size, and convolutions that it left alone,
  1x1 for the most part. Then the relative error of the network's output against the original's, of
  the folded network's against the converted one's, and of onnxruntime's on the exported file
  against that. At most 1e-4 passes. Nothing of sizeless is left in a folded network.
* **strides** and **filters**: the same counts for `downsample="diffstride"` and `conv="niff"`,
  which compute something else. They pass if the output has its shape and is finite.
* In all three, a step of SGD must reach every parameter of a size, or of a filter, with a gradient,
  and leave the output finite.

With random weights some networks enlarge the rounding of float32 so much that they differ from
themselves in float64 by more than 1e-5. Where an error is above 1e-4, the conversion is repeated
in float64, where at most 1e-10 passes.

{summary}

| network | parameters | kernels | error | folded | ONNX | strides | filters | remark |
| --- | --: | --: | --: | --: | --: | --: | --: | --- |
{table}
"""


def page(rows: list[dict[str, Any]], names: Collection[str]) -> str:
    """The page of the documentation."""
    packages = ("torch", "torchvision", "timm", "onnxruntime")
    return PAGE.format(
        count=len(rows),
        machine=processor(),
        summary=summary(rows, names),
        table="\n".join(map(line, rows)),
        **{package: version(package).split("+")[0] for package in packages},
    )


def summary(rows: list[dict[str, Any]], names: Collection[str]) -> str:
    """How many networks pass, and which were not run."""
    missing = sorted(set(names) - {row["network"] for row in rows})
    text = [
        f"* {what}: {sum(passes(row, step) for row in rows)} of {len(rows)} pass; in "
        f"{sum(row[f'{step}_layers'].startswith('0/') for row in rows)} of these no layer could be "
        "changed."
        for what, step in (("Kernels", "flex"), ("Strides", "stride"), ("Filters", "niff"))
    ]
    doubled = [row for row in rows if row["flex_error64"]]
    text.append(
        f"* The kernels of {len(doubled)} networks were judged in float64; what is exported is "
        "float32 all the same, and must pass."
    )
    if missing:
        text.append(f"* Not run, as yet: {', '.join(missing)}.")
    return "\n".join(text)


def passes(row: Mapping[str, Any], step: str) -> bool:
    """Whether a step worked."""
    return not row["failure"] and not row[f"{step}_failure"]


def line(row: Mapping[str, Any]) -> str:
    """A line of the table."""
    errors = [row[f"{name}_error"] for name in ("flex", "fold", "onnx")]
    layers = [row[f"{step}_layers"] for step in STEPS]
    remarks = [f"**{row['failure']}**"] if row["failure"] else []
    for what, step in (("kernels", "flex"), ("strides", "stride"), ("filters", "niff")):
        if row[f"{step}_failure"]:
            remarks.append(f"**{what}: {row[f'{step}_failure']}**")
        elif row[f"{step}_remark"]:
            remarks.append(f"no {what}: {row[f'{step}_remark']}")
    if row["flex_error64"]:
        remarks.append(
            f"in float64 {float(row['flex_error64']):.0e}; rounding alone makes "
            f"{float(row['rounding']):.0e}"
        )
    cells = [
        row["network"],
        f"{int(row['parameters']) / 1e6:.1f}M",
        layers[0],
        *("" if error in ("", None) else f"{float(error):.0e}" for error in errors),
        *layers[1:],
        "; ".join(remarks).replace("|", "/"),
    ]
    return f"| {' | '.join(cells)} |"
