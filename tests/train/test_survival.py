"""A run that stops at any moment goes on as if it had not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sizeless
from sizeless.train.callbacks import KeepLimits
from sizeless.train.run import RunError, fit
from sizeless.train.run import test as rerun_test

STEPS = 4
"""Optimiser steps of an epoch of the small recipe here."""


@pytest.fixture
def args(recipe):
    """Arguments of a run with a checkpoint after every step."""
    recipe.write_text(
        recipe.read_text().replace("limit_train_batches: 2", f"limit_train_batches: {STEPS}")
    )
    return ["--config", str(recipe), "--checkpoint_every", "1"]


@pytest.fixture
def crash(monkeypatch):
    """Let a run fail at an optimiser step, before what is done after it."""
    original = KeepLimits.on_train_batch_end

    def at(step, how):
        def fail(self, trainer, *rest):
            if trainer.global_step == step:
                how()
            original(self, trainer, *rest)

        monkeypatch.setattr(KeepLimits, "on_train_batch_end", fail)

    def heal():
        monkeypatch.setattr(KeepLimits, "on_train_batch_end", original)

    at.heal = heal
    return at


def power_cut():
    raise OSError("power cut")


def ending(folder):
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    budget = state.get("budget"), best.get("budget")
    tables = [(folder / name).read_text() for name in ("sizes.csv", "costs.csv")]
    return state["state_dict"], best["state_dict"], tables, budget


def assert_equal_endings(one, two):
    for first, second in zip(ending(one)[:2], ending(two)[:2], strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
    assert ending(one)[2:] == ending(two)[2:]


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if name != "seconds"}


EXTRAS = {
    "plain": (),
    "plateau": ("--model.schedule", "plateau"),
    "average": (
        "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging",
        "--trainer.callbacks.decay=0.9",
    ),
    "accumulation": ("--trainer.accumulate_grad_batches", "2"),
    "half precision": ("--trainer.precision", "bf16-mixed"),
    "budget": ("--model.budget.share=0.5",),
    "average within a budget": (
        "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging",
        "--trainer.callbacks.decay=0.9",
        "--model.budget.share=0.5",
    ),
    "accumulation within a budget": (
        "--trainer.accumulate_grad_batches=2",
        "--model.budget.share=0.5",
    ),
    "early stopping": (
        "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
        "--trainer.callbacks.monitor=val/accuracy",
        "--trainer.callbacks.mode=max",
        "--trainer.callbacks.patience=2",
    ),
}


@pytest.mark.parametrize(
    ("step", "extra"),
    [
        *((step, "plain") for step in (2, 4, 5, 7, 8)),
        (6, "plateau"),
        (6, "average"),
        (3, "accumulation"),
        (6, "half precision"),
        (6, "early stopping"),
        *((step, "budget") for step in (3, 4, 5)),
        (6, "average within a budget"),
        (3, "accumulation within a budget"),
    ],
)
def test_a_run_cut_at_a_step_ends_like_one_that_was_not(args, tmp_path, crash, step, extra):
    args += EXTRAS[extra]
    whole = fit([*args, "--out", str(tmp_path / "whole")]).metrics
    crash(step, power_cut)
    with pytest.raises(OSError, match="power cut"):
        fit([*args, "--out", str(tmp_path / "cut")])
    crash.heal()
    resumed = fit(["--out", str(tmp_path / "cut"), "--resume"]).metrics
    assert without_clock(resumed) == without_clock(whole)
    assert_equal_endings(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("damage", ["torn", "foreign", "of another network", "missing"])
def test_the_checkpoint_before_serves_where_the_last_cannot(args, tmp_path, crash, damage):
    whole = fit([*args, "--out", str(tmp_path / "whole")]).metrics
    crash(7, power_cut)
    with pytest.raises(OSError, match="power cut"):
        fit([*args, "--out", str(tmp_path / "cut")])
    crash.heal()
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    if damage == "torn":
        last.write_bytes(last.read_bytes()[:-500])
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(2)}, last)
    elif damage == "of another network":
        state = torch.load(last, weights_only=True)
        torch.save(state | {"state_dict": {"network.0.weight": torch.zeros(2)}}, last)
    else:
        last.unlink()
    arguments = ["--out", str(tmp_path / "cut"), "--resume"]
    if damage == "missing":
        resumed = fit(arguments)
    else:
        with pytest.warns(UserWarning, match=r"last\.ckpt .*; going on from .*previous\.ckpt"):
            resumed = fit(arguments)
    assert without_clock(resumed.metrics) == without_clock(whole)
    assert_equal_endings(tmp_path / "whole", tmp_path / "cut")


def test_no_readable_checkpoint_is_one_line(args, tmp_path):
    fit([*args, "--out", str(tmp_path / "a"), "--trainer.max_epochs", "1"])
    files = [tmp_path / "a" / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous")]
    for file in files:
        file.write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match=r"last\.ckpt cannot be read.*previous\.ckpt cannot") as one:
        fit(["--out", str(tmp_path / "a"), "--resume"])
    assert "\n" not in str(one.value)
    assert [file.read_bytes() for file in files] == [b"no checkpoint"] * 2


def test_nothing_to_read_is_nothing_to_resume(args, tmp_path):
    fit([*args, "--out", str(tmp_path / "a"), "--resume", "--trainer.max_epochs", "1"])
    assert (tmp_path / "a" / "metrics.json").exists()


def test_a_run_that_is_asked_to_stop_saves_first(args, tmp_path, crash):
    args[-1] = "0"
    whole = fit([*args, "--out", str(tmp_path / "whole")]).metrics
    crash(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        fit([*args, "--out", str(tmp_path / "cut")])
    crash.heal()
    last = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6
    resumed = fit(["--out", str(tmp_path / "cut"), "--resume"]).metrics
    assert without_clock(resumed) == without_clock(whole)
    assert_equal_endings(tmp_path / "whole", tmp_path / "cut")


def test_what_validation_chose_is_tested(args, tmp_path):
    """The average of the weights, and not the weights behind it."""
    folder = tmp_path / "a"
    fitted = fit([*args, *EXTRAS["average"], "--out", str(folder)]).metrics
    assert rerun_test([str(folder)]).metrics == fitted


def test_a_run_that_early_stopping_ended_stays_ended(args, tmp_path):
    args += [*EXTRAS["early stopping"], "--trainer.callbacks.patience=1", "--model.lr=1e-9"]
    args += ["--model.size_lr=0", "--trainer.max_epochs=9"]
    first = fit([*args, "--out", str(tmp_path / "a")]).metrics
    assert first["epochs"] == 2
    again = fit(["--out", str(tmp_path / "a"), "--resume"]).metrics
    assert without_clock(again) == without_clock(first)


def test_patience_of_0_does_not_end_a_run_before_it_begins(args, tmp_path):
    extra = [*EXTRAS["early stopping"], "--trainer.callbacks.patience=0"]
    assert fit([*args, *extra, "--out", str(tmp_path / "a")]).metrics["epochs"] >= 1


def test_another_rate_is_taken_by_a_run_that_goes_on(args, tmp_path):
    folder = tmp_path / "a"
    fit([*args, "--out", str(folder), "--trainer.max_epochs=1"])
    before = ending(folder)[0]
    fit(["--out", str(folder), "--resume", "--trainer.max_epochs=2", "--model.lr=1e-30"])
    moved = {
        name for name, value in ending(folder)[0].items() if not torch.equal(value, before[name])
    }
    assert moved
    assert not any(name.endswith("weight") for name in moved)


@pytest.mark.slow
def test_a_run_killed_at_ten_moments_ends_like_one_that_was_not(args, tmp_path):
    args = [sys.executable, "-m", "sizeless", "fit", *args, "--trainer.max_epochs", "4"]
    environment = os.environ | {"PYTHONPATH": str(Path(sizeless.__file__).parents[1])}
    started = time.monotonic()
    subprocess.run([*args, "--out", str(tmp_path / "whole")], check=True, env=environment)
    seconds = time.monotonic() - started
    chance = random.Random(0)
    for number in range(10):
        folder = tmp_path / f"cut{number}"
        command = [*args, "--out", str(folder), "--resume"]
        process = subprocess.Popen(command, env=environment)
        time.sleep(seconds * chance.uniform(0.3, 0.95))
        process.kill()
        process.wait()
        subprocess.run(command, check=True, env=environment)
        assert_equal_endings(tmp_path / "whole", folder)
        metrics = [
            json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "whole", folder)
        ]
        assert without_clock(metrics[0]) == without_clock(metrics[1])
