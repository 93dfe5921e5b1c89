"""Reading sound files, and finding them in folders of classes."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".au")
"""File names that count as sound, in either case."""

Labelled = tuple[str, int]
"""Path of a file and its class."""


class ClassFolders(NamedTuple):
    """The files of a folder of classes.

    Attributes:
        classes: Names of the classes, in order.
        train: Files to train with, or all files.
        validation: Files of the folder ``val``; None if there is none.
        test: Files of the folder ``test``; None if there is none.
    """

    classes: tuple[str, ...]
    train: list[Labelled]
    validation: list[Labelled] | None
    test: list[Labelled] | None


def read_sound(path: str) -> tuple[Tensor, int]:
    """Return a sound ``(channels, L)``, between -1 and 1, and its samples per second.

    Wav files of 16-bit samples are read by Python itself, all others by the ``soundfile`` package.

    Args:
        path: The file.

    Raises:
        ImportError: If the file needs ``soundfile``, which is not installed.
        ValueError: If the file is cut off, empty, or no sound.
    """
    try:
        sound, rate = _read_wave(path)
    except (wave.Error, EOFError):
        sound, rate = _read_soundfile(path)
    if sound.shape[-1] == 0:
        raise ValueError(f"{path} holds no sound: remove it")
    return sound, rate


def _read_wave(path: str) -> tuple[Tensor, int]:
    with wave.open(path, "rb") as file:
        channels, width, rate, frames = file.getparams()[:4]
        if width != 2:
            raise wave.Error("samples of another width")
        content = file.readframes(frames)
    if len(content) != channels * width * frames:
        raise ValueError(
            f"{path} is cut off: it announces {frames} samples and holds "
            f"{len(content) // (channels * width)}; get it anew"
        )
    if not content:
        return torch.zeros(channels, 0), rate
    samples = torch.frombuffer(bytearray(content), dtype=torch.int16)
    return samples.view(-1, channels).T.float() / 2**15, rate


def _read_soundfile(path: str) -> tuple[Tensor, int]:
    try:
        import soundfile
    except ImportError as error:
        raise ImportError(
            f"{path} is no wav file of 16-bit samples: to read it, "
            "pip install 'sizeless[audio]', or convert it"
        ) from error
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise ValueError(
            f"{path} cannot be read as sound ({error}): remove it, or convert it to wav or flac"
        ) from error
    return torch.from_numpy(samples).T.contiguous(), rate


def find_sounds(root: Path) -> ClassFolders:
    """Return the files of a folder of classes, in the order of their names.

    Args:
        root: Holds one folder of sound files for each class; or such folders within ``train`` and
            ``test``, and ``val`` where there is one. Names that begin with ``.`` or ``_`` are no
            classes.

    Raises:
        FileNotFoundError: If there are no files, or ``train`` without ``test``.
        ValueError: If ``test`` or ``val`` has a class that ``train`` has not.
    """
    if not (root / "train").is_dir():
        classes, files = _labelled(root)
        return ClassFolders(classes, files, None, None)
    classes, train = _labelled(root / "train")
    held_out = _labelled(root / "val", classes)[1] if (root / "val").is_dir() else None
    return ClassFolders(classes, train, held_out, _labelled(root / "test", classes)[1])


def _labelled(
    folder: Path, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], list[Labelled]]:
    """Return the classes and the files of a folder that has a folder for each class."""
    files = {
        place.name: sorted(
            str(path)
            for path in place.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        for place in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if place.is_dir() and not place.name.startswith((".", "_"))
    }
    names = tuple(name for name, paths in files.items() if paths)
    if not names:
        raise FileNotFoundError(
            f"{folder.absolute()} must hold a folder of sound files ({', '.join(SUFFIXES)}) for "
            "each class, found none: check the path"
        )
    known = names if classes is None else tuple(classes)
    for name in names:
        if name not in known:
            raise ValueError(
                f"{folder / name} is a class that the training files have not; they have "
                f"{', '.join(known)}"
            )
    return known, [(path, known.index(name)) for name in names for path in files[name]]
