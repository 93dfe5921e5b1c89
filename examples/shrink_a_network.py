"""Halve what a trained network costs: learned sizes under a budget, against narrower networks.

    pip install 'sizeless[train,vision,export]'
    python examples/shrink_a_network.py --out runs/shrink --seeds 3

An ordinary small ResNet is trained on 10,000 images of Fashion-MNIST for half of the epochs. Then
it is converted (`sizeless.convert`), goes on with its kernel sizes and strides free, under a budget
of half of its multiply-accumulates, and is folded (`sizeless.fold`). To compare, the ordinary
network and narrower ones are trained for all epochs. OUT/shrink.csv has a row for every network:
accuracy on the test set, multiply-accumulates, and milliseconds for one image in ONNX Runtime on
one thread. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sizeless
from sizeless.export import to_onnx
from sizeless.train.chosen import chosen
from sizeless.train.run import fit

RECIPES = Path(__file__).parents[1] / "recipes"
COLUMNS = ("network", "seed", "test/accuracy", "macs", "onnx_ms", "parameters", "sizes")
NARROWER = {"width 0.7": [22, 45, 90], "width 0.5": [16, 32, 64]}


def train(recipe: str, folder: Path, seed: int, *options: str) -> dict[str, Any]:
    """Train a recipe in a folder, unless that is done, and return its metrics."""
    metrics = folder / "metrics.json"
    if not metrics.exists():
        quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
        config = ["--config", str(RECIPES / recipe), f"--seed_everything={seed}"]
        fit([*config, "--out", str(folder), "--resume", *quiet, *options])
    content: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return content


def row(name: str, seed: int, folder: Path, data: Sequence[str]) -> dict[str, Any]:
    """Fold the network of a run, export it, and say what it is worth."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    finished = chosen(folder, args=data)
    network, samples = finished.network, finished.samples
    plain, report = sizeless.fold(network, samples[:1])
    # The folded network is the same function: its accuracy is that of the run.
    if report.error is None or report.error > 1e-4:
        raise SystemExit(f"{folder}: folding changed the network's output by {report.error}")
    exported = to_onnx(plain, samples[:1], folder / "model.onnx")
    learned = ["x".join(f"{size:.3g}" for size in change.size_before) for change in report.changes]
    return {
        "network": name,
        "seed": seed,
        "test/accuracy": metrics["test/accuracy"],
        "macs": int(sizeless.cost(plain, samples[:1]).macs),
        "onnx_ms": round(exported.ms, 4),
        "parameters": sum(parameter.numel() for parameter in plain.parameters()),
        "sizes": " ".join(learned),
    }


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what is not ours goes to every run, as --data.init_args.root DIR."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="in all")
    parser.add_argument("--share", type=float, default=0.5, help="of the multiply-accumulates")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_known_args()


def main() -> None:
    """Train all networks, and write the table."""
    options, data = arguments()
    half, whole = (f"--trainer.max_epochs={n}" for n in (options.epochs // 2, options.epochs))
    rows = []
    for seed in range(options.seeds):
        start = options.out / f"start-{seed}"
        train("fashion_resnet.yaml", start, seed, half, *data)
        runs = {"ordinary": ("fashion_resnet.yaml", [whole])}
        for name, widths in NARROWER.items():
            width = f"--model.network.init_args.widths={widths}"
            runs[name] = ("fashion_resnet.yaml", [whole, width])
        train("fashion_resnet.yaml", options.out / f"ordinary-{seed}", seed, whole, *data)
        row_of_ordinary = row("ordinary", seed, options.out / f"ordinary-{seed}", data)
        limit = f"--model.budget.limit={options.share * row_of_ordinary['macs']}"
        checkpoint = f"--model.network.init_args.checkpoint={start}"
        runs["converted"] = ("convert.yaml", [half, checkpoint, limit])
        for name, (recipe, own) in runs.items():
            folder = options.out / f"{name.replace(' ', '-')}-{seed}"
            train(recipe, folder, seed, *own, *data)
            rows.append(row(name, seed, folder, data))
        write(options.out / "shrink.csv", rows)
    for name in dict.fromkeys(entry["network"] for entry in rows):
        own_rows = [entry for entry in rows if entry["network"] == name]
        means = {
            key: sum(float(entry[key]) for entry in own_rows) / len(own_rows)
            for key in ("test/accuracy", "macs", "onnx_ms")
        }
        print(
            f"{name:10} accuracy {means['test/accuracy']:.4f}, {means['macs'] / 1e6:.2f} M "
            f"multiply-accumulates, {means['onnx_ms']:.3f} ms in ONNX Runtime"
        )


if __name__ == "__main__":
    main()
