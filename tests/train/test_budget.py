"""Runs that are trained within a budget."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
import torch

import sizeless
from sizeless.train.budget import BudgetOptions, RunBudget
from sizeless.train.checkpoints import Checkpoints
from sizeless.train.run import RunError, fit
from sizeless.train.run import test as rerun_test

SAMPLES = torch.zeros(1, 1, 8, 8)
LOOSE, TIGHT = "--model.budget.share=1.2", "--model.budget.share=0.1"


@pytest.fixture
def run(recipe, tmp_path):
    def start(name, *args):
        return fit(["--config", str(recipe), "--out", str(tmp_path / name), *args])

    return start


def whole_of(folder):
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    return state["budget"]["whole"]


@pytest.mark.parametrize(("budget", "met"), [(LOOSE, True), (TIGHT, False)])
def test_metrics_say_what_share_is_left_and_whether_the_budget_is_met(run, tmp_path, budget, met):
    metrics = run("a", budget).metrics
    assert json.loads((tmp_path / "a" / "metrics.json").read_text()) == metrics
    assert metrics["budget_met"] is met
    share = metrics["macs"] / whole_of(tmp_path / "a")
    assert metrics["test/cost_share"] == metrics["val/cost_share"] == pytest.approx(share)
    assert rerun_test([str(tmp_path / "a")]).metrics == metrics


def test_a_run_without_a_budget_tells_of_none(run, tmp_path):
    metrics = run("a").metrics
    assert not [name for name in metrics if "budget" in name or "share" in name]
    state = torch.load(tmp_path / "a" / "checkpoints" / "last.ckpt", weights_only=True)
    assert "budget" not in state


def test_share_and_multiplier_are_logged(run, tmp_path):
    run("a", TIGHT, "--trainer.log_every_n_steps=1")
    (path,) = (tmp_path / "a" / "logs" / "csv").rglob("metrics.csv")
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/multiplier"]]
    multipliers = [float(row["train/multiplier"]) for row in rows]
    assert len(rows) == 4
    assert float(rows[0]["train/cost_share"]) == 1.0
    assert multipliers[0] == 0
    assert multipliers == sorted(multipliers)
    # One step at ten times the limit.
    assert multipliers[1] == pytest.approx(0.01 * 9)


def test_a_budget_makes_a_network_cheaper(run):
    options = ("--trainer.limit_train_batches=12", "--model.size_lr=0.1")
    kernels = "--model.network.init_args.init_size=5"
    free = run("free", kernels, "--model.budget.share=9", *options).metrics
    kept = run("kept", kernels, "--model.budget.share=0.6", *options).metrics
    assert kept["test/cost_share"] < 0.75 < free["test/cost_share"]


def test_another_resolution_has_no_budget(run, tmp_path):
    run("a", "--data.init_args.size=8", LOOSE, "--trainer.max_epochs=1")
    finer = rerun_test([str(tmp_path / "a"), "--resolution", "16"]).metrics
    assert "budget_met" not in finer
    assert "test/cost_share" not in finer


def test_accumulated_batches_move_the_multiplier_once(run, tmp_path):
    run("a", TIGHT, "--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=1")
    state = torch.load(tmp_path / "a" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 1
    assert state["budget"]["multiplier"] == pytest.approx(0.01 * 9)


def test_a_state_that_comes_before_the_first_batch_is_kept():
    budget = RunBudget(BudgetOptions(share=0.5))
    assert not budget.is_known
    assert budget.state_dict() == {}
    state = {"multiplier": 0.25, "whole": 12.0}
    budget.load_state_dict(state)
    assert budget.is_known
    assert budget.state_dict() == state
    made = budget.of(sizeless.FlexConv2d(1, 1, 3), SAMPLES)
    assert (made.multiplier, made.limit) == (0.25, 6.0)
    budget.load_state_dict({"multiplier": 0.5, "whole": 24.0})
    assert (made.multiplier, made.limit) == (0.5, 12.0)


def test_the_checkpoint_chosen_is_within_the_budget_where_one_is(tmp_path):
    epochs = [(0.9, 0.5), (0.8, 0.2), (0.5, 0.0), (0.7, 0.0), (0.6, 0.0), (0.95, 0.01)]
    checkpoints = Checkpoints(*(tmp_path / name for name in ("best", "last", "previous")))
    chosen = []
    for number, (accuracy, over) in enumerate(epochs):
        trainer = SimpleNamespace(
            callback_metrics={"val/accuracy": torch.tensor(accuracy)},
            current_epoch=number,
            is_global_zero=True,
            save_checkpoint=lambda _: None,
        )
        checkpoints.on_train_epoch_end(trainer, SimpleNamespace(over_budget=over))
        again = Checkpoints(*(tmp_path / name for name in ("best", "last", "previous")))
        again.load_state_dict(checkpoints.state_dict())
        checkpoints = again
        chosen.append(checkpoints.epoch)
    assert chosen == [1, 2, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.budget.share=0"], "share must be a finite number above 0, got 0"),
        (["--model.budget.form=penalty"], "give either share or limit, got share=None"),
        ([LOOSE, "--model.budget.limit=5"], "give either share or limit, got share=1.2 and limit"),
        ([LOOSE, "--model.budget.quantity=flops"], "'macs', 'bytes' or 'latency', got 'flops'"),
        ([LOOSE, "--model.budget.weight=-1"], "weight must be a finite number above 0, got -1"),
        ([LOOSE, "--model.budget.shar=1"], "Option 'shar' is not accepted"),
    ],
)
def test_a_wrong_budget_is_one_line(run, tmp_path, args, message):
    with pytest.raises(RunError) as caught:
        run("a", *args)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()
