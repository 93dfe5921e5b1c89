"""Two processes are one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

import sizeless
from sizeless.train.checkpoints import SHARDED, UnreadableError, check_strategy
from sizeless.train.sharding import Sharded, check_callbacks, clip_gradients

SOURCE = Path(sizeless.__file__).parents[1]

RECIPE = """\
trainer:
  accelerator: cpu
  enable_progress_bar: false
  max_epochs: {epochs}
  gradient_clip_val: 0.5
  logger: false
model:
  network:
    class_path: unnormalised.Network
  lr: 0.005
  size_lr: 0.005
data:
  class_path: sizeless.train.data.Digits
  init_args: {{batch_size: 130}}
"""

NETWORK = """\
from torch import nn

from sizeless import DiffStride2d, FlexConv2d
from sizeless.train import sharding

sharding.LEAST = 100


class Network(nn.Sequential):
    # BatchNorm would see half a batch in each process.
    def __init__(self):
        super().__init__(
            FlexConv2d(1, 6, 9, init_size=3), nn.GroupNorm(2, 6), nn.ReLU(),
            DiffStride2d(1.5, size_rule="exact"), FlexConv2d(6, 8, 5), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
        )


class Noisy(nn.Sequential):
    def __init__(self):
        super().__init__(
            FlexConv2d(1, 6, 9, init_size=3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10),
        )
"""


STRATEGIES = ["ddp", "sharded"]


def run(tmp_path, name, processes, epochs, strategy="auto", *options):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(epochs=epochs))
    (tmp_path / "unnormalised.py").write_text(NETWORK)
    out = tmp_path / name
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", "-m"]
    command += ["sizeless", "fit", "--config", str(recipe), "--out", str(out)]
    command += ["--trainer.devices", str(processes), "--trainer.strategy", strategy]
    command += options
    environment = os.environ | {"PYTHONPATH": f"{SOURCE}:{tmp_path}", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    metrics = json.loads((out / "metrics.json").read_text())
    return state["global_step"], state["state_dict"], metrics, (out / "sizes.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_reproduce_one_with_the_same_global_batch(tmp_path, strategy):
    steps, alone, metrics, sizes = run(tmp_path, "one", 1, 5)
    others = run(tmp_path, "two", 2, 5, strategy)
    assert steps == others[0] == 50
    for name, value in alone.items():
        torch.testing.assert_close(others[1][name], value, rtol=1e-5, atol=1e-5)
    assert others[2]["test/accuracy"] == pytest.approx(metrics["test/accuracy"], abs=0.003)
    assert others[2]["val/loss"] == pytest.approx(metrics["val/loss"], abs=1e-4)
    columns = [[row.split(",")[:7] for row in text.splitlines()] for text in (sizes, others[3])]
    assert columns[0] == columns[1]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_of_two_processes_goes_on_as_if_it_had_not_stopped(tmp_path, strategy):
    """Each with random numbers of its own, and shares of a batch that are not equal."""
    options = ["--model.schedule=constant", "--model.warmup=0", "--data.init_args.batch_size=131"]
    options += ["--model.network=unnormalised.Noisy"]
    _, whole, _, _ = run(tmp_path, "whole", 2, 3, strategy, *options)
    run(tmp_path, "parts", 2, 2, strategy, *options)
    _, parts, _, _ = run(tmp_path, "parts", 2, 3, strategy, *options, "--resume")
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_two_processes_keep_the_budget_that_one_keeps(tmp_path):
    options = ["--model.budget.share=0.4", "--model.size_lr=0.02"]
    _, alone, metrics, _ = run(tmp_path, "one", 1, 5, "auto", *options)
    _, both, others, _ = run(tmp_path, "two", 2, 5, "ddp", *options)
    assert metrics["test/cost_share"] < 0.9
    assert others["test/cost_share"] == metrics["test/cost_share"]
    assert others["budget_met"] == metrics["budget_met"]
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, rtol=1e-5, atol=1e-5)
    budgets = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["budget"]
        for name in ("one", "two")
    ]
    assert budgets[0] == budgets[1]


@pytest.mark.parametrize("limit", [0.1, 100.0])
def test_gradients_are_clipped_as_torch_clips_them(limit):
    layers = [nn.Linear(3, 2), nn.Linear(3, 2)]
    for layer in layers:
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        clip = clip_gradients if layer is layers[0] else nn.utils.clip_grad_norm_
        clip(layer.parameters(), limit, *(["norm"] if layer is layers[0] else []))
    for mine, theirs in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    clip_gradients(layers[0].parameters(), 0.01, "value")
    assert all((p.grad <= 0.01).all() for p in layers[0].parameters())


@pytest.mark.parametrize("marked", [{}, {SHARDED: False}])
def test_an_optimiser_that_was_whole_does_not_go_on_in_shards(marked):
    trainer = SimpleNamespace(strategy=Sharded())
    with pytest.raises(UnreadableError, match=r"cannot go on in shards.*--start_from"):
        check_strategy(Path("last.ckpt"), marked, trainer)
    check_strategy(Path("last.ckpt"), {SHARDED: True}, trainer)
    check_strategy(Path("last.ckpt"), marked, SimpleNamespace(strategy=None))


def test_averages_of_weights_and_shards_exclude_each_other():
    trainer = SimpleNamespace(strategy=Sharded(), callbacks=[EMAWeightAveraging()])
    with pytest.raises(ValueError, match=r"EMAWeightAveraging .*: leave one of them out"):
        check_callbacks(trainer)
    check_callbacks(SimpleNamespace(strategy=None, callbacks=[EMAWeightAveraging()]))
