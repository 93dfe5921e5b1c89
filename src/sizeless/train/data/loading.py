"""Samples in batches: an order that follows seed and epoch alone, shared among processes.

Nothing depends on how often a generator was asked before, on worker processes or on the number of
ranks: a run that goes on after any batch, or on other machines, sees the same samples with the
same augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch of training inputs ``(N, C, *spatial)``, drawing from the generator."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a batch.

    Attributes:
        index: Which sample.
        seed: Seed of its augmentation: another one in every epoch.
        counts: Whether it is wanted: one that is not comes without its target.
    """

    index: int
    seed: int
    counts: bool = True


class Position(NamedTuple):
    """Where training stands.

    Attributes:
        seed: Seed of the run.
        epoch: Epochs done.
        batches: Batches of this epoch that are done.
    """

    seed: int
    epoch: int
    batches: int = 0


class Samples(Protocol):
    """A data set: its length, and whole batches of it, inputs and targets."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, draw: Draw) -> Any:
        """Return one sample."""

    def __getitems__(self, draws: Sequence[Draw]) -> Any:
        """Return a batch, collated."""


class HeldSamples:
    """Base of samples that are held in memory and made a batch at a time; one is a batch of one."""

    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        inputs, targets = self.__getitems__([draw])
        return inputs[0], targets[0]

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class TensorSamples(HeldSamples):
    """Samples that are held in memory.

    Args:
        inputs: ``(N, C, *spatial)``.
        targets: ``(N,)``, or ``(N, tasks)``.
        augment: Changes training inputs.

    Examples:
        >>> samples = TensorSamples(torch.arange(4.0).view(4, 1, 1), torch.arange(4))
        >>> inputs, targets = samples.__getitems__([Draw(3, 0), Draw(1, 0)])
        >>> inputs.flatten().tolist(), targets.tolist()
        ([3.0, 1.0], [3, 1])
    """

    def __init__(self, inputs: Tensor, targets: Tensor, augment: Augment | None = None) -> None:
        self.inputs = inputs
        self.targets = targets
        self.augment = augment

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor([draw.index for draw in draws], dtype=torch.long)
        inputs, targets = self.inputs[chosen], self.targets[chosen]
        if self.augment is not None:
            parts = [
                self.augment(part, torch.Generator().manual_seed(draw.seed))
                for part, draw in zip(inputs.split(1), draws, strict=True)
            ]
            inputs = torch.cat(parts)
        return inputs, targets


class ItemSamples:
    """Samples that are read one by one, such as files, and changed by a transform.

    Args:
        source: Anything with a length whose items are ``(input, target)``, such as a data set of
            torchvision.
        transform: What is done with an input; it draws from torch's global generator, which is
            seeded for each sample and put back.
        indices: Which items, in which order; None takes all.
        target: Changes a target; None keeps it.
    """

    def __init__(
        self,
        source: Any,
        transform: Callable[[Any], Tensor],
        indices: Sequence[int] | None = None,
        target: Callable[[Any], Any] | None = None,
    ) -> None:
        self.source = source
        self.transform = transform
        self.indices = range(len(source)) if indices is None else indices
        self.target = target

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Any]:
        value, target = self.source[self.indices[draw.index]]
        with seeded(draw.seed):
            value = self.transform(value)
        return value, target if self.target is None else self.target(target)

    def __getitems__(self, draws: Sequence[Draw]) -> Any:
        return default_collate([self[draw] for draw in draws])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generator of the CPU, and put it back; no other is touched."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


class BatchOrder(Sampler[list[Draw]]):
    """Batches of draws, for one process of several.

    Each batch of ``batch_size`` is dealt out to the processes, so that all of them together see
    what one process would. In training, where all must step, a last batch with fewer samples than
    processes is left out; in evaluation, a process without a sample is given one that does not
    count.

    Args:
        count: Number of samples.
        batch_size: Samples in a batch over all processes.
        position: Where training stands, asked whenever an epoch starts or goes on; None, for
            evaluation, keeps the samples in their order.
        rank: Which process this is.
        world_size: Number of processes.

    Examples:
        >>> [[draw.index for draw in batch] for batch in BatchOrder(5, 2)]
        [[0, 1], [2, 3], [4]]
        >>> order = BatchOrder(5, 4, rank=1, world_size=2)
        >>> [[(draw.index, draw.counts) for draw in batch] for batch in order]
        [[(1, True), (3, True)], [(4, False)]]
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        position: Callable[[], Position] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.position = position
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        return whole + (rest >= (1 if self.position is None else self.world_size))

    def size_of(self, number: int) -> int:
        """Return how many samples a batch has, over all processes."""
        return min(self.batch_size, self.count - number * self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        order, seeds, start = list(range(self.count)), [0] * self.count, 0
        if self.position is not None:
            seed, epoch, start = self.position()
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
            order = torch.randperm(self.count, generator=generator).tolist()
            seeds = torch.randint(2**62, (self.count,), generator=generator).tolist()
        draws = [Draw(*pair) for pair in zip(order, seeds, strict=True)]
        for number in range(start, len(self)):
            batch = draws[number * self.batch_size : (number + 1) * self.batch_size]
            share = batch[self.rank :: self.world_size]
            # All processes make as many steps: sharded ones wait for each other in each.
            yield share or [replace(batch[0], counts=False)]


class _Shared:
    """Samples for one of several processes; those that do not count come without targets."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, draws: Sequence[Draw]) -> Any:
        inputs, targets = self.samples.__getitems__(draws)
        return inputs, targets if draws[0].counts else targets[:0]


class Loader(DataLoader[Any]):
    """Loads batches; a run that goes on within an epoch starts after the batches it has had."""

    def __init__(self, samples: Samples, order: BatchOrder, workers: int = 0) -> None:
        super().__init__(
            samples if order.world_size == 1 else _Shared(samples),  # type: ignore[arg-type]
            batch_sampler=order,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # The global generator serves the network alone.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Start when the first batch is asked for: trainers ask for iterators long before."""
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the order asks the trainer where it stands."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing; see ``state_dict``."""


def _as_it_is(batch: Any) -> Any:
    return batch
