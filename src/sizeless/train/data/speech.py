"""Speech Commands: spoken words of one second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sizeless._validate import boolean, one_of, positive_int
from sizeless.train.data.archives import fetch, unpack
from sizeless.train.data.base import Split, check_parts
from sizeless.train.data.signals import CHUNK, SignalData, three_parts
from sizeless.train.data.sound_features import FEATURES, sound_features
from sizeless.train.data.sound_files import read_sound

NAME = "speech_commands_v0.02"
URL = f"https://storage.googleapis.com/download.tensorflow.org/data/{NAME}.tar.gz"
SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
"""Of the archive, as torchaudio and TensorFlow Datasets have it."""

RATE = 16000
"""Samples per second, and samples of a clip."""

LISTS = ("validation_list.txt", "testing_list.txt")

TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")

# fmt: off
ALL_WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward",
    "four", "go", "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one",
    "right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow",
    "yes", "zero",
)
# fmt: on

WORDS = {"ten": TEN_WORDS, "all": ALL_WORDS}
"""The ten commands, and all 35 words of the archive."""


class SpeechCommands(SignalData):
    """Speech Commands v0.02: one-second clips of single words, 16,000 samples per second.

    The official archive is unpacked into ``root/speech_commands_v0.02``: a folder of wav files for
    each word, and the lists of the validation and the test files.

    Args:
        root: Folder that holds ``speech_commands_v0.02``, or the archive.
        download: Whether to download the archive (2.4 GB) if neither is there.
        words: The classes, in order: ``"ten"``, the ten commands; ``"all"``, all 35 words; or any
            of them as a list. In YAML write ``"yes"``, ``"no"``, ``"on"`` and ``"off"`` with
            quotes: without, they are truth values.
        features: ``"raw"`` gives inputs ``(1, 16000)``, ``"mfcc"`` ``(20, 161)`` and ``"logmel"``
            ``(1, 101, 40)``; see ``MFCC`` and ``LogMel``.
        split: ``"official"`` takes the lists, and all clips, the shorter ones with silence after
            them. ``"merged"`` takes clips of exactly 16,000 samples, which are 34,975 of the ten
            words, and 70, 15 and 15 % of every word for training, validation and test.
        stride: Raw sound only: keeps every ``stride``-th sample, with no low-pass, so that inputs
            have 16000 / ``stride`` samples, rounded up.
        drop: Raw sound only: part of the samples that is dropped, after ``stride``; one more
            channel tells which are known. See ``SignalData``.
        batch_size: Samples in a batch.
        split_seed: Seed of the merged split; separate from the seed of a run.
        workers: Processes that load batches; 0 loads them in the process that trains.

    Raises:
        FileNotFoundError: When the files are needed and are not there.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or a file is not as it must be.

    Source: Warden 2018, arXiv 1804.03209. Ten words, MFCC and the merged split are those of
    FlexConv, Romero et al. 2022, arXiv 2110.08059. That program standardised each time step over
    all channels; here each channel is standardised over all time steps.

    Examples:
        >>> SpeechCommands(root="data", features="mfcc", split="merged").num_classes
        10
    """

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        words: Sequence[str] | str = "ten",
        features: str = "raw",
        split: str = "official",
        stride: int = 1,
        drop: float = 0.0,
        batch_size: int = 64,
        split_seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(drop, batch_size, split_seed=split_seed, workers=workers)
        self.root = Path(root).expanduser()
        self.download = boolean("download", download)
        self.words = _different_words(words)
        self.num_classes = len(self.words)
        self.features = one_of("features", features, ("raw", *FEATURES))
        self.split = one_of("split", split, ("official", "merged"))
        self.stride = positive_int("stride", stride)
        if features != "raw" and (stride > 1 or drop > 0):
            raise ValueError(
                f"stride and drop are for features='raw', got stride={stride} and drop={drop} "
                f"with features={features!r}"
            )

    @property
    def folder(self) -> Path:
        """Where the files of the archive lie."""
        return self.root / NAME

    def prepare_data(self) -> None:
        """Download and unpack the archive as far as it is asked for and has not been done."""
        if self.folder.is_dir():
            return
        archive = self.root / f"{NAME}.tar.gz"
        if self.download and not archive.is_file():
            fetch(URL, archive, SHA256)
        if archive.is_file():
            unpack(archive, self.folder, SHA256)

    def read(self) -> list[Split]:
        """Return the clips for training, validation and test."""
        self.prepare_data()
        names = self._names()
        clips, known = self._clips(names)
        targets = torch.tensor([self.words.index(name.split("/")[0]) for name in names])
        parts: Sequence[Tensor]
        if self.split == "official":
            parts = self._official(names)
        else:
            clips, targets = clips[known == RATE], targets[known == RATE]
            parts = three_parts(targets, self.split_seed)
        check_parts(f"{self.folder} ({self.split})", [len(part) for part in parts])
        inputs = clips[..., :: self.stride]
        if self.features != "raw":
            inputs = _features(self.features, clips)
        return [(inputs[part], targets[part]) for part in parts]

    def _names(self) -> list[str]:
        """Return the files of the words, as the lists write them: ``word/file.wav``."""
        names: list[str] = []
        for word in self.words:
            found = sorted(f"{word}/{path.name}" for path in (self.folder / word).glob("*.wav"))
            if not found:
                raise FileNotFoundError(
                    f"{(self.folder / word).absolute()} must hold the wav files of {word!r}, found "
                    f"none: set download=True, or put {NAME}.tar.gz into {self.root.absolute()} "
                    f"(from {URL})"
                )
            names += found
        return names

    def _clips(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return clips as 16-bit integers ``(N, 1, RATE)``, and how long each file is."""
        clips = torch.zeros(len(names), 1, RATE, dtype=torch.int16)
        lengths = torch.zeros(len(names), dtype=torch.long)
        for row, name in enumerate(names):
            sound, rate = read_sound(str(self.folder / name))
            if rate != RATE or len(sound) != 1:
                raise ValueError(
                    f"{self.folder / name} must have 1 channel of {RATE} samples per second, got "
                    f"{len(sound)} of {rate}: it is no file of Speech Commands, remove it"
                )
            lengths[row] = sound.shape[-1]
            sound = sound[:, :RATE]
            clips[row, :, : sound.shape[-1]] = (sound * 2**15).round().to(torch.int16)
        return clips, lengths

    def _official(self, names: Sequence[str]) -> list[Tensor]:
        held_out = [set(self._listed(file)) for file in LISTS]
        places = torch.tensor(
            [next((i for i, part in enumerate(held_out, 1) if name in part), 0) for name in names]
        )
        return [(places == place).nonzero().flatten() for place in range(3)]

    def _listed(self, file: str) -> Iterator[str]:
        path = self.folder / file
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.absolute()} is missing, the official list: unpack all of {NAME}.tar.gz, or "
                "set split='merged'"
            )
        yield from path.read_text(encoding="utf-8").split()


def _different_words(words: Sequence[str] | str) -> tuple[str, ...]:
    if isinstance(words, str):
        return WORDS[one_of("words", words, tuple(WORDS))]
    if not all(isinstance(word, str) for word in words):
        raise TypeError(f"words must be 'ten', 'all' or a list of words, got {words!r}")
    if len(words) < 2 or len(set(words)) < len(words):
        raise ValueError(f"words must be two or more different words, got {list(words)}")
    return tuple(words)


def _features(name: str, clips: Tensor) -> Tensor:
    """Return the features of 16-bit clips ``(N, 1, RATE)``."""
    features = sound_features(name, RATE)
    return torch.cat([features(part[:, 0].float() / 2**15) for part in clips.split(CHUNK)])
