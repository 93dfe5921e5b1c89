"""Checkpoints that survive: written whole, one before the last kept, read without running code."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from sizeless._files import write_atomically
from sizeless.train.sharding import Sharded

SHARDED = "sizeless_sharded"
"""Key of a checkpoint: whether it is of a run in shards."""

NEEDED = ("state_dict", "loops", "optimizer_states", "callbacks")
"""What a checkpoint of a run holds, among other things."""


class UnreadableError(Exception):
    """No checkpoint can be read; the message says why."""


class Checkpoints(Checkpoint):
    """Save the best checkpoint, and the last one after epochs, steps and a request to stop.

    Of equal metrics the later wins. A network within its budget is better than any beyond it, and
    of those beyond, the one that is least so. What was last before stays as ``previous`` until the
    next is complete. Paths are no part of the state: a run folder may be moved.

    Args:
        best: File of the best checkpoint.
        last: File of the last checkpoint.
        previous: File of the one before.
        every: Optimiser steps from one to the next; 0 saves after epochs alone.
        monitor: Name of the metric; larger is better.
    """

    def __init__(
        self,
        best: Path,
        last: Path,
        previous: Path,
        every: int = 0,
        monitor: str = "val/accuracy",
    ) -> None:
        self.best = best
        self.last = last
        self.previous = previous
        self.every = every
        self.monitor = monitor
        self.epoch = 0
        self.metrics: dict[str, float] = {}
        self.over_budget = math.inf

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch, counted from 1, and its validation metrics."""
        return {
            "epoch": self.epoch,
            "metrics": dict(self.metrics),
            "over_budget": self.over_budget,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch and its validation metrics."""
        self.epoch = state_dict["epoch"]
        self.metrics = dict(state_dict["metrics"])
        self.over_budget = state_dict.get("over_budget", 0.0)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say whether parameters are in the order of a sharded run."""
        checkpoint[SHARDED] = isinstance(trainer.strategy, Sharded)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where a step is due; not after an epoch's last, whose validation comes first."""
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = self.every and trainer.global_step % self.every == 0
        asked = trainer.received_sigterm
        if trainer.world_size > 1:
            # All processes save together, and the signal may reach them on either side of a step.
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if due or asked:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what this epoch earned; its validation is done by now."""
        room = self.monitor.split("/")[0] + "/"
        now = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(room)
        }
        over = float(getattr(pl_module, "over_budget", 0.0))
        best = self.metrics.get(self.monitor, -math.inf)
        if self.monitor in now and (-over, now[self.monitor]) >= (-self.over_budget, best):
            self.epoch = trainer.current_epoch + 1
            self.metrics, self.over_budget = now, over
            trainer.save_checkpoint(self.best)
        self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and self.last.exists():
            self.last.replace(self.previous)
        trainer.save_checkpoint(self.last)


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and load without running code.

    Lightning writes into the system's temporary folder, from where a move to another file system
    is a copy, and a crash meanwhile leaves half a checkpoint and none before it. Here the file is
    written beside its place and renamed. Loading takes tensors and plain values only.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` to the local file ``path``."""
        if storage_options is not None:
            raise TypeError(f"storage_options must be None, got {storage_options!r}")
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Return the checkpoint in the local file ``path``."""
        if weights_only is False:
            raise ValueError("weights_only must be True: checkpoints hold tensors and plain values")
        return dict(torch.load(path, map_location=map_location, weights_only=True))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the checkpoint of a run.

    Raises:
        UnreadableError: If the file is torn, or no checkpoint of a run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableError(f"{path} cannot be read: {reason}") from error
    if not isinstance(state, dict) or any(key not in state for key in NEEDED):
        raise UnreadableError(f"{path} is no checkpoint of a run: it must hold {', '.join(NEEDED)}")
    return state


def check_strategy(path: Path, state: dict[str, Any], trainer: pl.Trainer) -> None:
    """Raise if a strategy that shards would read the optimiser's state of one that does not.

    They count parameters in different orders.

    Raises:
        UnreadableError: If so.
    """
    sharded = isinstance(trainer.strategy, Sharded)
    if sharded and not state.get(SHARDED, False):
        raise UnreadableError(
            f"{path} is of a run that was not sharded, and its optimiser cannot go on in shards: "
            "go on without --trainer.strategy sharded, or begin with --start_from"
        )
