"""What the image sets share: standardisation, resizing, and images held in memory as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sizeless._validate import boolean, number, one_of, positive_int
from sizeless.train.data.augment import Augmentation, Step, augmentation
from sizeless.train.data.base import (
    DataModule,
    Split,
    Splits,
    shuffled_by_class,
    stratified_split,
)
from sizeless.train.data.image_sequences import Scan
from sizeless.train.data.loading import Draw, HeldSamples, seeded

Normalisation = str | tuple[Sequence[float], Sequence[float]]
"""A key of ``CONSTANTS``, "train", or mean and deviation of each channel."""

CONSTANTS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.1307,), (0.3081,)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
}
"""Mean and deviation of each channel, of pixels from 0 to 1, as the papers have them.

FlexConv takes ``imagenet`` for CIFAR too, ``mnist`` and ``stl10``; DiffStride takes ``cifar``.
"""

CHUNK = 1024
"""Images that are worked on at a time where all of them would take too much memory."""


class Standardise:
    """Makes bytes floats whose channels have mean 0 and deviation 1, as far as the figures hold.

    Args:
        mean: Mean of each channel, of pixels from 0 to 1.
        deviation: Standard deviation of each channel.

    Examples:
        >>> Standardise([0.5], [0.25])(torch.tensor([[[0, 255]]], dtype=torch.uint8)).tolist()
        [[[-2.0, 2.0]]]
    """

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.mean = 255 * torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.deviation = 255 * torch.tensor(deviation, dtype=torch.float32).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the floats of ``(C, H, W)`` or ``(N, C, H, W)``."""
        return (images.float() - self.mean) / self.deviation


class Resize:
    """Resizes images to a square, bilinearly, averaging over what a new pixel covers.

    Args:
        side: Side in pixels.

    Examples:
        >>> Resize(2)(torch.zeros(3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([3, 2, 2])
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, images: Tensor) -> Tensor:
        """Return bytes ``(..., C, side, side)`` of bytes ``(..., C, H, W)``."""
        square = (self.side, self.side)
        if images.shape[-2:] == square:
            return images
        batch = images.reshape(-1, *images.shape[-3:])
        resized = [
            functional.interpolate(part, size=square, mode="bilinear", antialias=True)
            for part in batch.split(CHUNK)
        ]
        return torch.cat(resized).reshape(*images.shape[:-2], *square)


class Steps:
    """Steps, one after the other.

    Examples:
        >>> Steps([torch.neg, torch.exp])(torch.zeros(1)).tolist()
        [1.0]
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps = list(steps)

    def __call__(self, images: Tensor) -> Tensor:
        """Return what the last step makes."""
        for step in self.steps:
            images = step(images)
        return images


class ImageSamples(HeldSamples):
    """Images that are held in memory as bytes, and become inputs as they are asked for.

    Args:
        images: Bytes ``(N, C, H, W)``.
        targets: ``(N,)``.
        indices: Which of them make this split.
        view: Makes inputs of bytes ``(N, C, H, W)``.
        learning_view: What stands in for ``view`` in training: for one image at a time, drawing
            from torch's global generator, which is seeded for each image and put back; None if
            training sees what evaluation does.
        arrange: Gives a batch of inputs the shape that the network takes; None keeps it.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        indices: Tensor,
        view: Step,
        learning_view: Step | None = None,
        arrange: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.images = images
        self.targets = targets
        self.indices = indices
        self.view = view
        self.learning_view = learning_view
        self.arrange = arrange

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        chosen = self.indices[[draw.index for draw in draws]]
        images = self.images[chosen]
        if self.learning_view is None:
            inputs = self.view(images)
        else:
            inputs = self._augmented(images, draws, self.learning_view)
        return inputs if self.arrange is None else self.arrange(inputs), self.targets[chosen]

    def _augmented(self, images: Tensor, draws: Sequence[Draw], view: Step) -> Tensor:
        inputs = []
        for image, draw in zip(images, draws, strict=True):
            with seeded(draw.seed):
                inputs.append(view(image))
        return torch.stack(inputs)


class ImageData(DataModule):
    """Base of the image sets that are held in memory.

    Training images are augmented as they are, then resized, standardised, and read as sequences.
    A subclass has ``num_classes`` and reads the images.

    Args:
        batch_size: Samples in a batch, over all devices.
        size: Side in pixels that images are resized to; None keeps them.
        normalise: "train" takes mean and deviation of each channel from the training split; the
            papers' constants go by the names of ``CONSTANTS``; or give mean and deviation of each
            channel, of pixels from 0 to 1.
        augment: Augmentation of training images: a name of ``AUGMENTATIONS``, or one with options.
        sequential: Whether images are sequences ``(C, H * W)``, row by row.
        permuted: Whether these show their pixels in a fixed random order; see ``permutation``.
        train_samples: Training images to use, validation included, each class with its part of
            them; None takes all.
        validation: Part of the training images that is held out to choose the checkpoint.
        split_seed: Seed of the choice of samples and of that split.
        workers: Processes that load batches; 0 loads them in the process that trains.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        batch_size: int = 128,
        size: int | None = None,
        normalise: Normalisation = "train",
        augment: str | Augmentation = "none",
        sequential: bool = False,
        permuted: bool = False,
        train_samples: int | None = None,
        validation: float = 0.1,
        split_seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation, split_seed, workers)
        self.size = None if size is None else positive_int("size", size)
        self.normalise = checked_normalisation(normalise)
        self.augment = augmentation(augment)
        self.sequential = boolean("sequential", sequential)
        self.permuted = boolean("permuted", permuted)
        if permuted and not sequential:
            raise ValueError(
                "permuted=True shows the pixels of a sequence in another order: give "
                "sequential=True too"
            )
        self.train_samples = (
            None if train_samples is None else positive_int("train_samples", train_samples)
        )

    def read(self) -> tuple[Split, Split]:
        """Return training images (validation included) and test images, as bytes."""
        raise NotImplementedError

    def arrangement(self, channels: int, side: int) -> Callable[[Tensor], Tensor] | None:
        """Return what gives a batch the shape that the network takes; None for images."""
        return Scan(side * side, self.permuted) if self.sequential else None

    def make_splits(self) -> Splits:
        """Read the images and split them."""
        (images, targets), (test_images, test_targets) = self.read()
        chosen = stratified_sample(targets, self.train_samples, self.split_seed)
        split = stratified_split(targets[chosen], self.validation, self.split_seed)
        kept, held_out = (chosen[part] for part in split)
        channels, side = images.shape[1], self.size or images.shape[-1]
        resize = Resize(side)
        test_images = resize(test_images)
        if self.augment is None:
            images = resize(images)
        parts = (resize(images[part]) for part in kept.split(CHUNK))
        scale = standardisation(self.normalise, channels, parts)
        view = Steps([resize, scale])
        learning_view = None
        if self.augment is not None:
            learning_view = Steps(
                [*self.augment.pixels(side), resize, scale, *self.augment.values()]
            )
        arrange = self.arrangement(channels, side)
        everything = torch.arange(len(test_targets))
        return Splits(
            ImageSamples(images, targets, kept, view, learning_view, arrange),
            ImageSamples(images, targets, held_out, view, arrange=arrange),
            ImageSamples(test_images, test_targets, everything, view, arrange=arrange),
        )


