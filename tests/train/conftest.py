"""A run small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RECIPE = """\
trainer:
  accelerator: cpu
  enable_progress_bar: false
  max_epochs: 2
  limit_train_batches: 2
  limit_val_batches: 1
  limit_test_batches: 1
model:
  network:
    class_path: sizeless.models.FlexNet
    init_args: {in_channels: 1, num_classes: 10, kernel_size: 5, widths: [3], dropout: 0.2}
  lr: 0.01
  size_lr: 0.05
data:
  class_path: sizeless.train.data.Digits
  init_args: {batch_size: 16}
"""


@pytest.fixture(autouse=True)
def _no_seed_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves its seed in the environment; forget it after the test."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of two epochs of two batches."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def power_cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make training fail at the start of an epoch, until it is called with -1."""
    from sizeless.train.callbacks import SizeLog

    def cut(epoch: int) -> None:
        def fail(self: object, trainer: object, pl_module: object) -> None:
            if trainer.current_epoch == epoch:
                raise OSError("power cut")

        monkeypatch.setattr(SizeLog, "on_train_epoch_start", fail, raising=False)

    return cut
