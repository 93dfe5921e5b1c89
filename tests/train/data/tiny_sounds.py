"""Tiny sound files for tests."""

from __future__ import annotations

import wave
from pathlib import Path

import torch
from torch import Tensor

from sizeless.train.data.base import DataModule
from sizeless.train.data.loading import Draw


def write_wav(path: Path, samples: Tensor, rate: int = 16000) -> None:
    """Write 16-bit samples ``(L,)`` or ``(channels, L)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = samples if samples.dim() == 2 else samples[None]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.T.to(torch.int16).contiguous().numpy().tobytes())


def tone(level: int, length: int = 400) -> Tensor:
    """A square wave that tells its file by its level."""
    return level * torch.tensor([1, -1]).repeat(length // 2)


def ready(data: DataModule) -> DataModule:
    data.prepare_data()
    data.setup("fit")
    return data


def whole(samples: object) -> tuple[Tensor, Tensor]:
    inputs, targets = samples.__getitems__([Draw(index, 0) for index in range(len(samples))])
    return inputs, targets