def standardisation(
    normalise: Normalisation, channels: int, images: Iterable[Tensor]
) -> Standardise:
    """Return the standardisation that ``normalise`` asks for.

    Args:
        normalise: See ``ImageData``.
        channels: Channels of the images.
        images: Training images for "train": batches of bytes ``(..., C, H, W)``.

    Raises:
        ValueError: If there are figures for another number of channels.

    Examples:
        >>> batch = torch.tensor([0, 0, 255, 255], dtype=torch.uint8).view(1, 1, 2, 2)
        >>> standardisation("train", 1, [batch])(batch).flatten().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    if normalise == "train":
        return Standardise(*_statistics(channels, images))
    mean, deviation = CONSTANTS[normalise] if isinstance(normalise, str) else normalise
    if len(mean) != channels:
        raise ValueError(
            f"normalise must have figures for {channels} channels, got {len(mean)} in {normalise!r}"
        )
    return Standardise(mean, deviation)


def checked_normalisation(value: Normalisation) -> Normalisation:
    """Return ``value`` if it is a known name, or as many means as positive deviations."""
    if isinstance(value, str):
        return one_of("normalise", value, ("train", *CONSTANTS))
    mean, deviation = ([*figures] for figures in value)
    if len(mean) != len(deviation):
        raise ValueError(
            f"normalise must have a mean and a deviation for each channel, got {value!r}"
        )
    for figure in mean:
        number("normalise (mean)", figure)
    for figure in deviation:
        number("normalise (deviation)", figure, above=0)
    return mean, deviation


def stratified_sample(targets: Tensor, count: int | None, seed: int) -> Tensor:
    """Return the indices of exactly ``count`` samples, each class with its part of them.

    Args:
        targets: Class of every sample, shape ``(N,)``.
        count: Number of samples; None takes all.
        seed: Seed of the choice.

    Raises:
        ValueError: If there are fewer samples.

    Examples:
        >>> targets = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> sorted(targets[stratified_sample(targets, 3, seed=0)].tolist())
        [0, 0, 1]
    """
    if count is None:
        return torch.arange(len(targets))
    if count > len(targets):
        raise ValueError(f"train_samples must be at most {len(targets)}, got {count}")
    # A class is spread evenly over [0, 1]: the samples with the smallest places are its share.
    places = torch.empty(len(targets))
    for members in shuffled_by_class(targets, seed):
        places[members] = (torch.arange(len(members)) + 0.5) / len(members)
    return places.argsort(stable=True)[:count].sort().values


def _statistics(channels: int, images: Iterable[Tensor]) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each channel, exactly, from the histogram of its bytes."""
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for part in images:
        for channel, values in enumerate(part.transpose(0, -3)):
            counts[channel] += values.flatten().bincount(minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255
    weights = counts / counts.sum(1, keepdim=True)
    mean = weights @ levels
    deviation = (weights * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    # A channel without contrast keeps its scale.
    return mean.tolist(), torch.where(deviation > 0, deviation, 1.0).tolist()
