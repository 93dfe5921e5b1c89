"""Official archives: fetched, checked and unpacked so that no half of one is ever met."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.hub import download_url_to_file


def fetch(url: str, path: Path, sha256: str) -> None:
    """Download a file; it stands at its place once it is complete and is the one expected.

    Args:
        url: Where the file is.
        path: Where it goes.
        sha256: Its checksum, in hexadecimal.

    Raises:
        OSError: If the download fails.
        ValueError: If the file that came is another one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except OSError as error:
        raise OSError(
            f"could not download {url} ({error}): check the network, or put the file at {path}"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"{url} gave another file than expected ({error}): try again, or put the official "
            f"file at {path}"
        ) from error


def unpack(archive: Path, folder: Path, sha256: str) -> None:
    """Unpack a tar archive into a folder, which stands at its place once it is complete.

    Args:
        archive: The archive.
        folder: The folder to make; one that is there already stays as it is.
        sha256: Checksum of the archive, in hexadecimal.

    Raises:
        ValueError: If the archive is another one than expected, or damaged.
    """
    found = _sha256(archive)
    if found != sha256:
        raise ValueError(
            f"{archive} is not the official archive: its SHA-256 is {found}, expected {sha256}; "
            "remove it and download it again"
        )
    try:
        with complete_folder(folder) as temporary, tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{archive} cannot be unpacked ({reason}): remove it and download it again"
        ) from error


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` once the block is through.

    Where another process was quicker its folder stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
