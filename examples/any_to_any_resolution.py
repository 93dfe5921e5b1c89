"""From any resolution to any other: a network trained at each, tested at all.

    pip install 'sizeless[train]'
    python examples/any_to_any_resolution.py --recipe recipes/digits_flexnet.yaml \
        --sizes 8 12 16 --seeds 0 1 2 --out runs/resolutions --model.aliasing_weight=0.1

The largest kernel has one sample more than the image, as in FlexConv's experiments, and is
rendered anew at the resolution of the test. OUT/resolutions.csv and OUT/resolutions.png hold the
accuracies and how far they are from those at the network's own resolution. Runs that are there
already are not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sizeless.study import resolution_map
from sizeless.train.run import fit, test


def train(recipe: Path, folder: Path, size: int, seed: int, options: Sequence[str]) -> None:
    """Train a recipe on images of a size, unless that is done."""
    if (folder / "metrics.json").exists():
        return
    given = [
        f"--data.init_args.size={size}",
        f"--model.network.init_args.kernel_size={size + 1 + size % 2}",
        f"--seed_everything={seed}",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    ]
    fit(["--config", str(recipe), "--out", str(folder), "--resume", *given, *options])


def main() -> None:
    """Train, test, and write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 12, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True)
    own, options = parser.parse_known_args()
    folders = []
    for seed in own.seeds:
        for size in own.sizes:
            folder = own.out / f"{size}px-{seed}"
            train(own.recipe, folder, size, seed, options)
            for other in own.sizes:
                if other != size and not (folder / f"metrics-{other}.json").exists():
                    test([str(folder), "--resolution", str(other)])
            folders.append(folder)
    found = resolution_map(folders)
    found.save(own.out)
    print(found.caption())


if __name__ == "__main__":
    main()
