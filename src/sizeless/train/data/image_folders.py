"""Images in folders by class: ImageNet, any folder of one's own, and several as one set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sizeless._validate import number, one_of, positive_int
from sizeless.train.data.augment import Augmentation, augmentation
from sizeless.train.data.base import DataModule, Splits, part, stratified_split
from sizeless.train.data.image_data import (
    Normalisation,
    Steps,
    checked_normalisation,
    standardisation,
)
from sizeless.train.data.image_files import missing
from sizeless.train.data.image_layout import Files, FolderLayout, classes_of, files_of, joined
from sizeless.train.data.loading import ItemSamples

INTERPOLATIONS = ("bilinear", "bicubic")
STATISTICS_IMAGES = 1000
"""Training images that mean and deviation are taken from."""


class ImageSource:
    """The images of files, as bytes ``(3, H, W)``; grey ones get three equal channels.

    Args:
        files: Which files.
    """

    def __init__(self, files: Files) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from torchvision.datasets.folder import default_loader
        from torchvision.transforms.v2.functional import pil_to_tensor

        image = pil_to_tensor(default_loader(self.files.paths[index]))
        return image, self.files.targets[index]


class FitSquare:
    """Resizes the shorter side of an image and cuts a square out of its middle.

    Args:
        side: Side of the square in pixels.
        crop_ratio: The square's part of the resized shorter side.
        interpolation: "bilinear" or "bicubic".

    Examples:
        >>> FitSquare(224, crop_ratio=0.875)(torch.zeros(3, 300, 400, dtype=torch.uint8)).shape
        torch.Size([3, 224, 224])
    """

    def __init__(self, side: int, crop_ratio: float = 1.0, interpolation: str = "bilinear") -> None:
        self.side = side
        self.shorter = round(side / crop_ratio)
        self.interpolation = interpolation

    def __call__(self, image: Tensor) -> Tensor:
        """Return bytes ``(C, side, side)``."""
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import center_crop, resize

        mode = InterpolationMode(self.interpolation)
        return center_crop(resize(image, [self.shorter], mode, antialias=True), [self.side])


class SameSize:
    """Lets images of one size through, and explains what to do with others."""

    def __init__(self, image: Tensor) -> None:
        self.shape = image.shape

    def __call__(self, image: Tensor) -> Tensor:
        """Return the image."""
        if image.shape != self.shape:
            raise ValueError(
                f"size=None needs images of one size, got {tuple(self.shape[1:])} and "
                f"{tuple(image.shape[1:])}: give the side that they are to be resized to"
            )
        return image


class FolderData(DataModule):
    """Base of the sets of image files: read one by one, resized, standardised.

    A subclass lists the files and has ``num_classes`` once it is made.

    Args:
        batch_size: Samples in a batch, over all devices.
        size: Side in pixels of the square that is cut out of an image; None keeps the images,
            which must then be of one size.
        crop_ratio: The square's part of the shorter side, in evaluation.
        interpolation: How images are resized: "bilinear" or "bicubic".
        normalise: "train" takes mean and deviation of each channel from 1,000 training images; the
            usual constants go by the name "imagenet"; or give mean and deviation of each channel,
            of pixels from 0 to 1.
        augment: Augmentation of training images: a name of ``AUGMENTATIONS``, or one with options.
        validation: Part of the training images that is held out to choose the checkpoint, where
            the set has none of its own.
        split_seed: Seed of the splits.
        workers: Processes that load batches; 0 loads them in the process that trains.

    Raises:
        FileNotFoundError: If a folder is not there.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        batch_size: int = 128,
        size: int | None = 224,
        crop_ratio: float = 1.0,
        interpolation: str = "bilinear",
        normalise: Normalisation = "train",
        augment: str | Augmentation = "none",
        validation: float = 0.1,
        split_seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation, split_seed, workers)
        self.size = None if size is None else positive_int("size", size)
        self.crop_ratio = number("crop_ratio", crop_ratio, above=0, maximum=1)
        self.interpolation = one_of("interpolation", interpolation, INTERPOLATIONS)
        self.normalise = checked_normalisation(normalise)
        self.augment = augmentation(augment)
        if size is None and self.augment is not None and self.augment.sized:
            raise ValueError(
                f"augment={augment!r} cuts squares of a given side out of images: give size"
            )

    def files(self) -> tuple[Files, Files, Files]:
        """Return training, validation and test files."""
        raise NotImplementedError

    def make_splits(self) -> Splits:
        """List the files, and find out how to standardise them."""
        train, *others = (ImageSource(files) for files in self.files())
        fit = self._fit(train)
        scale = standardisation(self.normalise, 3, (fit(image) for image in self._some(train)))
        view = learning_view = Steps([fit, scale])
        if self.augment is not None:
            first = self.augment.pixels(self.size or 0, self.interpolation)
            fitted = [] if self.augment.sized else [fit]
            learning_view = Steps([*first, *fitted, scale, *self.augment.values()])
        return Splits(
            ItemSamples(train, learning_view), *(ItemSamples(source, view) for source in others)
        )

    def _fit(self, train: ImageSource) -> FitSquare | SameSize:
        if self.size is None:
            return SameSize(train[0][0])
        return FitSquare(self.size, self.crop_ratio, self.interpolation)

    def _some(self, train: ImageSource) -> Any:
        generator = torch.Generator().manual_seed(self.split_seed)
        order = torch.randperm(len(train), generator=generator)
        return (train[index][0] for index in order[:STATISTICS_IMAGES].tolist())


