"""What a run does beside the steps: write sizes, keep them in their limits, save and restore."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor, distributed, nn

from sizeless.cost import cost
from sizeless.penalties import aliasing_margins
from sizeless.sizes import project_sizes_, refresh_sizes, sizes
from sizeless.train.folder import RunFolder
from sizeless.trajectories import (
    CostPoint,
    SizePoint,
    read_costs,
    read_points,
    snapshot,
    write_costs,
    write_points,
)

MOST_SHOWN = 8
"""Layers whose sizes a progress bar has room for."""


class SizeLog(Callback):
    """Write the learned sizes to a CSV file and to the loggers, at the start and after each epoch.

    The multiply-accumulates of one sample go to ``costs.csv`` beside it, unless the network has no
    layer that is counted. Loggers get the sizes and the centres of windows as often as the trainer
    logs, and after each epoch the aliasing margins and the multiply-accumulates. A resumed run
    keeps the rows up to its first step and drops what a lost epoch left behind it.

    Args:
        path: The file; see ``sizeless.trajectories.SizePoint`` for its columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.costs_path = RunFolder(path.parent).costs
        self.points: list[SizePoint] = []
        self.costs: list[CostPoint] = []
        self.example: Tensor | None = None
        self.macs = math.nan

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the rows of the part already trained, or write the sizes at the start."""
        step = trainer.global_step
        kept = read_points(self.path) if step and self.path.exists() else []
        self.points = [point for point in kept if point.step <= step]
        costs = read_costs(self.costs_path) if step and self.costs_path.exists() else []
        self.costs = [row for row in costs if row.step <= step]
        if not self.points:
            self._add(trainer, pl_module, trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep one sample to count the network's cost with, and count it before the first step."""
        if self.example is None:
            self.example = batch[0][:1].detach().clone()
            if not self.costs:
                self._add_cost(trainer, pl_module, trainer.current_epoch)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the sizes where the trainer logs."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        step = trainer.global_step
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.loggers and every and stepped and step % every == 0:
            network = pl_module.get_submodule("network")
            now = size_metrics(snapshot(network, epoch=trainer.current_epoch, step=step))
            for logger in trainer.loggers:
                logger.log_metrics(now, step=step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the sizes after this epoch."""
        self._add(trainer, pl_module, trainer.current_epoch + 1)

    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count what one sample costs at the sizes that are tested."""
        if batch_idx == 0:
            self.macs = _macs(pl_module.get_submodule("network"), batch[0][:1])

    def _add(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        network = pl_module.get_submodule("network")
        now = snapshot(network, epoch=epoch, step=trainer.global_step)
        self.points += now
        if trainer.is_global_zero:
            write_points(self.path, self.points)
        macs = self._add_cost(trainer, pl_module, epoch)
        if trainer.loggers:
            values = size_metrics(now)
            values |= {f"alias/{_path(k)}": m for k, m in aliasing_margins(network).items()}
            if macs is not None:
                values["macs"] = macs
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def _add_cost(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int
    ) -> float | None:
        """Add what the network costs now, and return it; None before there is a sample."""
        if self.example is None:
            return None
        # In all processes: what a sharded network computes, it computes together.
        macs = _macs(pl_module.get_submodule("network"), self.example)
        if not math.isnan(macs):
            self.costs.append(CostPoint(epoch, trainer.global_step, macs))
            if trainer.is_global_zero:
                write_costs(self.costs_path, self.costs)
        return macs


def _macs(network: nn.Module, example: Tensor) -> float:
    """Multiply-accumulates of one sample; NaN for a network with no layer that is counted."""
    with torch.no_grad():
        try:
            return float(cost(network, example).macs)
        except ValueError:
            return math.nan


def size_metrics(points: Sequence[SizePoint]) -> dict[str, float]:
    """Return sizes and centres by name, as loggers take them.

    Examples:
        >>> import sizeless
        >>> size_metrics(snapshot(sizeless.FlexConv1d(1, 1, kernel_size=33, init_size=5)))
        {'size/0': 5.0, 'center/0': 0.0}
    """
    metrics = {}
    for point in points:
        key = "/".join(part for part in (_path(point.name), str(point.axis)) if part)
        metrics[f"size/{key}"] = point.size
        if point.center is not None:
            metrics[f"center/{key}"] = point.center
    return metrics


def _path(name: str) -> str:
    return name.replace(".", "/")


class SizeBar(RichProgressBar):
    """Progress bar that says the sizes the network has now."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
        """Add the sizes to the metrics shown."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        shown = [_shown(row.size) for row in sizes(pl_module.get_submodule("network")) if row.size]
        if shown:
            metrics["sizes"] = " ".join(shown[:MOST_SHOWN]) + (" …" * (len(shown) > MOST_SHOWN))
        return metrics


def _shown(size: Sequence[float]) -> str:
    return "×".join(f"{value:.3g}" for value in size)


class KeepLimits(Callback):
    """Bring sizes back into their limits after every step: none drifts while it leans on one."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Project all sizes, and let a compiled network follow them."""
        project_sizes_(pl_module)
        if getattr(pl_module, "compiled", False):
            refresh_sizes(pl_module.get_submodule("network"))


class RandomState(Callback):
    """Keep torch's random states in the checkpoint, so that a resumed run draws the same numbers.

    Those of all processes: they draw differently, where their shares of a batch differ.
    """

    def __init__(self) -> None:
        self.restored: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the CPU and of every GPU, for each process."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        mine = {"cpu": torch.get_rng_state(), "cuda": cuda}
        if not (distributed.is_available() and distributed.is_initialized()):
            return {"processes": [mine]}
        every: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(every, mine)
        return {"processes": every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts; what comes before draws numbers too."""
        self.restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the states of a resumed run."""
        if not self.restored:
            return
        # A checkpoint of before has those of one process alone.
        processes = self.restored.get("processes", [self.restored])
        if trainer.global_rank >= len(processes):
            return
        mine = processes[trainer.global_rank]
        torch.set_rng_state(mine["cpu"].cpu())
        if len(mine["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in mine["cuda"]])


class StaysStopped(Callback):
    """Keep a run stopped that early stopping had ended before its last checkpoint was resumed."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the first step."""
        for callback in trainer.early_stopping_callbacks:
            if callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
                trainer.should_stop = True
