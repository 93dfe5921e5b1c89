"""Writes the tiny sets, in the official formats, that the recipes are tried on."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sizeless.train.data import speech

from .data.tiny_images import (
    bytes_of,
    write_cifar,
    write_downsampled_imagenet,
    write_idx,
    write_stl10,
)
from .data.tiny_sounds import write_wav

IMAGENET_CLASSES = {"imagenet": 1000, "imagenet100": 100}
HEADER = """\
@problemName {name}
@timeStamps false
@missing false
@univariate false
@dimensions {channels}
@equalLength false
@classLabel true {labels}
@data
"""


def data_arguments(
    name: str, options: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Write the files of a data class and return the arguments that lead a recipe to them.

    Args:
        name: The data class; those that need no files are left as they are.
        options: What the recipe gives it.
        root: Where the files go.
        monkeypatch: Tells torchvision the checksums of what is written.
    """
    if name == "MultiSoundFolder":
        roots = [root / Path(folder).name for folder in options["roots"]]
        for folder, classes in zip(roots, (10, 2), strict=True):
            _write_words(folder, [f"class{number}" for number in range(classes)])
        # Evaluation goes through the tasks one after the other, and each needs a sample.
        every = [f"--trainer.limit_{stage}_batches=1.0" for stage in ("val", "test")]
        return [f"--data.roots={[str(folder) for folder in roots]}", *every]
    if name == "ImageNet":
        _write_imagenet(root, IMAGENET_CLASSES[Path(options["root"]).name])
    elif name in WRITERS:
        WRITERS[name](root, monkeypatch)
    else:
        return []
    return [f"--data.root={root}"]


def _write_imagenet(root: Path, classes: int) -> None:
    """A JPEG of each class, and more of the first: some are there to be held out."""
    file = io.BytesIO()
    Image.fromarray(bytes_of(40, 60, 3)).save(file, "JPEG")
    for number in range(classes):
        name = f"n{number:08}"
        for place in range(1 if number else 40):
            _write(root / "train" / name / f"{name}_{place}.JPEG", file.getvalue())
        _write(root / "val" / name / f"ILSVRC2012_val_{number:08}.JPEG", file.getvalue())


def _write_speech(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unpacked archive: a folder of clips for each word, the noises, and the official lists."""
    folder = root / speech.NAME
    names = _write_words(folder, speech.WORDS["all"])
    write_wav(folder / "_background_noise_" / "hum.wav", torch.zeros(20000))
    for number, name in enumerate(speech.LISTS):
        (folder / name).write_text("\n".join(names[number::5]) + "\n", encoding="utf-8")


def _write_words(folder: Path, words: Iterable[str], count: int = 8) -> list[str]:
    """Write clips of a second for each word and return their names, ``word/file.wav``."""
    clips = torch.from_numpy(np.random.default_rng(0).integers(-2000, 2000, (count, 16000)))
    names = [f"{word}/{number:08x}_nohash_0.wav" for word in words for number in range(count)]
    for place, name in enumerate(names):
        write_wav(folder / name, clips[place % count])
    return names


def _write_series(root: Path, name: str, classes: int, channels: int, longest: int) -> None:
    """Series of unequal length."""
    random = np.random.default_rng(0)
    labels = " ".join(str(label + 1) for label in range(classes))
    header = HEADER.format(name=name, channels=channels, labels=labels)
    for part in ("TRAIN", "TEST"):
        lines = []
        for number in range(5 * classes):
            rows = random.normal(size=(channels, longest - number % 20)).round(3).tolist()
            values = ":".join(",".join(map(str, row)) for row in rows)
            lines.append(f"{values}:{number % classes + 1}\n")
        _write(root / name / f"{name}_{part}.ts", (header + "".join(lines)).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "CIFAR10": write_cifar,
    "CIFAR100": lambda root, monkeypatch: write_cifar(root, monkeypatch, classes=100, batch=600),
    "CharacterTrajectories": lambda root, _: _write_series(
        root, "CharacterTrajectories", classes=20, channels=3, longest=182
    ),
    "DownsampledImageNet": lambda root, _: write_downsampled_imagenet(root, side=32, batch=40),
    "FashionMNIST": lambda root, _: write_idx(root, train=100),
    "MNIST": lambda root, _: write_idx(root, train=100),
    "NoisePaddedCIFAR10": write_cifar,
    "STL10": lambda root, monkeypatch: write_stl10(root, monkeypatch, count=60),
    "SpeechCommands": _write_speech,
    "TimeSeries": lambda root, _: _write_series(
        root, "JapaneseVowels", classes=9, channels=12, longest=29
    ),
}
"""What writes the files of a data class whose argument ``root`` names their folder."""
