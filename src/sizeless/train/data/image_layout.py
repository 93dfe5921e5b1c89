"""Which files a folder of images by class holds, and which split each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sizeless.train.data.base import stratified_split
from sizeless.train.data.image_files import missing

OWNER = "the folder of images"


class Files(NamedTuple):
    """Image files and their targets.

    Attributes:
        paths: Where they are.
        targets: Classes ``(N,)``, or ``(N, tasks)`` with -1 for no label.
    """

    paths: list[str]
    targets: Tensor

    def take(self, indices: Tensor) -> Files:
        """Return some of them."""
        return Files([self.paths[index] for index in indices.tolist()], self.targets[indices])


class FolderLayout:
    """Where a folder of images by class has its parts.

    Args:
        root: The folder.
        test: Part of all images that makes the test set, where there is no ``train``.
    """

    def __init__(self, root: str, test: float) -> None:
        self.root = Path(root).expanduser()
        self.test = test
        self.divided = (self.root / "train").is_dir()
        if self.divided and not (self.root / "test").is_dir():
            raise missing(
                OWNER,
                self.root,
                "test/ beside train/",
                "the last figures need images of their own; rename val/ where there is one, and a "
                "part of train/ is held out instead, or put all classes in one folder",
            )
        self.classes = classes_of(self.root / "train" if self.divided else self.root)

    def part(self, name: str) -> Files:
        """Return the files of ``train``, ``val`` or ``test``."""
        folder = self.root / name
        if unknown := sorted(set(classes_of(folder)) - set(self.classes)):
            raise ValueError(
                f"{folder} must have the classes of {self.root / 'train'}, but has {unknown} too"
            )
        return files_of(folder, self.classes, every_class=name == "train")

    def split(self, validation: float, seed: int) -> tuple[Files, Files, Files]:
        """Return training, validation and test files.

        Args:
            validation: Part of the training files that is held out, where there is no ``val``.
            seed: Seed of the splits.
        """
        if self.divided:
            train, test = self.part("train"), self.part("test")
            if (self.root / "val").is_dir():
                return train, self.part("val"), test
        else:
            everything = files_of(self.root, self.classes)
            kept, tested = stratified_split(everything.targets, self.test, seed)
            train, test = everything.take(kept), everything.take(tested)
        kept, held_out = stratified_split(train.targets, validation, seed)
        return train.take(kept), train.take(held_out), test


def classes_of(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, sorted: these are the classes."""
    names = []
    if folder.is_dir():
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise missing(
            OWNER,
            folder,
            "folder of a class",
            "put the images of each class in a folder named after it",
        )
    return names


def files_of(folder: Path, classes: Sequence[str], *, every_class: bool = True) -> Files:
    """Return the image files in the folders of ``classes``.

    Args:
        folder: Holds the folders; others than those of ``classes`` are left out.
        classes: Names of the folders; a class is its place among them.
        every_class: Whether each class must have an image; else one of them must.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    numbers = {name: number for number, name in enumerate(classes)}
    try:
        pairs = make_dataset(
            folder, numbers, extensions=IMG_EXTENSIONS, allow_empty=not every_class
        )
    except FileNotFoundError as error:
        raise missing(OWNER, folder, "images for every class", str(error)) from error
    if not pairs:
        raise missing(
            OWNER,
            folder,
            "image in a folder named after a class",
            f"sort the images into folders such as {classes[0]}/",
        )
    return Files([path for path, _ in pairs], torch.tensor([number for _, number in pairs]))


def joined(parts: Sequence[Files]) -> Files:
    """Return the files of several tasks as one set, each with its own column of targets.

    Examples:
        >>> dogs = Files(["dog.png"], torch.tensor([3]))
        >>> cats = Files(["cat.png"], torch.tensor([1]))
        >>> joined([dogs, cats]).targets.tolist()
        [[3, -1], [-1, 1]]
    """
    columns = []
    for task, files in enumerate(parts):
        targets = torch.full((len(files.paths), len(parts)), -1)
        targets[:, task] = files.targets
        columns.append(targets)
    return Files([path for files in parts for path in files.paths], torch.cat(columns))
