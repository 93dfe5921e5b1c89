"""Data for the recipes: small sets that are made or shipped offline and held in memory.

Every set is split by a seed of its own, so that runs with different seeds see the same splits, and
standardised with the mean and the deviation of the training split alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy
import torch
from torch import Tensor
from torch.nn import functional

from sizeless._validate import positive_int

Split = tuple[Tensor, Tensor]


class Batches:
    """Batches of tensors that are in memory: indexing, with no worker processes.

    Args:
        split: Inputs of shape ``(N, C, *spatial)`` and targets of shape ``(N,)``.
        batch_size: Samples in a batch; the last one may be smaller.
        random: Makes the generator of an epoch's order and shifts; ``None`` keeps the order.
        shift: Largest circular shift, in samples, drawn for each sample along the last axis.

    Examples:
        >>> split = torch.zeros(5, 1, 8), torch.zeros(5, dtype=torch.long)
        >>> batches = Batches(split, batch_size=2)
        >>> [len(targets) for _, targets in batches]
        [2, 2, 1]
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        random: Callable[[], torch.Generator] | None = None,
        shift: int = 0,
    ) -> None:
        self.inputs, self.targets = split
        self.batch_size = batch_size
        self.random = random
        self.shift = shift

    def __len__(self) -> int:
        return math.ceil(len(self.targets) / self.batch_size)

    def __iter__(self) -> Iterator[Split]:
        if self.random is None:
            yield from zip(
                self.inputs.split(self.batch_size), self.targets.split(self.batch_size), strict=True
            )
            return
        generator = self.random()
        order = torch.randperm(len(self.targets), generator=generator)
        for chosen in order.split(self.batch_size):
            inputs = self.inputs[chosen]
            if self.shift:
                inputs = circular_shift(inputs, self.shift, generator)
            yield inputs, self.targets[chosen]


class InMemoryData(pl.LightningDataModule):
    """Base of the data sets here: splits, statistics and batches; subclasses make the arrays.

    Args:
        batch_size: Samples in a batch.
        validation: Part of the training set that is held out to choose the checkpoint.
        split_seed: Seed of the splits; separate from the seed of a run.
        shift: Largest random circular shift of a training sample along its last axis.

    Raises:
        ValueError: If an argument is out of its range.
    """

    num_classes = 10

    def __init__(self, batch_size: int, validation: float, split_seed: int, shift: int = 0) -> None:
        super().__init__()
        self.batch_size = positive_int("batch_size", batch_size)
        if not 0.0 < validation < 1.0:
            raise ValueError(
                f"validation must lie between 0 and 1, both excluded, got {validation}: it is the "
                "part of the training set that chooses the checkpoint"
            )
        if shift < 0:
            raise ValueError(f"shift must be at least 0 samples, got {shift}; 0 switches it off")
        self.validation = validation
        self.split_seed = split_seed
        self.shift = shift
        self.splits: dict[str, Split] = {}

    def arrays(self) -> tuple[Split, Split]:
        """Return the training set (validation included) and the test set."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Make the three splits, standardised with the statistics of the training split."""
        if self.trainer is not None and self.trainer.world_size > 1:
            raise ValueError(
                f"{type(self).__name__} keeps its batches in memory and cannot share them among "
                f"{self.trainer.world_size} devices; set trainer.devices to 1"
            )
        if self.splits:
            return
        (inputs, targets), (test_inputs, test_targets) = self.arrays()
        train, held_out = stratified_split(targets, self.validation, self.split_seed)
        mean, deviation = inputs[train].mean(), inputs[train].std()
        self.splits = {
            "train": ((inputs[train] - mean) / deviation, targets[train]),
            "validation": ((inputs[held_out] - mean) / deviation, targets[held_out]),
            "test": ((test_inputs - mean) / deviation, test_targets),
        }

    def train_dataloader(self) -> Batches:
        """Return shuffled training batches."""
        return Batches(self.splits["train"], self.batch_size, self._epoch_generator, self.shift)

    def val_dataloader(self) -> Batches:
        """Return the held-out batches, in order."""
        return Batches(self.splits["validation"], self.batch_size)

    def test_dataloader(self) -> Batches:
        """Return the test batches, in order."""
        return Batches(self.splits["test"], self.batch_size)

    def _epoch_generator(self) -> torch.Generator:
        """Follow the seed of the run and the epoch alone, so that a resumed run sees the same."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        seed = (torch.initial_seed() * 1_000_003 + epoch) % 2**63
        return torch.Generator().manual_seed(seed)


class MNIST1D(InMemoryData):
    """MNIST-1D: ten one-dimensional digit shapes, shifted, sheared and noisy; length 40.

    The generator of the ``mnist1d`` package makes the benchmark's own frozen set (its seed 42):
    4,000 samples for training and validation and 1,000 for the test.

    Args:
        batch_size: Samples in a batch.
        validation: Part of the 4,000 that is held out to choose the checkpoint.
        split_seed: Seed of that split; separate from the seed of a run.
        shift: Largest random circular shift of a training sample, in samples. The data set itself
            is made by circular shifts, so the shifted sample is one that it could have held.

    Source: Greydanus and Kobak, Scaling Down Deep Learning with MNIST-1D, ICML 2024.

    Examples:
        >>> data = MNIST1D()
        >>> data.setup("fit")
        >>> {name: tuple(inputs.shape) for name, (inputs, _) in data.splits.items()}
        {'train': (3601, 1, 40), 'validation': (399, 1, 40), 'test': (1000, 1, 40)}
    """

    def __init__(
        self, batch_size: int = 128, validation: float = 0.1, split_seed: int = 0, shift: int = 0
    ) -> None:
        super().__init__(batch_size, validation, split_seed, shift)

    def arrays(self) -> tuple[Split, Split]:
        """Return the benchmark's training and test sets."""
        data = _generate_mnist1d()
        return (
            (_signals(data["x"]), torch.as_tensor(data["y"], dtype=torch.long)),
            (_signals(data["x_test"]), torch.as_tensor(data["y_test"], dtype=torch.long)),
        )


