"""The UCR and UEA archives of labelled time series."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sizeless._validate import boolean, one_of
from sizeless.train.data.archives import complete_folder
from sizeless.train.data.base import Split, check_parts, stratified_split
from sizeless.train.data.signals import SignalData, three_parts
from sizeless.train.data.ts_files import padded, read_header, read_ts


class TimeSeries(SignalData):
    """Any set of the UCR archive (one channel) or the UEA archive (several), by name.

    Reads ``NAME_TRAIN.ts`` and ``NAME_TEST.ts`` from ``root/NAME`` or ``root``, or from the
    ``aeon`` package, which ships a few sets: ACSF1, ArrowHead, BasicMotions, GunPoint,
    ItalyPowerDemand, JapaneseVowels, OSULeaf and PickupGestureWiimoteZ.

    Series that are shorter than the longest of the set go on with their last value; a missing value
    is the last one before. Each channel is standardised over all series and time steps.

    Args:
        name: Name of the set, as the archive writes it.
        root: Folder of the files.
        download: Whether to download what is missing when the data set is made, through ``aeon``.
            The archive has no checksums; a file that is cut off is refused as it is read.
        split: ``"official"`` takes training and test series as the archive has them, and the
            validation samples from the training series; ``"merged"`` takes all of them together,
            and of every class 70, 15 and 15 % for training, validation and test.
        drop: Part of the time steps that is dropped; one more channel tells which are known. See
            ``SignalData``.
        batch_size: Samples in a batch.
        validation: Part of the official training series that is held out to choose the checkpoint.
        split_seed: Seed of the splits; separate from the seed of a run.

    Raises:
        FileNotFoundError: If the files are not there.
        ImportError: If there is something to download and ``aeon`` is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or a file is not as it must be.

    Source: Dau et al. 2019, arXiv 1810.07758 (UCR); Bagnall et al. 2018, arXiv 1811.00075 (UEA).

    Examples:
        >>> TimeSeries("GunPoint").num_classes  # doctest: +SKIP
        2
    """

    def __init__(
        self,
        name: str,
        root: str = "data",
        download: bool = False,
        split: str = "official",
        drop: float = 0.0,
        batch_size: int = 32,
        validation: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        super().__init__(drop, batch_size, validation, split_seed)
        self.dataset = name
        self.root = Path(root).expanduser()
        self.download = boolean("download", download)
        self.split = one_of("split", split, ("official", "merged"))
        self.files = self._find()
        self.classes = read_header(self.files[0]).classes
        self.num_classes = len(self.classes)

    def read(self) -> list[Split]:
        """Return the series for training, validation and test."""
        (head, train), (test_head, test) = (read_ts(path) for path in self.files)
        channels = [len(cases[0].channels) for cases in (train, test)]
        if head.classes != test_head.classes or channels[0] != channels[1]:
            raise ValueError(
                f"{self.files[1]} must have the classes and channels of {self.files[0]}, "
                f"{', '.join(head.classes)} and {channels[0]}, got {', '.join(test_head.classes)} "
                f"and {channels[1]}: they are not of one set"
            )
        cases = [*train, *test]
        series = padded(cases, max(len(channel) for case in cases for channel in case.channels))
        targets = torch.tensor([case.target for case in cases])
        if self.split == "merged":
            parts = three_parts(targets, self.split_seed)
        else:
            official = targets[: len(train)]
            kept, held_out = stratified_split(official, self.validation, self.split_seed)
            parts = kept, held_out, torch.arange(len(train), len(targets))
        check_parts(self.dataset, [len(part) for part in parts])
        return [(series[part], targets[part]) for part in parts]

    def _find(self) -> tuple[Path, Path]:
        files = self._present()
        if files is None and self.download:
            self._fetch()
            files = self._present()
        if files is None:
            raise FileNotFoundError(
                f"{self.dataset}_TRAIN.ts and {self.dataset}_TEST.ts must lie in "
                f"{(self.root / self.dataset).absolute()} or {self.root.absolute()}, found none: "
                "set download=True, or get them from https://www.timeseriesclassification.com"
            )
        return files

    def _present(self) -> tuple[Path, Path] | None:
        for folder in self._folders():
            train, test = (folder / f"{self.dataset}_{part}.ts" for part in ("TRAIN", "TEST"))
            if train.is_file() and test.is_file():
                return train, test
        return None

    def _folders(self) -> Iterator[Path]:
        yield self.root / self.dataset
        yield self.root
        package = importlib.util.find_spec("aeon")
        for place in (package.submodule_search_locations or ()) if package else ():
            yield Path(place) / "datasets" / "data" / self.dataset

    def _fetch(self) -> None:
        try:
            from aeon.datasets import load_classification
        except ImportError as error:
            raise ImportError(
                "download=True fetches the set through the aeon package: "
                "pip install 'sizeless[timeseries]'"
            ) from error
        with complete_folder(self.root / self.dataset) as temporary:
            try:
                load_classification(self.dataset, split="train", extract_path=str(temporary))
            except (OSError, ValueError) as error:
                raise OSError(
                    f"aeon could not download {self.dataset} ({error}): check the name and the "
                    f"network, or put {self.dataset}_TRAIN.ts and {self.dataset}_TEST.ts into "
                    f"{(self.root / self.dataset).absolute()}"
                ) from error
            for path in (temporary / self.dataset).iterdir():
                path.rename(temporary / path.name)
            (temporary / self.dataset).rmdir()


class CharacterTrajectories(TimeSeries):
    """CharacterTrajectories: 2,858 pen strokes of 20 letters, 3 channels, up to 182 time steps.

    Args:
        root: Folder of ``CharacterTrajectories_TRAIN.ts`` and ``CharacterTrajectories_TEST.ts``, or
            of a folder ``CharacterTrajectories`` with them.
        split: As in ``TimeSeries``; the papers merge the official parts.
        **options: As in ``TimeSeries``.

    Raises:
        FileNotFoundError: If the files are not there.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or a file is not as it must be.

    Source: Bagnall et al. 2018, arXiv 1811.00075; padding and split of FlexConv, Romero et al.
    2022, arXiv 2110.08059.

    Examples:
        >>> CharacterTrajectories(root="data", drop=0.3)  # doctest: +SKIP
    """

    def __init__(self, root: str = "data", split: str = "merged", **options: Any) -> None:
        super().__init__("CharacterTrajectories", root, split=split, **options)
