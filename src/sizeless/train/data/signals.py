"""Sequences in memory: standardised by channel, with samples dropped on request."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sizeless._validate import number
from sizeless.train.data.base import DataModule, Split, Splits, stratified_split
from sizeless.train.data.loading import Draw, HeldSamples

DROP_SEED = 56789
"""Seed of the choice of dropped samples, the same in every run."""

PARTS = (0.70, 0.15, 0.15)
"""Training, validation and test part of the papers' own splits."""

CHUNK = 64
"""Sequences that are worked on at a time where all of them would take too much memory."""


class SignalSamples(HeldSamples):
    """Sequences that are held as they were stored, and become inputs as they are asked for.

    Args:
        inputs: ``(N, C, *spatial)``, of any dtype.
        targets: ``(N,)``.
        mean: Mean of each channel.
        deviation: Standard deviation of each channel.
        kept: Which time steps are known, bool ``(N, 1, *spatial)``: the others become 0, the mean,
            and one more channel says with 1 or 0 which they are. None: all are known, and there is
            no such channel.

    Examples:
        >>> kept = torch.tensor([[[True, False]]])
        >>> one = torch.ones(1)
        >>> samples = SignalSamples(torch.full((1, 1, 2), 5), torch.tensor([7]), one, 2 * one, kept)
        >>> samples[Draw(0, 0)]
        (tensor([[2., 0.],
                [1., 0.]]), tensor(7))
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        mean: Tensor,
        deviation: Tensor,
        kept: Tensor | None = None,
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        shape = (-1, *[1] * (inputs.dim() - 2))
        self.mean = mean.view(shape).float()
        self.deviation = deviation.view(shape).float()
        self.kept = kept

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor([draw.index for draw in draws], dtype=torch.long)
        inputs = (self.inputs[chosen].float() - self.mean) / self.deviation
        if self.kept is not None:
            known = self.kept[chosen].float()
            inputs = torch.cat([inputs * known, known], dim=1)
        return inputs, self.targets[chosen]


class SignalData(DataModule):
    """Base of the sequence sets that are held in memory; a subclass reads them.

    Each channel is standardised for itself, with the mean and the deviation of the known samples of
    the training split.

    Args:
        drop: Part of the time steps of every sequence, at least 0 and below 1, that is dropped:
            another choice for each, fixed by ``DROP_SEED``. Dropped steps are 0 in all channels,
            and one more channel holds 1 where a step is known and 0 where it was dropped.
        batch_size: Samples in a batch, over all devices.
        validation: Part of the training set that is held out to choose the checkpoint, where the
            set has no validation samples of its own.
        split_seed: Seed of the splits; separate from the seed of a run.
        workers: Processes that load batches; 0 loads them in the process that trains.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        drop: float = 0.0,
        batch_size: int = 64,
        validation: float = 0.1,
        split_seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation, split_seed, workers)
        self.drop = number("drop", drop, minimum=0)
        if self.drop >= 1:
            raise ValueError(f"drop must be below 1, got {drop!r}: it is a part, not a percentage")

    def read(self) -> Sequence[Split]:
        """Return training, validation and test inputs ``(N, C, *spatial)`` with their classes."""
        raise NotImplementedError

    def make_splits(self) -> Splits:
        """Read the sequences, drop samples, and standardise."""
        parts = self.read()
        generator = torch.Generator().manual_seed(DROP_SEED)
        kept = [drop_mask(inputs, self.drop, generator) for inputs, _ in parts]
        mean, deviation = channel_statistics(parts[0][0], kept[0])
        return Splits(
            *(
                SignalSamples(inputs, targets, mean, deviation, known)
                for (inputs, targets), known in zip(parts, kept, strict=True)
            )
        )


def drop_mask(inputs: Tensor, part: float, generator: torch.Generator) -> Tensor | None:
    """Return which time steps are kept, as bool ``(N, 1, L)``; None if all are.

    Args:
        inputs: Sequences ``(N, C, L)``; with nothing to drop, of any shape.
        part: Part of the steps to drop from every sequence, rounded to whole steps.
        generator: Source of the choice.

    Examples:
        >>> drop_mask(torch.zeros(3, 2, 8), 0.25, torch.Generator()).sum(-1).flatten().tolist()
        [6, 6, 6]
    """
    if part == 0:
        return None
    count, _, length = inputs.shape
    kept = torch.ones(count, 1, length, dtype=torch.bool)
    for row in kept:
        row[0, torch.randperm(length, generator=generator)[: round(part * length)]] = False
    return kept


def channel_statistics(inputs: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel over all sequences and known steps.

    A channel that never changes gets the deviation 1.

    Args:
        inputs: ``(N, C, *spatial)``, of any dtype.
        kept: Which steps are known, bool ``(N, 1, *spatial)``; None if all are.

    Examples:
        >>> channel_statistics(torch.tensor([[[0, 2], [5, 5]]]))
        (tensor([1., 5.], dtype=torch.float64), tensor([1., 1.], dtype=torch.float64))
    """
    mean = _channel_mean(inputs, kept, torch.zeros(inputs.shape[1], dtype=torch.float64), 1)
    variance = _channel_mean(inputs, kept, mean, 2)
    return mean, torch.where(variance > 0, variance.sqrt(), 1.0)


def _channel_mean(inputs: Tensor, kept: Tensor | None, centre: Tensor, power: int) -> Tensor:
    total = torch.zeros(inputs.shape[1], dtype=torch.float64)
    count = torch.zeros(inputs.shape[1], dtype=torch.float64)
    centre = centre.view(-1, *[1] * (inputs.dim() - 2))
    for start in range(0, len(inputs), CHUNK):
        part = slice(start, start + CHUNK)
        values = (inputs[part].double() - centre) ** power
        known = torch.ones_like(values) if kept is None else kept[part].expand_as(values).double()
        total += (values * known).transpose(0, 1).flatten(1).sum(1)
        count += known.transpose(0, 1).flatten(1).sum(1)
    return total / count


def three_parts(targets: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the indices of training, validation and test, ``PARTS`` of every class.

    Args:
        targets: Class of every sample, shape ``(N,)``.
        seed: Seed of the choice.

    Examples:
        >>> [len(indices) for indices in three_parts(torch.zeros(20), seed=0)]
        [14, 3, 3]
    """
    _, validation, test = PARTS
    rest, tested = stratified_split(targets, test, seed)
    kept, held_out = stratified_split(targets[rest], validation / (1 - test), seed)
    return rest[kept], rest[held_out], tested
