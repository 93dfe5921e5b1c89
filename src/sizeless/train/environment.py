"""What a run was made with: versions, machine and the state of the code."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from sizeless._files import write_text

PACKAGES = ("sizeless", "torch", "lightning", "torchmetrics", "torchvision", "numpy")


def describe() -> dict[str, Any]:
    """Return the environment of this process.

    Examples:
        >>> sorted(describe())
        ['accelerators', 'command', 'git', 'machine', 'packages', 'python', 'threads']
    """
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "accelerators": [
            torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
        ],
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git(Path.cwd()),
        "command": sys.argv,
    }


def write(path: Path) -> None:
    """Write the environment of this process to a JSON file."""
    write_text(path, json.dumps(describe(), indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository round a folder, and whether files differ from it."""
    program = shutil.which("git")
    if program is None:
        return None
    answers = [
        subprocess.run(
            [program, "-C", str(folder), *command],
            capture_output=True,
            text=True,
            check=False,
        )
        for command in (("rev-parse", "HEAD"), ("status", "--porcelain"))
    ]
    if any(answer.returncode for answer in answers):
        return None
    return {"commit": answers[0].stdout.strip(), "changed": bool(answers[1].stdout.strip())}
