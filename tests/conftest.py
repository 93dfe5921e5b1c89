"""What every test runs under: fixed seeds, few threads, deterministic Hypothesis, golden data."""

from __future__ import annotations

import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import register_random, settings
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"

settings.register_profile("sizeless", deadline=None, derandomize=True)
settings.load_profile("sizeless")


class _TorchRandom:
    """Torch's global generator as Hypothesis wants it, so that a replayed example is the same."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


# Hypothesis keeps a weak reference only.
_torch_random = _TorchRandom()
register_random(_torch_random)


def pytest_sessionstart() -> None:
    """Keep parallel test processes from fighting for the cores, and from plans measured before."""
    torch.set_num_threads(1)
    os.environ["SIZELESS_CACHE"] = ""


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seed every generator from the test's own name, and put their states back after it."""
    seed = zlib.crc32(request.node.nodeid.encode())
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)


@pytest.fixture(scope="session")
def golden() -> Callable[..., dict[str, Tensor | str]]:
    """Loader of arrays that the papers' own programs computed, from ``tests/golden``.

    ``golden("diffstride_official", "ds/even_s2/")`` gives every array of that file whose key
    starts with the prefix, under the rest of its key: numbers as tensors, text as str. Each call
    reads anew, so a test may change what it gets.
    """

    def load(name: str, prefix: str = "") -> dict[str, Tensor | str]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            keys = [key for key in arrays.files if key.startswith(prefix)]
            if not keys:
                raise KeyError(f"no key of {name}.npz starts with {prefix!r}")
            return {key.removeprefix(prefix): _tensor_or_text(arrays[key]) for key in keys}

    return load


def _tensor_or_text(array: np.ndarray) -> Tensor | str:
    return str(array) if array.dtype.kind == "U" else torch.from_numpy(array)


@pytest.fixture(scope="session")
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A training of one step of each kind of layer, by the name of its recipe."""
    from sizeless.cli import main

    limits = ("max_epochs", "limit_train_batches", "limit_val_batches", "limit_test_batches")
    short = [f"--trainer.{key}=1" for key in limits]
    folders = {}
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            patch.setenv(name, "0")
            patch.delenv(name)
        for name in ("digits_flexnet", "digits_niff", "digits_diffstride"):
            folders[name] = tmp_path_factory.mktemp(name) / "run"
            recipe = str(Path(__file__).parents[1] / "recipes" / f"{name}.yaml")
            assert main(["fit", "--config", recipe, "--out", str(folders[name]), *short]) == 0
    return folders


@pytest.fixture
def short_run(
    short_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Copies of these runs."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)

    def copied(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(short_runs[name], folder)
        return folder

    return copied
