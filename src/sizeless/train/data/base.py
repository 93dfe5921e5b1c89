"""What all data sets share: splits, statistics, loaders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from sizeless._validate import int_at_least, positive_int
from sizeless.train.data.loading import (
    Augment,
    BatchOrder,
    Loader,
    Position,
    Samples,
    TensorSamples,
)

Split = tuple[Tensor, Tensor]
"""Inputs ``(N, C, *spatial)`` and targets ``(N,)``, or ``(N, tasks)`` with -1 for no label."""


class Splits(NamedTuple):
    """The three parts of a data set; training alone sees ``train``."""

    train: Samples
    validation: Samples
    test: Samples


class DataModule(pl.LightningDataModule):
    """Base of the data sets: loaders whose order follows the seed of the run and the epoch.

    A subclass has ``num_classes`` once it is made (a tuple for several tasks) and makes the
    splits.

    Args:
        batch_size: Samples in a batch, over all devices.
        validation: Part of the training set that is held out to choose the checkpoint.
        split_seed: Seed of the splits; separate from the seed of a run.
        workers: Processes that load batches; 0 loads them in the process that trains.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.
    """

    num_classes: int | tuple[int, ...] = 10

    def __init__(
        self, batch_size: int, validation: float = 0.1, split_seed: int = 0, workers: int = 0
    ) -> None:
        super().__init__()
        self.batch_size = positive_int("batch_size", batch_size)
        self.validation = part("validation", validation)
        self.split_seed = split_seed
        self.workers = int_at_least("workers", workers, 0)
        self.splits: Splits | None = None

    def make_splits(self) -> Splits:
        """Read or make the data; called once in each process."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Make the splits."""
        if self.splits is None:
            self.splits = self.make_splits()
            check_parts(type(self).__name__, [len(samples) for samples in self.splits])

    def train_dataloader(self) -> Loader:
        """Return shuffled training batches."""
        return self._loader("train", shuffled=True)

    def val_dataloader(self) -> Loader:
        """Return the held-out batches, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> Loader:
        """Return the test batches, in order."""
        return self._loader("test")

    def _loader(self, name: str, *, shuffled: bool = False) -> Loader:
        self.setup("")
        samples = getattr(self.splits, name)
        trainer = self.trainer
        if trainer is not None and trainer.world_size > self.batch_size:
            raise ValueError(
                f"batch_size must be at least the number of processes, {trainer.world_size}, got "
                f"{self.batch_size}: it is that of all of them together"
            )
        order = BatchOrder(
            len(samples),
            self.batch_size,
            self._position if shuffled else None,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        return Loader(samples, order, self.workers)

    def _position(self) -> Position:
        """Where training stands: what a resumed run has done of its epoch is not done again."""
        if self.trainer is None:
            return Position(torch.initial_seed(), 0)
        loop = self.trainer.fit_loop
        done = loop.epoch_loop.batch_progress.current.ready if loop.restarting else 0
        return Position(torch.initial_seed(), self.trainer.current_epoch, done)


class ArrayData(DataModule):
    """Base of the data sets that are held in memory; subclasses make the arrays.

    Inputs are standardised with the mean and the deviation of the training split, over all samples,
    channels and positions.

    Args:
        batch_size: Samples in a batch, over all devices.
        validation: Part of the training set that is held out to choose the checkpoint.
        split_seed: Seed of the splits; separate from the seed of a run.
    """

    augment: Augment | None = None

    def arrays(self) -> Sequence[Split]:
        """Return training (validation included) and test set; or training, validation, test."""
        raise NotImplementedError

    def make_splits(self) -> Splits:
        """Split off the validation samples where the set has none of its own, and standardise."""
        train, *others = self.arrays()
        if len(others) == 1:
            kept, held_out = stratified_split(train[1], self.validation, self.split_seed)
            others = [(train[0][held_out], train[1][held_out]), *others]
            train = train[0][kept], train[1][kept]
        deviation, mean = torch.std_mean(train[0])
        deviation = torch.where(deviation > 0, deviation, 1.0)
        scaled = [((inputs - mean) / deviation, targets) for inputs, targets in (train, *others)]
        return Splits(
            TensorSamples(*scaled[0], self.augment), *(TensorSamples(*pair) for pair in scaled[1:])
        )


def stratified_split(targets: Tensor, part: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices that stay and the indices that are held out.

    Args:
        targets: Class of every sample, shape ``(N,)``.
        part: Part of every class that is held out, rounded to whole samples.
        seed: Seed of the choice.

    Examples:
        >>> kept, held_out = stratified_split(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
        >>> len(kept), sorted(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])[held_out].tolist())
        (6, [0, 1])
    """
    kept, held_out = [], []
    for members in shuffled_by_class(targets, seed):
        count = round(len(members) * part)
        held_out.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(held_out).sort().values


def shuffled_by_class(targets: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Return the indices of each class, in a random order that follows the seed.

    Examples:
        >>> [len(members) for members in shuffled_by_class(torch.tensor([1, 0, 1]), seed=0)]
        [1, 2]
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    by_class = order[targets[order].argsort(stable=True)]
    _, counts = targets.unique(return_counts=True)
    return by_class.split(counts.tolist())


def check_parts(owner: str, sizes: Sequence[int]) -> None:
    """Raise if a part of a data set is empty.

    Args:
        owner: What was split, as errors call it.
        sizes: Number of samples for training, validation and test.

    Raises:
        ValueError: If one is 0.
    """
    if min(sizes) == 0:
        raise ValueError(
            f"{owner} has too few samples to split: {sizes[0]} would be for training, {sizes[1]} "
            f"for validation, {sizes[2]} for the test; every class gives its part, rounded: make "
            "the part larger, or add samples"
        )


def part(name: str, value: Any) -> float:
    """Return ``value`` if it is a part of a set: above 0 and below 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(
            f"{name} must lie between 0 and 1, both excluded, got {value!r}: it is the part that "
            "is held out of the training set"
        )
    return float(value)
