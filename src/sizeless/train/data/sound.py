"""Folders of sound files, one labelled set or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sizeless._validate import positive_int
from sizeless.train.data.base import DataModule, Splits, check_parts, part, stratified_split
from sizeless.train.data.loading import ItemSamples
from sizeless.train.data.signals import channel_statistics
from sizeless.train.data.sound_features import change_rate, sound_features
from sizeless.train.data.sound_files import ClassFolders, Labelled, find_sounds, read_sound

STATISTICS_FILES = 500
"""Training files, evenly spread over all, whose mean and deviation stand for theirs."""

Parts = tuple[list[Labelled], list[Labelled], list[Labelled]]


class Clip:
    """Reads a sound file as the input of a network.

    Channels are averaged, the rate is changed, and the sound is cropped to a length, or followed
    by silence; features are made of it, and standardised by channel.

    Args:
        sample_rate: Samples per second.
        length: Samples of a clip.
        features: Makes inputs ``(C, *spatial)`` of waveforms ``(L,)``.
        random_crop: Whether longer sounds are cropped at a random place, drawn from torch's global
            generator, instead of in their middle.
        mean: Mean of each channel; None: 0.
        deviation: Standard deviation of each channel; None: 1.
    """

    def __init__(
        self,
        sample_rate: int,
        length: int,
        features: Callable[[Tensor], Tensor],
        random_crop: bool = False,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self.length = length
        self.features = features
        self.random_crop = random_crop
        self.mean = mean
        self.deviation = deviation

    def __call__(self, path: str) -> Tensor:
        """Return the input of a file."""
        sound, rate = read_sound(path)
        inputs = self.features(self.cropped(change_rate(sound.mean(0), rate, self.sample_rate)))
        if self.mean is None or self.deviation is None:
            return inputs
        shape = (-1, *[1] * (inputs.dim() - 1))
        return (inputs - self.mean.view(shape)) / self.deviation.view(shape)

    def cropped(self, waveform: Tensor) -> Tensor:
        """Return ``length`` samples of a waveform ``(L,)``, with silence at the end if need be."""
        excess = len(waveform) - self.length
        if excess <= 0:
            return functional.pad(waveform, (0, -excess))
        start = int(torch.randint(excess + 1, ())) if self.random_crop else excess // 2
        return waveform[start : start + self.length]


class SoundData(DataModule):
    """Base of the sets of sound files, which are read as they are needed.

    Args:
        sample_rate: Samples per second that every sound is brought to.
        length: Samples of a clip, at that rate. Longer sounds are cropped, in training at a random
            place and else in their middle; shorter ones are followed by silence.
        features: ``"raw"`` gives inputs ``(1, length)``, ``"logmel"`` ``(1, frames, bands)`` and
            ``"mfcc"`` ``(coefficients, frames)``.
        feature_options: Options of ``LogMel`` or ``MFCC``, such as ``n_mels``.
        test: Part of the files that makes the test set, where they are not divided already.
        batch_size: Samples in a batch, over all devices.
        validation: Part of the training files that is held out to choose the checkpoint, where they
            are not divided already.
        split_seed: Seed of both splits; separate from the seed of a run.
        workers: Processes that load batches; 0 loads them in the process that trains.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        length: int = 16000,
        features: str = "logmel",
        feature_options: Mapping[str, Any] | None = None,
        test: float = 0.2,
        batch_size: int = 64,
        validation: float = 0.1,
        split_seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation, split_seed, workers)
        self.sample_rate = positive_int("sample_rate", sample_rate)
        self.length = positive_int("length", length)
        self.features = sound_features(features, sample_rate, feature_options)
        self.test = part("test", test)

    def parts(self) -> Sequence[Sequence[tuple[str, Any]]]:
        """Return the files for training, validation and test, each with its target."""
        raise NotImplementedError

    def make_splits(self) -> Splits:
        """Divide the files, and take mean and deviation of each channel from training files."""
        parts = self.parts()
        learning, plain = (
            Clip(self.sample_rate, self.length, self.features, crop) for crop in (True, False)
        )
        train = parts[0]
        chosen = torch.linspace(0, len(train) - 1, min(len(train), STATISTICS_FILES)).long()
        inputs = torch.stack([plain(train[index][0]) for index in chosen.tolist()])
        mean, deviation = (value.float() for value in channel_statistics(inputs))
        for clip in (learning, plain):
            clip.mean, clip.deviation = mean, deviation
        return Splits(
            *(
                ItemSamples(files, clip)
                for files, clip in zip(parts, (learning, plain, plain), strict=True)
            )
        )

    def divided(self, root: Path, folders: ClassFolders) -> Parts:
        """Return the files of a folder for training, validation and test."""
        train, validation, test = folders.train, folders.validation, folders.test
        if test is None:
            train, test = self._split(train, self.test)
        if validation is None:
            train, validation = self._split(train, self.validation)
        check_parts(str(root), [len(train), len(validation), len(test)])
        return train, validation, test

    def _split(self, files: list[Labelled], share: float) -> tuple[list[Labelled], list[Labelled]]:
        targets = torch.tensor([target for _, target in files])
        kept, held_out = stratified_split(targets, share, self.split_seed)
        return [files[i] for i in kept.tolist()], [files[i] for i in held_out.tolist()]


