"""Writes a few small images in the official formats; their pixels follow a seed."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PARTS = {"train": "train", "test": "t10k"}


def bytes_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels_of(count: int, classes: int = 10) -> np.ndarray:
    return (np.arange(count) % classes).astype(np.uint8)


def write_idx(
    folder: Path, train: int = 40, test: int = 20, end: str = ".gz", mark: str = "-"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """MNIST's four files; returns images and labels of "train" and "test"."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for seed, (part, count) in enumerate((("train", train), ("test", test))):
        made[part] = bytes_of(count, 28, 28, seed=seed), labels_of(count)
        for kind, values in zip(("images", "labels"), made[part], strict=True):
            name = f"{PARTS[part]}-{kind}{mark}idx{values.ndim}-ubyte"
            content = struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape)
            content += values.tobytes()
            (folder / (name + end)).write_bytes(gzip.compress(content) if end else content)
    return made


def write_cifar(
    root: Path, monkeypatch: pytest.MonkeyPatch, classes: int = 10, batch: int = 20
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """CIFAR's folder of pickles, whose checksums torchvision is told to expect."""
    from torchvision import datasets

    kind = {10: datasets.CIFAR10, 100: datasets.CIFAR100}[classes]
    key = "labels" if classes == 10 else "fine_labels"
    made: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    sums = {}
    names = [(name, "train") for name, _ in kind.train_list]
    names += [(name, "test") for name, _ in kind.test_list]
    for seed, (name, part) in enumerate(names):
        images, labels = bytes_of(batch, 3, 32, 32, seed=seed), labels_of(batch, classes)
        made[part].append((images, labels))
        content = {"data": images.reshape(batch, -1), key: labels.tolist()}
        sums[name] = _dump(root / kind.base_folder / name, content)
    meta = {kind.meta["key"]: [str(label) for label in range(classes)]}
    sums["meta"] = _dump(root / kind.base_folder / kind.meta["filename"], meta)
    for listing in ("train_list", "test_list"):
        pairs = [[name, sums[name]] for name, _ in getattr(kind, listing)]
        monkeypatch.setattr(kind, listing, pairs)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["meta"]})
    return {
        part: (
            np.concatenate([images for images, _ in batches]),
            np.concatenate([labels for _, labels in batches]),
        )
        for part, batches in made.items()
    }


def write_stl10(
    root: Path, monkeypatch: pytest.MonkeyPatch, count: int = 20
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """STL-10's binary files: images by columns, labels from 1."""
    from torchvision import datasets

    folder = root / datasets.STL10.base_folder
    folder.mkdir(parents=True)
    made = {}
    contents = {"unlabeled_X.bin": bytes_of(2, 3, 96, 96).tobytes()}
    for seed, part in enumerate(("train", "test")):
        made[part] = bytes_of(count, 3, 96, 96, seed=seed), labels_of(count)
        contents[f"{part}_X.bin"] = made[part][0].transpose(0, 1, 3, 2).tobytes()
        contents[f"{part}_y.bin"] = (made[part][1] + 1).tobytes()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    for listing in ("train_list", "test_list"):
        pairs = [
            [name, hashlib.md5(contents[name]).hexdigest()]
            for name, _ in getattr(datasets.STL10, listing)
        ]
        monkeypatch.setattr(datasets.STL10, listing, pairs)
    return made


def write_downsampled_imagenet(
    root: Path, side: int = 8, batch: int = 4, protocol: int = 4
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The ten training batches and the validation batch; 20 of the 1,000 classes."""
    names = [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]
    images = bytes_of(len(names), batch, 3, side, side)
    labels = (np.arange(len(names) * batch) % 20 * 50).reshape(len(names), batch)
    for name, data, numbers in zip(names, images, labels, strict=True):
        content = {"data": data.reshape(batch, -1), "labels": (numbers + 1).tolist()}
        if name != "val_data":
            content["mean"] = np.zeros(3 * side**2)
        _dump(root / name, content, protocol)
    train = images[:-1].reshape(-1, 3, side, side), labels[:-1].flatten()
    return {"train": train, "test": (images[-1], labels[-1])}


def write_folders(
    root: Path, classes: tuple[str, ...] = ("ant", "bee"), count: int = 10, side: int = 12
) -> dict[str, np.ndarray]:
    """A folder of PNG images for every class; returns the images ``(count, 3, H, W)``."""
    made = {}
    for seed, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        made[name] = bytes_of(count, 3, side, side, seed=seed)
        for number, image in enumerate(made[name]):
            Image.fromarray(image.transpose(1, 2, 0)).save(root / name / f"{number:03}.png")
    return made


def _dump(path: Path, content: Any, protocol: int = 2) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pickle.dumps(content, protocol)
    path.write_bytes(data)
    return hashlib.md5(data).hexdigest()
