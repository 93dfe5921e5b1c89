"""Plans that were measured on this machine, kept in the user's cache folder."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sizeless._files import write_text
from sizeless.functional.geometry import Geometry

CACHE = "SIZELESS_CACHE"
"""Environment variable with another folder for what is kept; empty: nothing is read or kept."""

Lines = tuple[str, str, str]
"""A step for each of the three products, as text."""

Table = dict[str, dict[str, Lines]]
"""Machines, the geometries measured on each, and their plans."""

_lock = threading.Lock()


class _Memory:
    """What was read from the file and measured since."""

    table: Table | None = None


def cache_folder() -> Path | None:
    """Return the folder for what is measured once per machine, or ``None`` if it is switched off.

    ``SIZELESS_CACHE``, or ``sizeless`` in the folder that the system keeps for caches.
    """
    chosen = os.environ.get(CACHE)
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "sizeless"


def table_path() -> Path | None:
    """Return the file of measured plans."""
    folder = cache_folder()
    return None if folder is None else folder / "plans.json"


def recorded(geometry: Geometry, device_type: str, label: str = "") -> Lines | None:
    """Return what was measured for a geometry on this machine with this number of threads.

    A label names the back ends that contended: where they are others, it was not measured.
    """
    with _lock:
        return _table().get(_machine(device_type), {}).get(_key(geometry, label))


def record(geometry: Geometry, device_type: str, lines: Lines, label: str = "") -> None:
    """Keep what was measured, for this process until ``save`` is called."""
    with _lock:
        _table().setdefault(_machine(device_type), {})[_key(geometry, label)] = lines


def save() -> Path | None:
    """Write what was measured to the cache folder, beside what other processes wrote there."""
    path = table_path()
    if path is None:
        return None
    with _lock:
        joined = _read(path)
        for machine, plans in _table().items():
            joined.setdefault(machine, {}).update(plans)
        write_text(path, json.dumps(joined, indent=1) + "\n")
    return path


def forget() -> None:
    """Forget what is in memory; the next use reads the file again."""
    with _lock:
        _Memory.table = None


def _table() -> Table:
    if _Memory.table is None:
        path = table_path()
        _Memory.table = {} if path is None else _read(path)
    return _Memory.table


def _read(path: Path) -> Table:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _complain(path, error)
        return {}
    if not _is_table(content):
        _complain(path, "no table of plans")
        return {}
    return {
        machine: {key: (lines[0], lines[1], lines[2]) for key, lines in plans.items()}
        for machine, plans in content.items()
    }


def _is_table(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    tables = content.values()
    return all(isinstance(table, dict) and all(map(_is_lines, table.values())) for table in tables)


def _is_lines(lines: Any) -> bool:
    texts = isinstance(lines, Sequence) and all(isinstance(line, str) for line in lines)
    return texts and len(lines) == 3


def _complain(path: Path, error: object) -> None:
    warnings.warn(
        f"measured plans in {path} cannot be read ({error}) and are not used; remove the file, or "
        "measure again with `sizeless bench --tune`",
        stacklevel=2,
    )


def _machine(device_type: str) -> str:
    """What a measurement holds for."""
    if device_type == "cuda":
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        return f"{name}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@lru_cache
def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor."""
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _key(geometry: Geometry, label: str) -> str:
    return f"{json.dumps(geometry, separators=(',', ':'))} {label}".rstrip()