class Digits(InMemoryData):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn ships.

    Args:
        batch_size: Samples in a batch.
        validation: Part of the training set that is held out to choose the checkpoint.
        test: Part of all samples that makes the test set.
        split_seed: Seed of both splits; separate from the seed of a run.
        size: Side of the images in pixels; above 8 they are enlarged bilinearly.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> data = Digits(size=16)
        >>> data.setup("fit")
        >>> {name: tuple(inputs.shape) for name, (inputs, _) in data.splits.items()}
        {'train': (1295, 1, 16, 16), 'validation': (143, 1, 16, 16), 'test': (359, 1, 16, 16)}
    """

    def __init__(
        self,
        batch_size: int = 64,
        validation: float = 0.1,
        test: float = 0.2,
        split_seed: int = 0,
        size: int = 8,
    ) -> None:
        super().__init__(batch_size, validation, split_seed)
        if not 0.0 < test < 1.0:
            raise ValueError(f"test must lie between 0 and 1, both excluded, got {test}")
        if positive_int("size", size) < 8:
            raise ValueError(f"size must be at least 8, the side of the images, got {size}")
        self.test = test
        self.size = size

    def arrays(self) -> tuple[Split, Split]:
        """Return a stratified training and test set."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        inputs = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        if self.size != 8:
            inputs = functional.interpolate(
                inputs, size=(self.size, self.size), mode="bilinear", align_corners=False
            )
        targets = torch.as_tensor(labels, dtype=torch.long)
        train, test = stratified_split(targets, self.test, self.split_seed)
        return (inputs[train], targets[train]), (inputs[test], targets[test])


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
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    kept, held_out = [], []
    for label in targets.unique():
        members = order[targets[order] == label]
        count = round(len(members) * part)
        held_out.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(held_out).sort().values


def circular_shift(inputs: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """Shift every sample along its last axis by its own whole number in ``[-largest, largest]``.

    Args:
        inputs: Samples of shape ``(N, C, *spatial)``.
        largest: Largest shift, in samples.
        generator: Source of the shifts.
    """
    length = inputs.shape[-1]
    shifts = torch.randint(-largest, largest + 1, (len(inputs), 1), generator=generator)
    source = (torch.arange(length) - shifts) % length
    view = source.reshape(len(inputs), *[1] * (inputs.dim() - 2), length)
    return inputs.gather(-1, view.expand_as(inputs))


def _generate_mnist1d() -> dict[str, Any]:
    """Make the frozen benchmark set; the generator seeds two global sources, put back here."""
    from mnist1d.data import get_dataset_args, make_dataset

    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    try:
        return dict(make_dataset(get_dataset_args()))
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)


def _signals(array: Any) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32).unsqueeze(1)