class ImageNet(FolderData):
    """ImageNet, or a subset of its classes such as ImageNet-100, from the usual two folders.

    The official validation images are the test set; a part of the training images is held out.

    Args:
        root: Holds ``train`` and ``val``, each with a folder of images for every class, named as
            in ``n01440764``.
        classes: The classes to use: their names, or a text file of them, such as a published list
            of ImageNet-100; None takes all folders. They are counted in alphabetical order.
        size: As in ``FolderData``.
        crop_ratio: As in ``FolderData``.
        normalise: As in ``FolderData``.
        **options: As in ``FolderData``: ``batch_size``, ``interpolation``, ``augment``,
            ``validation``, ``split_seed``, ``workers``.

    Raises:
        FileNotFoundError: If a folder is not there.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or a class has no folder.

    Source: Russakovsky et al. 2015.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     for folder in ("train/n01440764", "train/n01443537", "val/n01440764"):
        ...         (Path(root) / folder).mkdir(parents=True)
        ...     ImageNet(root, classes=["n01440764"]).num_classes, ImageNet(root).num_classes
        (1, 2)
    """

    def __init__(
        self,
        root: str = "data/imagenet",
        classes: str | Sequence[str] | None = None,
        size: int | None = 224,
        crop_ratio: float = 0.875,
        normalise: Normalisation = "imagenet",
        **options: Any,
    ) -> None:
        super().__init__(size=size, crop_ratio=crop_ratio, normalise=normalise, **options)
        self.root = Path(root).expanduser()
        for name in ("train", "val"):
            if not (self.root / name).is_dir():
                raise missing(
                    "ImageNet",
                    self.root,
                    f"{name}/ with a folder of images for every class",
                    "get ILSVRC2012 from image-net.org, which asks for an account; "
                    "torchvision.datasets.ImageNet unpacks its archives",
                )
        self.classes = classes_of(self.root / "train")
        if classes is not None:
            names = (
                Path(classes).read_text("utf-8").split() if isinstance(classes, str) else classes
            )
            if unknown := sorted(set(names) - set(self.classes)):
                raise ValueError(
                    f"classes must be folders of {self.root / 'train'}; it has no {unknown[:5]}"
                )
            self.classes = sorted(set(names))
        self.num_classes = len(self.classes)

    def files(self) -> tuple[Files, Files, Files]:
        """Return the files of the classes."""
        everything = files_of(self.root / "train", self.classes)
        kept, held_out = stratified_split(everything.targets, self.validation, self.split_seed)
        test = files_of(self.root / "val", self.classes, every_class=False)
        return everything.take(kept), everything.take(held_out), test


class ImageFolder(FolderData):
    """Any folder of images by class.

    Either ``root`` holds ``train``, ``test`` and, if there is one, ``val``, each with a folder of
    images for every class; or it holds the folders of the classes itself, and all images are
    split by the seed.

    Args:
        root: The folder.
        test: Part of all images that makes the test set, where ``root`` has no ``train``.
        **options: As in ``FolderData``: ``batch_size``, ``size``, ``crop_ratio``,
            ``interpolation``, ``normalise``, ``augment``, ``validation``, ``split_seed``,
            ``workers``.

    Raises:
        FileNotFoundError: If a folder is not there.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     for name in ("cats", "dogs"):
        ...         (Path(root) / name).mkdir()
        ...     ImageFolder(root, size=64, augment="trivial").num_classes
        2
    """

    def __init__(self, root: str, test: float = 0.2, **options: Any) -> None:
        super().__init__(**options)
        self.layout = FolderLayout(root, part("test", test))
        self.num_classes = len(self.layout.classes)

    def files(self) -> tuple[Files, Files, Files]:
        """Return the files of the folder."""
        return self.layout.split(self.validation, self.split_seed)


class MultiTaskImages(FolderData):
    """Several folders of images, each a task with classes of its own, learned together.

    Targets are ``(N, tasks)``: the class in the column of an image's own task, -1 in the others.
    ``num_classes`` is a tuple, one number for each task.

    Args:
        roots: The folders, each laid out as for ``ImageFolder``.
        test: Part of the images that makes the test set of a folder without one.
        **options: As in ``FolderData``: ``batch_size``, ``size``, ``crop_ratio``,
            ``interpolation``, ``normalise``, ``augment``, ``validation``, ``split_seed``,
            ``workers``.

    Raises:
        FileNotFoundError: If a folder is not there.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or there is no folder.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     for folder in ("pets/cats", "pets/dogs", "birds/robins"):
        ...         (Path(root) / folder).mkdir(parents=True)
        ...     MultiTaskImages([f"{root}/pets", f"{root}/birds"]).num_classes
        (2, 1)
    """

    def __init__(self, roots: Sequence[str], test: float = 0.2, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(roots, str) or not roots:
            raise ValueError(f"roots must be a list of folders, one for each task, got {roots!r}")
        part("test", test)
        self.layouts = [FolderLayout(root, test) for root in roots]
        self.num_classes = tuple(len(layout.classes) for layout in self.layouts)

    def files(self) -> tuple[Files, Files, Files]:
        """Return the files of all folders."""
        tasks = [layout.split(self.validation, self.split_seed) for layout in self.layouts]
        train, validation, test = (joined(parts) for parts in zip(*tasks, strict=True))
        return train, validation, test
