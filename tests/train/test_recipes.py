"""Every recipe starts, trains, checkpoints, goes on and is tested, on tiny files of its data."""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path

import mnist1d.data
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from sizeless.cli import main
from sizeless.train.callbacks import SizeLog
from sizeless.trajectories import read_points

from .tiny_data import data_arguments

RECIPES = {path.stem: path for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml")}
SHORT = [
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=2",
    *(f"--trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")),
]
STARTS_FROM = {
    "cifar10_32px_from_16px": "cifar10_16px_flexnet7",
    "imagenet32_from_16px": "imagenet16_flexnet5",
}


def kernels(size):
    return [f"--model.network.init_args.kernel_size={size}"]


def sized(size, kernel_size=None):
    return [f"--data.size={size}", *(kernels(kernel_size) if kernel_size else [])]


SMALLER = {
    "cifar100_diffstride_resnet18": sized(16),
    "cifar10_16px_flexnet7": sized(8, 9),
    "cifar10_32px_from_16px": sized(16, 9),
    "cifar10_ccnn4": sized(16, 17),
    "cifar10_flexnet3": sized(16, 17),
    "cifar10_flexnet7_siren": sized(8, 9),
    "cifar10_niff_resnet18": sized(16),
    "fashion_flexnet3": sized(12, 13),
    "fashion_niff_resnet18": sized(28),
    "imagenet100_niff_mobilenet_v2": sized(64),
    "imagenet16_flexnet5": sized(8, 9),
    "imagenet32_flexnet5": sized(8, 9),
    "imagenet32_from_16px": sized(16, 9),
    "mnist5000_flextcn2": sized(14, 196),
    "npcifar10_flextcn6": ["--data.length=100", *kernels(100)],
    "smnist_flextcn6": sized(14, 196),
    "speech_raw_flextcn6": ["--data.stride=40", *kernels(400)],
    "stl10_flexnet7": sized(16, 17),
    "stl10_resnet18": sized(32),
}
"""What makes a recipe quick: fewer pixels or samples, and kernels to match."""

SLOW = {
    "cifar10_16px_flexnet7",
    "cifar10_diffstride_resnet18",
    "cifar10_flexnet5",
    "cifar10_flexnet7",
    "cifar10_flexnet7_ckconv",
    "cifar10_spectral_resnet18",
    "cifar10_strided_resnet18",
    "imagenet100_niff_convnext_tiny",
    "imagenet100_niff_densenet121",
    "imagenet100_niff_resnet50",
    "imagenet16_flexnet5",
    "imagenet_diffstride_resnet18",
    "imagenet_niff_resnet50",
    "mnist_flexnet7",
    "pmnist_flextcn6",
    "scifar10_flextcn6",
}
"""Recipes that have family and data in common with quicker ones."""

NOTHING_LEARNED = {
    "cifar10_flexnet7_conv3",
    "cifar10_spectral_resnet18",
    "cifar10_strided_resnet18",
    "digits_plain",
    "fashion_resnet",
    "japanese_vowels_plain",
    "mnist1d_plain",
    "stl10_resnet18",
}
"""Recipes of networks whose sizes are fixed: the baselines."""

