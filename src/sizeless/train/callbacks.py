"""What a run does beside the steps: write sizes, keep them in their limits, save and restore."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from sizeless._files import write_atomically
from sizeless.sizes import project_sizes_
from sizeless.trajectories import SizePoint, read_points, snapshot, write_points


class SizeLog(Callback):
    """Write the learned sizes to a CSV file, before training and after every epoch.

    A resumed run keeps the rows up to its first step and drops what a lost epoch left behind it.

    Args:
        path: The file; see ``sizeless.study.trajectories.SizePoint`` for its columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.points: list[SizePoint] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the rows of the part already trained, or write the sizes at the start."""
        step = trainer.global_step
        kept = read_points(self.path) if step and self.path.exists() else []
        self.points = [point for point in kept if point.step <= step]
        if not any(point.step == step for point in self.points):
            self._add(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the sizes after this epoch."""
        self._add(trainer, pl_module, trainer.current_epoch + 1)

    def _add(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        network = pl_module.get_submodule("network")
        self.points += snapshot(network, epoch=epoch, step=trainer.global_step)
        if trainer.is_global_zero:
            write_points(self.path, self.points)


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
        """Project all sizes."""
        project_sizes_(pl_module)


class RandomState(Callback):
    """Keep torch's random state in the checkpoint, so that a resumed run draws the same numbers."""

    def __init__(self) -> None:
        self.restored: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the CPU and of every GPU."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts; what comes before draws numbers too."""
        self.restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the states of a resumed run."""
        if self.restored:
            torch.set_rng_state(self.restored["cpu"].cpu())
            if len(self.restored["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self.restored["cuda"]])


class BestAndLast(Checkpoint):
    """Save the checkpoint with the best validation metric, and the last one, after every epoch.

    Of equal metrics the later wins. Paths are no part of the state: a run folder may be moved.

    Args:
        best: File of the best checkpoint.
        last: File of the last checkpoint.
        monitor: Name of the metric; larger is better.
    """

    def __init__(self, best: Path, last: Path, monitor: str = "val/accuracy") -> None:
        self.best = best
        self.last = last
        self.monitor = monitor
        self.epoch = 0
        self.metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch, counted from 1, and its validation metrics."""
        return {"epoch": self.epoch, "metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch and its validation metrics."""
        self.epoch = state_dict["epoch"]
        self.metrics = dict(state_dict["metrics"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what this epoch earned; its validation is done by now."""
        room = self.monitor.split("/")[0] + "/"
        now = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(room)
        }
        if self.monitor in now and now[self.monitor] >= self.metrics.get(self.monitor, -math.inf):
            self.epoch = trainer.current_epoch + 1
            self.metrics = now
            trainer.save_checkpoint(self.best)
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
