"""Writing files so that a reader, or the next run after a crash, never meets half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` with a binary file that takes the place of ``path`` once it is complete.

    The temporary file lies in the folder of ``path``: a rename is atomic within one file system
    only, and the system's temporary folder is often another one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_new_file_mode())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def _new_file_mode() -> int:
    """Return the permissions that ``open`` would give; ``mkstemp`` gives the owner's only."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
