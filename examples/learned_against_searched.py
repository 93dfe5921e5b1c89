"""One run that learns its kernel sizes against a search over fixed ones.

    pip install 'sizeless[train,search,study]'
    python examples/learned_against_searched.py --learned recipes/mnist1d.yaml \
        --fixed recipes/mnist1d_plain.yaml --largest 40 --trials 16 --out runs/search

Optuna tries a grid of sizes: one training each of the fixed network. The learned network trains
once. OUT/search.csv has a row for every run, OUT/search.png shows what is known after each trial
and at what cost, and their sum is printed; a search that was stopped goes on where it was. To draw
such tables again, those of several seeds together, beside the first:

    python examples/learned_against_searched.py --redraw OUT/search.csv
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from sizeless.study.comparisons import LearnedAgainstSearched
from sizeless.train.run import fit
from sizeless.trajectories import read_points

COLUMNS = ("run", "seed", "size", "val/accuracy", "test/accuracy", "seconds", "parameters", "macs")


def train(recipe: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Train a recipe in a folder, unless that is done, and return its metrics."""
    metrics = folder / "metrics.json"
    if not metrics.exists():
        quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
        fit(["--config", str(recipe), "--out", str(folder), "--resume", *quiet, *options])
    content: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    if f"--seed_everything={content['seed']}" not in options:
        raise SystemExit(f"{folder} is of seed {content['seed']}: name another folder with --out")
    return content


def learned_sizes(folder: Path, epoch: int) -> str:
    """Sizes of all layers and axes at an epoch."""
    points = read_points(folder / "sizes.csv")
    return " ".join(f"{point.size:g}" for point in points if point.epoch == epoch)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of the runs so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def compare(tables: Sequence[Path]) -> LearnedAgainstSearched:
    """Set what was learned beside what was searched, in the order in which it was tried."""
    rows = pd.concat([pd.read_csv(table) for table in tables], ignore_index=True)
    rows = rows.rename(columns={"val/accuracy": "validation", "test/accuracy": "accuracy"})
    learned = rows["run"] == "learned"
    rows = rows.drop(columns="run")
    return LearnedAgainstSearched(rows[learned], rows[~learned])


def draw(tables: Sequence[Path]) -> None:
    """Draw the comparison beside the first of the tables."""
    compare(tables).figure().savefig(tables[0].with_suffix(".png"))


def grid(smallest: int, largest: int, count: int) -> list[int]:
    """Whole sizes at equal distances from the smallest one on, the largest being the last.

    Examples:
        >>> grid(3, 40, 4)
        [3, 15, 28, 40]
    """
    distance = (largest - smallest) / max(count - 1, 1)
    return sorted({round(smallest + number * distance) for number in range(count)})


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what is not ours goes to every run, as --data.init_args.root DIR."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learned", type=Path, help="recipe with learned sizes")
    parser.add_argument("--fixed", type=Path, help="recipe with a kernel_size")
    parser.add_argument("--largest", type=int, help="largest kernel size tried")
    parser.add_argument("--smallest", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16, help="how many sizes to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the runs, the table and the picture")
    parser.add_argument(
        "--redraw", type=Path, nargs="+", metavar="CSV", help="draw tables again, no more"
    )
    given, rest = parser.parse_known_args()
    needed = given.learned, given.fixed, given.largest, given.out
    if given.redraw is None and None in needed:
        parser.error("--learned, --fixed, --largest and --out are needed, or --redraw")
    return given, rest


def main() -> None:
    """Search, learn, and write the table."""
    given, rest = arguments()
    if given.redraw is not None:
        draw(given.redraw)
        return
    options = [f"--seed_everything={given.seed}", *rest]
    folder = given.out / "learned"
    metrics = train(given.learned, folder, *options)
    rows = [{"run": "learned", "size": learned_sizes(folder, metrics["epoch"]), **metrics}]
    write(given.out / "search.csv", rows)

    def trial(suggest: optuna.Trial) -> float:
        size = suggest.suggest_int("size", given.smallest, given.largest)
        key = f"--model.network.init_args.kernel_size={size}"
        metrics = train(given.fixed, given.out / f"size{size}", key, *options)
        rows.append({"run": "fixed", "size": str(size), **metrics})
        write(given.out / "search.csv", rows)
        return float(metrics["val/accuracy"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sizes = grid(given.smallest, given.largest, given.trials)
    sampler = optuna.samplers.GridSampler({"size": sizes}, seed=given.seed)
    optuna.create_study(direction="maximize", sampler=sampler).optimize(trial, n_trials=len(sizes))
    draw([given.out / "search.csv"])
    best = max(rows[1:], key=lambda row: row["val/accuracy"])
    together = sum(row["seconds"] for row in rows[1:])
    print(
        f"learned: test accuracy {rows[0]['test/accuracy']:.4f} in {rows[0]['seconds']:.0f} s\n"
        f"best of {len(sizes)} fixed sizes on validation, {best['size']}: test accuracy "
        f"{best['test/accuracy']:.4f}; {together:.0f} s for all"
    )


if __name__ == "__main__":
    main()
