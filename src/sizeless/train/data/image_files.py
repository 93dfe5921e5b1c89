"""Files that hold many images: IDX and the pickles of down-sampled ImageNet."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

IDX_BYTES = 0x08
"""The type code of unsigned bytes in an IDX file."""

IDX_PARTS = {
    "train_images": "train-images{}idx3-ubyte",
    "train_labels": "train-labels{}idx1-ubyte",
    "test_images": "t10k-images{}idx3-ubyte",
    "test_labels": "t10k-labels{}idx1-ubyte",
}


def missing(owner: str, folder: Path, wanted: str, remedy: str) -> FileNotFoundError:
    """Return the error for files that are not there.

    Args:
        owner: The data set.
        folder: Where it looked.
        wanted: What it looked for.
        remedy: What to do.
    """
    return FileNotFoundError(
        f"{owner} found no {wanted} in {folder.expanduser().absolute()}: {remedy}"
    )


def idx_files(folder: Path) -> dict[str, Path] | None:
    """Return the four IDX files of an MNIST-like set in ``folder``, or None if one is missing.

    Args:
        folder: Holds ``train-images-idx3-ubyte`` and its three companions, each plain or with
            ``.gz``, with a hyphen or a dot before ``idx``.
    """
    found = {}
    for part, pattern in IDX_PARTS.items():
        names = [pattern.format(mark) + end for mark in "-." for end in ("", ".gz")]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if not paths:
            return None
        found[part] = paths[0]
    return found


def read_idx(path: Path) -> Tensor:
    """Return the bytes of an IDX file, compressed or not, as a tensor of its shape.

    The format: two zero bytes, a type code, the number of axes, the extent of each axis as four
    bytes with the highest first, then the values.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is of another format, or cut off.

    Source: Y. LeCun's page of MNIST.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is cut off or damaged ({error}): get it anew") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != IDX_BYTES:
        raise ValueError(
            f"{path} is no IDX file of bytes: it starts with {content[:4]!r}, and must start with "
            "two zero bytes and 0x08"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{path} is cut off within its first {start} bytes: get it anew")
    shape = numpy.frombuffer(content[4:start], dtype=">u4").tolist()
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} must hold {math.prod(shape)} values for its shape {tuple(shape)}, but holds "
            f"{len(content) - start}: get it anew"
        )
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)


def read_image_pickle(path: Path) -> tuple[Tensor, Tensor]:
    """Return images ``(N, 3, k, k)`` and classes from 0 of a batch of down-sampled ImageNet.

    The file is a dictionary with ``data``, bytes of shape ``(N, 3 * k * k)``, and ``labels``, a
    list of classes from 1; its ``mean`` is not used. Only arrays and plain values are read: a file
    that names anything else is refused, since a pickle could run any program.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is no such batch, or is damaged.

    Source: Chrabaszcz, Loshchilov and Hutter 2017, arXiv 1707.08819.
    """
    try:
        batch = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        data = numpy.asarray(batch["data"])
        labels = numpy.asarray(batch["labels"], dtype=numpy.int64)
    except Exception as error:
        raise ValueError(
            f"{path} is no batch of down-sampled ImageNet, a pickled dictionary with data and "
            f"labels: {type(error).__name__}: {error}"
        ) from error
    side = math.isqrt(data.shape[-1] // 3)
    if data.dtype != numpy.uint8 or data.ndim != 2 or data.shape[1] != 3 * side**2:
        raise ValueError(
            f"data in {path} must be bytes of shape (N, 3 * k * k), got {data.dtype} of shape "
            f"{data.shape}"
        )
    if labels.shape != data.shape[:1] or labels.min(initial=1) < 1 or labels.max(initial=1) > 1000:
        raise ValueError(
            f"labels in {path} must be {len(data)} classes from 1 to 1000, got {labels.shape} from "
            f"{labels.min(initial=1)} to {labels.max(initial=1)}"
        )
    images = torch.from_numpy(data.copy()).reshape(-1, 3, side, side)
    return images, torch.from_numpy(labels) - 1


def _encode(text: str, encoding: str) -> bytes:
    """Make bytes as Python 3 writes them in the protocols of Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}, which is refused")
    return text.encode("latin1")


def _plain_names() -> dict[tuple[str, str], Callable[..., Any]]:
    """Return what arrays in a pickle may name; NumPy has moved its functions twice."""
    array = numpy.zeros(1)
    reconstruct: Any = array.__reduce__()[0]
    scalar: Any = array[0].__reduce__()[0]
    from_buffer: Any = array.__reduce_ex__(5)[0]
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): numpy.ndarray,
        ("numpy", "dtype"): numpy.dtype,
        ("_codecs", "encode"): _encode,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = reconstruct
        names[f"{core}.multiarray", "scalar"] = scalar
        names[f"{core}.numeric", "_frombuffer"] = from_buffer
    return names


class _PlainUnpickler(pickle.Unpickler):
    """Reads NumPy arrays and plain values, and refuses to look up anything else."""

    names = _plain_names()

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed callable."""
        try:
            return self.names[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None
