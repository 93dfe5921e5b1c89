"""One run that learns its kernel sizes against a search over fixed ones.

    pip install 'sizeless[train,search]'
    python examples/learned_against_searched.py --learned recipes/mnist1d.yaml \
        --fixed recipes/mnist1d_plain.yaml --largest 40 --trials 16 --out runs/search

Each trial trains the fixed network with another kernel size, proposed by Optuna from the validation
accuracies before; the learned network trains once. OUT/search.csv has a row for every run that has
ended.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch

import sizeless
from sizeless.train.run import Outcome, fit

COLUMNS = ("run", "size", "val_accuracy", "test_accuracy", "seconds", "parameters", "gmacs")


def train(recipe: Path, folder: Path, *options: str) -> Outcome:
    """Train a recipe in a folder."""
    quiet = "--trainer.enable_progress_bar=false"
    return fit(
        ["--config", str(recipe), "--out", str(folder), "--trainer.logger=false", quiet, *options]
    )


def row(name: str, size: str, outcome: Outcome, example: torch.Tensor) -> dict[str, Any]:
    """Describe a run; its cost is that of one sample through the network at the end."""
    with torch.no_grad():
        macs = float(sizeless.cost(outcome.network.cpu(), example).macs)
    metrics = outcome.metrics
    return {
        "run": name,
        "size": size,
        "val_accuracy": metrics["val/accuracy"],
        "test_accuracy": metrics["test/accuracy"],
        "seconds": metrics["seconds"],
        "parameters": metrics["parameters"],
        "gmacs": macs / 1e9,
    }


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of the runs so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Search, learn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learned", type=Path, required=True, help="recipe with learned sizes")
    parser.add_argument("--fixed", type=Path, required=True, help="recipe with a kernel_size")
    parser.add_argument("--largest", type=int, required=True, help="largest kernel size tried")
    parser.add_argument("--smallest", type=int, default=3)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", type=int, nargs="+", default=[1, 1, 40], help="of one input")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    example, seed = torch.zeros(given.shape), f"--seed_everything={given.seed}"

    outcome = train(given.learned, given.out / "learned", seed)
    learned = " ".join("x".join(map(str, item.size)) for item in sizeless.sizes(outcome.network))
    rows = [row("learned", learned, outcome, example)]
    write(given.out / "search.csv", rows)

    def trial(suggest: optuna.Trial) -> float:
        size = suggest.suggest_int("size", given.smallest, given.largest, step=given.step)
        key = f"--model.network.init_args.kernel_size={size}"
        outcome = train(given.fixed, given.out / f"trial{suggest.number}", key, seed)
        rows.append(row(f"trial{suggest.number}", str(size), outcome, example))
        write(given.out / "search.csv", rows)
        return float(outcome.metrics["val/accuracy"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=given.seed)
    )
    study.optimize(trial, n_trials=given.trials)


if __name__ == "__main__":
    main()
