"""Data that are drawn at random: the classic tasks of memory, and shuffled MNIST-1D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from sizeless._validate import int_at_least, positive_int
from sizeless.train.data.base import DataModule, Split, Splits
from sizeless.train.data.loading import TensorSamples
from sizeless.train.data.packaged import MNIST1D


class SyntheticData(DataModule):
    """Base of the data that are drawn at random; inputs keep the scale they are drawn in.

    Args:
        samples: Number of training samples, validation included.
        test_samples: Number of test samples.
        batch_size: Samples in a batch, over all devices.
        validation: Part of ``samples`` that is held out to choose the checkpoint.
        split_seed: Seed of the data; separate from the seed of a run.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        samples: int = 5000,
        test_samples: int = 1000,
        batch_size: int = 128,
        validation: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, validation, split_seed)
        self.samples = int_at_least("samples", samples, 2)
        self.test_samples = positive_int("test_samples", test_samples)

    def draw(self, count: int, generator: torch.Generator) -> Split:
        """Return independent samples: inputs ``(count, C, *spatial)`` and targets."""
        raise NotImplementedError

    def make_splits(self) -> Splits:
        """Draw the samples."""
        generator = torch.Generator().manual_seed(self.split_seed)
        inputs, targets = self.draw(self.samples + self.test_samples, generator)
        held_out = min(max(1, round(self.samples * self.validation)), self.samples - 1)
        counts = [self.samples - held_out, held_out, self.test_samples]
        parts = zip(inputs.split(counts), targets.split(counts), strict=True)
        return Splits(*(TensorSamples(*pair) for pair in parts))


class CopyMemory(SyntheticData):
    r"""Copy memory: say again, after a long time, the symbols heard at the beginning.

    A sequence has ``memory`` symbols of ``symbols`` kinds, blanks, one mark ``memory`` steps before
    the end, and blanks again. Inputs are one-hot, of ``symbols + 2`` channels (the last two: blank
    and mark) and ``delay + 2 * memory`` steps. Targets have the shape ``(N, memory)``: the symbol
    to be said in each of the last ``memory`` steps. So it is a set of ``memory`` tasks: for a
    network with as many heads, or for one that answers at every step, ``(N, symbols, L)``, of which
    the last steps are taken. Other steps have no target.

    Best size: the symbol to be said was heard ``delay + memory`` steps before, so a causal network
    that answers step by step has to reach that far and no farther.

    Args:
        delay: Steps between the last symbol and the first answer.
        memory: Number of symbols to remember.
        symbols: Number of kinds of symbols.
        **options: As in ``SyntheticData``: ``samples``, ``test_samples``, ``batch_size``,
            ``validation``, ``split_seed``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Source: Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016, arXiv 1511.06464.

    Examples:
        >>> data = CopyMemory(delay=100)
        >>> data.setup("fit")
        >>> data.splits.train.inputs.shape, data.splits.train.targets.shape
        (torch.Size([4500, 10, 120]), torch.Size([4500, 10]))
    """

    def __init__(
        self, delay: int = 100, memory: int = 10, symbols: int = 8, **options: Any
    ) -> None:
        super().__init__(**options)
        self.delay = positive_int("delay", delay)
        self.memory = positive_int("memory", memory)
        self.symbols = int_at_least("symbols", symbols, 2)
        self.num_classes = (self.symbols,) * self.memory

    @property
    def best_reach(self) -> int:
        """Steps back that a causal network has to see."""
        return self.delay + self.memory

    def draw(self, count: int, generator: torch.Generator) -> Split:
        """Return sequences and the symbols to be said."""
        targets = torch.randint(self.symbols, (count, self.memory), generator=generator)
        steps = torch.full((count, self.delay + 2 * self.memory), self.symbols)
        steps[:, : self.memory] = targets
        steps[:, -self.memory - 1] = self.symbols + 1
        inputs = functional.one_hot(steps, self.symbols + 2)
        return inputs.transpose(1, 2).float(), targets


class AddingProblem(SyntheticData):
    r"""Adding problem: the sum of two numbers of a sequence, which a second channel marks.

    Inputs ``(N, 2, length)``: numbers between 0 and 1, and a channel of zeros with a 1 in each half
    of the sequence. Targets are sums, **floats** of shape ``(N,)`` between 0 and 2, for a network
    with one output and a squared error; ``num_classes`` is 1. To answer always 1 gives 1/6.

    Args:
        length: Steps of a sequence.
        **options: As in ``SyntheticData``: ``samples``, ``test_samples``, ``batch_size``,
            ``validation``, ``split_seed``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Source: Hochreiter and Schmidhuber 1997.

    Examples:
        >>> data = AddingProblem(length=200)
        >>> data.setup("fit")
        >>> data.splits.test.inputs.shape, data.splits.test.targets.dtype
        (torch.Size([1000, 2, 200]), torch.float32)
    """

    num_classes = 1

    def __init__(self, length: int = 200, **options: Any) -> None:
        super().__init__(**options)
        self.length = int_at_least("length", length, 2)

    def draw(self, count: int, generator: torch.Generator) -> Split:
        """Return sequences and sums."""
        numbers = torch.rand(count, self.length, generator=generator)
        half = self.length // 2
        marked = torch.stack(
            [
                torch.randint(half, (count,), generator=generator),
                torch.randint(half, self.length, (count,), generator=generator),
            ],
            dim=1,
        )
        marks = torch.zeros_like(numbers).scatter(1, marked, 1.0)
        return torch.stack([numbers, marks], dim=1), numbers.gather(1, marked).sum(1)


class ShuffledMNIST1D(MNIST1D):
    """MNIST-1D with its 40 samples in another order, the same for every signal.

    Place ``i`` shows sample ``ORDER[i]``. What was near is far apart, so that kernels have to reach
    over all of the signal.

    Args:
        batch_size: Samples in a batch.
        validation: Part of the 4,000 that is held out to choose the checkpoint.
        split_seed: Seed of that split; separate from the seed of a run.

    Source: Greydanus and Kobak, Scaling Down Deep Learning with MNIST-1D, ICML 2024, for the
    task; the order is drawn once, by ``numpy.random.RandomState(42).permutation(40)``.

    Examples:
        >>> sorted(ShuffledMNIST1D.ORDER) == list(range(40))
        True
    """

    # fmt: off
    ORDER = (
        19, 16, 15, 26, 4, 12, 37, 27, 39, 6, 25, 9, 13, 31, 34, 8, 17, 24, 0, 33,
        5, 11, 1, 29, 21, 2, 30, 36, 3, 35, 23, 32, 10, 22, 18, 20, 7, 14, 28, 38,
    )
    # fmt: on

    def __init__(self, batch_size: int = 128, validation: float = 0.1, split_seed: int = 0) -> None:
        super().__init__(batch_size, validation, split_seed)

    def arrays(self) -> Sequence[Split]:
        """Return the benchmark's training and test sets in the new order."""
        order = torch.tensor(self.ORDER)
        return [(inputs[..., order], targets) for inputs, targets in super().arrays()]
