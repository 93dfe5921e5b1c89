"""Accuracy against cost: one run for each budget, beside networks of fixed sizes that cost as much.

    pip install 'sizeless[train,study]'
    python examples/accuracy_against_cost.py --learned recipes/budget.yaml \
        --fixed recipes/mnist1d_plain.yaml --shares 1 0.7 0.5 0.35 0.25 --seeds 0 1 2 \
        --out runs/budgets --trainer.max_epochs=20

The learned network is trained once for each budget, a share of the multiply-accumulates that it
begins with. The fixed one has the largest kernel size, the same in all layers, with which it costs
no more. What its kernels are made of differs, too; so the learned network is also trained with that
size in all layers and a learning rate of 0 for the sizes. OUT/cost.csv has a row for every run, and
OUT/cost.png shows them and which none beats; runs that are there already are not repeated, and one
that was stopped goes on where it was. To draw such a table again:

    python examples/accuracy_against_cost.py --redraw OUT/cost.csv
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from sizeless import cost
from sizeless.study.comparisons import AccuracyAgainstCost
from sizeless.train.config import RunCLI
from sizeless.train.folder import RunFolder
from sizeless.train.run import fit
from sizeless.trajectories import read_points

COLUMNS = (
    "run",
    "budget",
    "seed",
    "size",
    "macs",
    "test/accuracy",
    "val/accuracy",
    "budget_met",
    "parameters",
    "seconds",
)

FAMILIES = {
    "learned": "sizes learned within a budget",
    "same, fixed": "the same kernels, all of one fixed size",
    "plain, fixed": "plain kernels, all of one fixed size",
}
"""Runs, and what they are called in the picture."""


def train(recipe: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Train a recipe in a folder, unless that is done, and return its metrics."""
    metrics = folder / "metrics.json"
    if not metrics.exists():
        quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
        fit(["--config", str(recipe), "--out", str(folder), "--resume", *quiet, *options])
    content: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return content


def learned_sizes(folder: Path, epoch: int) -> str:
    """Sizes of all layers and axes at an epoch."""
    points = read_points(folder / "sizes.csv")
    return " ".join(f"{point.size:g}" for point in points if point.epoch == epoch)


def macs_by_size(recipe: Path, folder: Path, *options: str) -> dict[int, float]:
    """Multiply-accumulates of the network of a recipe with every kernel size up to its sample's."""
    cli = RunCLI(["--config", str(recipe), *options], RunFolder(folder), "accuracy_against_cost")
    cli.datamodule.setup("test")
    sample = next(iter(cli.datamodule.test_dataloader()))[0][:1]
    network = cli.config["model"]["network"]
    module, _, name = network["class_path"].rpartition(".")
    make = getattr(importlib.import_module(module), name)
    given = vars(network["init_args"])

    def macs(size: int) -> float:
        model: nn.Module = make(**{**given, "kernel_size": size})
        with torch.no_grad():
            return float(cost(model, sample).macs)

    return {size: macs(size) for size in range(1, sample.shape[-1] + 1)}


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of the runs so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(table: Path) -> None:
    """Draw the runs of a table beside it: the mean over seeds for each budget, and the front."""
    rows = pd.read_csv(table)
    order = list(FAMILIES)
    rows = rows.sort_values("run", key=lambda names: names.map(order.index), kind="stable")
    points = pd.DataFrame(
        {
            "family": rows["run"].map(FAMILIES),
            "setting": rows["budget"],
            "seed": rows["seed"],
            "cost": rows["macs"],
            "accuracy": rows["test/accuracy"],
        }
    )
    AccuracyAgainstCost(points).figure().savefig(table.with_suffix(".png"))


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what is not ours goes to every run, as --trainer.max_epochs=20."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learned", type=Path, help="recipe with an init_size")
    parser.add_argument("--fixed", type=Path, help="recipe with a kernel_size")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.7, 0.5, 0.35, 0.25])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="folder of the runs, the table and the picture")
    parser.add_argument("--redraw", type=Path, metavar="CSV", help="draw a table again, no more")
    given, rest = parser.parse_known_args()
    if given.redraw is None and None in {given.learned, given.fixed, given.out}:
        parser.error("--learned, --fixed and --out are needed, or --redraw")
    return given, rest


def main() -> None:
    """Train for every seed and budget, and write table and picture after each."""
    given, rest = arguments()
    if given.redraw is not None:
        draw(given.redraw)
        return
    choices = macs_by_size(given.fixed, given.out, *rest)
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        options = [f"--seed_everything={seed}", *rest]
        for share in given.shares:
            folder = given.out / f"learned{share:g}_seed{seed}"
            metrics = train(given.learned, folder, f"--model.budget.share={share}", *options)
            size = learned_sizes(folder, metrics["epoch"])
            rows.append({"run": "learned", "budget": share, "size": size, **metrics})
            limit = share * metrics["macs"] / metrics["test/cost_share"]
            # A size that costs as much to the last digit may seem to cost more.
            size = max(k for k, macs in choices.items() if macs <= limit * (1 + 1e-6))
            folder = given.out / f"fixed{size}_seed{seed}"
            key = f"--model.network.init_args.kernel_size={size}"
            metrics = train(given.fixed, folder, key, *options)
            rows.append({"run": "plain, fixed", "budget": share, "size": str(size), **metrics})
            folder = given.out / f"same{size}_seed{seed}"
            keys = f"--model.network.init_args.init_size={size}", "--model.size_lr=0"
            metrics = train(given.learned, folder, *keys, "--model.budget=null", *options)
            rows.append({"run": "same, fixed", "budget": share, "size": str(size), **metrics})
            write(given.out / "cost.csv", rows)
            draw(given.out / "cost.csv")
    for row in rows:
        print(
            f"{row['run']:>12} at {row['budget']:.0%}, seed {row['seed']}: sizes {row['size']}, "
            f"{row['macs'] / 1e6:.2f} M MACs, test accuracy {row['test/accuracy']:.4f}"
        )


if __name__ == "__main__":
    main()
