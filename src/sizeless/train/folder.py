"""The folder of a run: its files, and what a request for it must be like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class RunError(Exception):
    """A request that cannot be met; the message says in one line why, and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: The folder; it need not exist yet.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The full configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The metrics of the chosen checkpoint."""
        return self.path / "metrics.json"

    @property
    def sizes(self) -> Path:
        """The learned sizes over training, as a table."""
        return self.path / "sizes.csv"

    @property
    def costs(self) -> Path:
        """What a sample costs over training, as a table; absent where nothing is counted."""
        return self.path / "costs.csv"

    @property
    def picture(self) -> Path:
        """The learned sizes over training, as a picture."""
        return self.path / "sizes.png"

    @property
    def best(self) -> Path:
        """The checkpoint chosen on the validation split."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last one."""
        return self.path / "checkpoints" / "previous.ckpt"

    @property
    def conversion(self) -> Path:
        """What was changed in a network that was converted."""
        return self.path / "conversion.txt"

    @property
    def environment(self) -> Path:
        """What the run was made with."""
        return self.path / "environment.json"

    def holds_a_run(self) -> bool:
        """Return whether a run has left files here."""
        files = (self.config, self.metrics, self.sizes, self.best, self.last, self.previous)
        return any(file.exists() for file in files)

    def forget_start(self) -> None:
        """Remove what a run wrote before it could begin, so that another may use the folder."""
        if not any(file.exists() for file in (self.last, self.previous, self.best)):
            written = (self.config, self.environment, self.sizes, self.costs, self.conversion)
            for file in written:
                file.unlink(missing_ok=True)