CASES = [
    *(pytest.param(name, SMALLER.get(name, []), id=name) for name in sorted({*RECIPES} - SLOW)),
    *(
        pytest.param(name, [], id=f"{name}, as it is", marks=pytest.mark.slow)
        for name in sorted(SLOW | SMALLER.keys())
    ),
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def refuse(host, *args, **kwargs):
        raise AssertionError(f"a recipe asked the network for {host}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _one_mnist1d(monkeypatch):
    """Make MNIST-1D once: it takes seconds, and is always the same."""
    monkeypatch.setattr(mnist1d.data, "make_dataset", lambda _: _mnist1d())


@functools.cache
def _mnist1d(make=mnist1d.data.make_dataset):
    return make(mnist1d.data.get_dataset_args())


@pytest.fixture(autouse=True)
def _classes_are_those_of_the_data(monkeypatch):
    """Check that the last layer has an output for each class of the data."""

    def check(self, trainer, pl_module):
        check_outputs(pl_module.network, trainer.datamodule.num_classes)

    monkeypatch.setattr(SizeLog, "on_fit_start", check, raising=False)


def check_outputs(network, classes):
    *_, bias = network.parameters()
    assert len(bias) == (classes if isinstance(classes, int) else classes[-1])


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Run a recipe in epochs of one step, on tiny files."""

    def run(name, folder, epochs, *arguments):
        data = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))["data"]
        kind, options = data["class_path"].rpartition(".")[2], data.get("init_args", {})
        given = [*SHORT, *data_arguments(kind, options, tmp_path / kind, monkeypatch), *arguments]
        if "workers" in options:
            given.append("--data.workers=0")
        if "train_samples" in options:
            given.append("--data.train_samples=100")
        config = ("--config", RECIPES[name], "--out", folder)
        return fit(*config, f"--trainer.max_epochs={epochs}", *given)

    return run


def fit(*arguments):
    return main(["fit", *map(str, arguments)])


def weights_after(folder, name, epochs):
    """Check the sizes and the checkpoint that these epochs have left, and return its weights."""
    logged = {point.epoch for point in read_points(folder / "sizes.csv")}
    # Frequency filters have no size before they have seen a map.
    assert logged - {0} == (set() if name in NOTHING_LEARNED else {*range(1, epochs + 1)})
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (epochs - 1, epochs)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    return {key: value for key, value in checkpoint["state_dict"].items() if "weight" in key}


def checked_metrics(folder):
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["epochs"] == 2
    assert metrics["epoch"] in {1, 2}
    assert all(0 <= metrics[f"{part}/accuracy"] <= 1 for part in ("val", "test"))
    assert all(math.isfinite(metrics[f"{part}/loss"]) for part in ("val", "test"))
    return metrics


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_every_recipe_trains_goes_on_and_is_tested(
    name, arguments, start, power_cut, tmp_path, capsys
):
    folder = tmp_path / "run"
    if name in STARTS_FROM:
        other, place = STARTS_FROM[name], tmp_path / "other"
        assert start(other, place, 1, *(SMALLER[other] if arguments else [])) == 0
        arguments = [*arguments, f"--start_from={place}"]
    power_cut(1)
    with pytest.raises(OSError, match="power cut"):
        start(name, folder, 2, *arguments)
    first = weights_after(folder, name, epochs=1)
    power_cut(-1)
    capsys.readouterr()
    assert fit("--out", folder, "--resume") == 0
    second = weights_after(folder, name, epochs=2)
    assert any(not torch.equal(first[key], second[key]) for key in first), "nothing was learned"
    assert (folder / "sizes.png").stat().st_size > 1000
    metrics = checked_metrics(folder)
    assert main(["test", str(folder)]) == 0
    assert checked_metrics(folder) == metrics
    printed = capsys.readouterr()
    assert printed.out.count(f"Test accuracy {metrics['test/accuracy']:.4f}") == 2
    assert printed.err == ""


def rows_with_keys():
    """Return each recipe and its keys in the tables of what was not run."""
    results = Path(__file__).parents[2] / "docs" / "results.md"
    tables = results.read_text(encoding="utf-8").partition("## Not run")[2]
    rows = re.findall(r"^\| ([^|]+) \| `(--[^|`]+)` \|", tables, re.MULTILINE)
    found = [(name, keys) for names, keys in rows for name in re.findall(r"`(\w+)`", names)]
    if not found:
        raise ValueError(f"{results} has no rows with keys any more: look for them elsewhere")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "keys"), rows_with_keys())
def test_the_keys_of_a_row_make_a_network(name, keys, start, tmp_path, monkeypatch, capsys):
    def built(self, model, datamodule, **others):
        check_outputs(model.network, datamodule.num_classes)
        raise FileNotFoundError("built")

    monkeypatch.setattr(Trainer, "fit", built)
    assert start(name, tmp_path / "run", 1, *keys.split()) == 2
    assert capsys.readouterr().err == "sizeless fit: built\n"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_flextcn_reaches_98_per_cent_on_mnist1d(tmp_path):
    accuracies = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        arguments = ["--out", folder, "--seed_everything", seed]
        assert fit("--config", RECIPES["mnist1d"], *arguments) == 0
        accuracies.append(json.loads((folder / "metrics.json").read_text())["test/accuracy"])
    assert sum(accuracies) / len(accuracies) >= 0.98, accuracies


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_flexnet", "digits_diffstride", "digits_niff"])
def test_digits_recipes_reach_97_per_cent(name, tmp_path):
    assert fit("--config", RECIPES[name], "--out", tmp_path) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test/accuracy"] >= 0.97
