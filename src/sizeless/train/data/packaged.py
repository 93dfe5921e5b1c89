"""Data sets that Python packages make or ship: no download."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from sizeless._validate import int_at_least, positive_int
from sizeless.train.data.base import ArrayData, Split, part, stratified_split


class MNIST1D(ArrayData):
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
        >>> [tuple(samples.inputs.shape) for samples in data.splits]
        [(3601, 1, 40), (399, 1, 40), (1000, 1, 40)]
    """

    def __init__(
        self, batch_size: int = 128, validation: float = 0.1, split_seed: int = 0, shift: int = 0
    ) -> None:
        super().__init__(batch_size, validation, split_seed)
        if int_at_least("shift", shift, 0):
            self.augment = partial(circular_shift, shift)

    def arrays(self) -> Sequence[Split]:
        """Return the benchmark's training and test sets."""
        data = _generate_mnist1d()
        return (
            (_signals(data["x"]), torch.as_tensor(data["y"], dtype=torch.long)),
            (_signals(data["x_test"]), torch.as_tensor(data["y_test"], dtype=torch.long)),
        )


class Digits(ArrayData):
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
        >>> [tuple(samples.inputs.shape) for samples in data.splits]
        [(1295, 1, 16, 16), (143, 1, 16, 16), (359, 1, 16, 16)]
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
        if positive_int("size", size) < 8:
            raise ValueError(f"size must be at least 8, the side of the images, got {size}")
        self.test = part("test", test)
        self.size = size

    def arrays(self) -> Sequence[Split]:
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


def circular_shift(largest: int, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Shift every sample along its last axis by its own whole number in ``[-largest, largest]``.

    Args:
        largest: Largest shift, in samples.
        inputs: Samples of shape ``(N, C, *spatial)``.
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