class SoundFolder(SoundData):
    """Any folder of sound files by class.

    ``root/yes/*.wav``, ``root/no/*.wav`` and so on are split by seed; with ``root/train/yes``,
    ``root/test/yes`` and, if there is one, ``root/val/yes`` the split is as given. Folders whose
    names begin with ``.`` or ``_`` are left out. Wav files of 16 bits need nothing else, all others
    the ``audio`` extra.

    Args:
        root: The folder.
        **options: As in ``SoundData``: ``sample_rate``, ``length``, ``features``,
            ``feature_options``, ``test``, ``batch_size``, ``validation``, ``split_seed``,
            ``workers``.

    Raises:
        FileNotFoundError: If there are no files.
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If an argument is out of its range, or the folders do not fit together.

    Source: rate, clip of one second and log-mel bands are those of LEAF, Zeghidour et al. 2021,
    arXiv 2101.08596; see ``LogMel``.

    Examples:
        >>> SoundFolder("sounds", length=32000)  # doctest: +SKIP
    """

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.folders = find_sounds(self.root)
        self.num_classes = len(self.folders.classes)

    def parts(self) -> Parts:
        """Return the files for training, validation and test, each with its class."""
        return self.divided(self.root, self.folders)


class MultiSoundFolder(SoundData):
    """Several folders of sound files, each with classes of its own, as one set of several tasks.

    Targets have the shape ``(N, tasks)``: the class in the task of the folder that a file is from,
    and -1 in all others. ``num_classes`` is a tuple, one number for each folder. Every folder is
    divided like one of ``SoundFolder``; epochs go through all files of all folders.

    Args:
        roots: The folders, in the order of the tasks.
        **options: As in ``SoundData``.

    Raises:
        FileNotFoundError: If a folder has no files.
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If an argument is out of its range, or the folders do not fit together.

    Source: Riad et al. 2022, arXiv 2202.01653, section 4.1, for the task.

    Examples:
        >>> MultiSoundFolder(["commands", "birds"]).num_classes  # doctest: +SKIP
        (35, 2)
    """

    def __init__(self, roots: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        if isinstance(roots, str) or not roots:
            raise TypeError(f"roots must be a list of one or more folders, got {roots!r}")
        self.roots = [Path(root).expanduser() for root in roots]
        self.folders = [find_sounds(root) for root in self.roots]
        self.num_classes = tuple(len(folders.classes) for folders in self.folders)

    def parts(self) -> Sequence[Sequence[tuple[str, Tensor]]]:
        """Return the files for training, validation and test, each with its targets."""
        parts: tuple[list[tuple[str, Tensor]], ...] = ([], [], [])
        for task, (root, folders) in enumerate(zip(self.roots, self.folders, strict=True)):
            for files, part_of_task in zip(parts, self.divided(root, folders), strict=True):
                for path, label in part_of_task:
                    targets = torch.full((len(self.roots),), -1)
                    targets[task] = label
                    files.append((path, targets))
        return parts
